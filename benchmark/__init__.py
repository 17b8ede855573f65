"""The benchmark: suites, runs, records, leaderboards and the command line; ``from benchmark import compress``.

What the stub beside this file lists is imported on first use, so that ``import benchmark`` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
