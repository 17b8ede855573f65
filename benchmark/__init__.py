"""The benchmark: suites, runs, records, leaderboards and the command line; ``from benchmark import compress``.

What the stub beside this file lists is imported on first use, so that ``import benchmark`` costs nothing.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

import lazy_loader

SIBLINGS = ("hardware", "datamodules", "compressors")
"""The packages that stand beside this one."""


def _import_siblings() -> None:
    """Import the packages beside this one from beside this one, whatever else has their names.

    Where Python looks first (the current folder, for ``python -m``, or PYTHONPATH) there may be somebody's own
    ``hardware.py``, which is none of this program's and is not run.

    Raises:
        ImportError: such a module was imported already.
    """
    home = Path(__file__).resolve().parents[1]
    for name in SIBLINGS:
        if name in sys.modules:
            found = getattr(sys.modules[name], "__file__", None)
            if found is None or Path(found).resolve() != home / name / "__init__.py":
                raise ImportError(f"the module {name!r} ({found}) hides the package of snnbench: give it another name")
            continue
        spec = PathFinder.find_spec(name, [str(home)])
        assert spec is not None and spec.loader is not None  # noqa: PT018  # it was installed with this one
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


_import_siblings()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
