"""Compressors of spiking neural networks, as Lightning callbacks: ``from compressors import SBC``.

What the stub beside this file lists is imported on first use, so that listing the registry costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
