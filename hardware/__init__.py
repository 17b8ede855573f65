"""Hardware cost of spiking networks: exact synaptic operations, memory in bits, energy, chip fit.

What the stub beside this file lists is imported on first use, so that ``import hardware`` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
