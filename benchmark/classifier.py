"""The name under which earlier documents import :class:`benchmark.SNNClassifier`."""

from benchmark.networks.classifier import SNNClassifier

__all__ = ["SNNClassifier"]
