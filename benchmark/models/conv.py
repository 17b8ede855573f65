"""The name under which earlier documents import :func:`benchmark.networks.zoo.conv.conv`."""

from benchmark.networks.zoo.conv import conv

__all__ = ["conv"]
