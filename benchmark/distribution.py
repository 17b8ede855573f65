"""What is installed: the distribution that brings the command ``snnbench``, whatever it is called on an index.

The name ``snnbench`` belongs to others there, so that the distribution has another one than its command.
"""

from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, entry_points

COMMAND = "snnbench"


@cache
def installed() -> Distribution:
    """The distribution.

    Raises:
        PackageNotFoundError: there is none, as in a checkout that is only on Python's path.
    """
    for script in entry_points(group="console_scripts", name=COMMAND):
        if script.value == "benchmark.cli:main" and script.dist is not None:
            return script.dist
    raise PackageNotFoundError(COMMAND)
