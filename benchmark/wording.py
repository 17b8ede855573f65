"""Numbers for people: one wording of each kind of number, wherever it is shown.

Operations, bits and joules are worded by :mod:`hardware.units`, which the package that counts them uses too.
"""

from collections.abc import Mapping

from hardware.units import count, joules, size

__all__ = ["count", "joules", "never_active", "number_of", "percent", "points", "precise", "rounded", "seconds", "size"]


def percent(value: float) -> str:
    """A share in percent, without the sign: 0.934 -> ``93.40``."""
    return f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference of shares, in percentage points, with its sign: -0.012 -> ``−1.20``."""
    return f"{100 * value:+.2f}".replace("-", "−").replace("−0.00", "+0.00")


def seconds(value: float) -> str:
    """0.1234 -> ``0.12 s``, 754 -> ``12.6 min``, 9000 -> ``2.5 h``."""
    if value < 120:
        return f"{value:.2g} s" if value < 9.95 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def rounded(value: float) -> str:
    """A plain number, to three significant digits: 0.12345 -> ``0.123``."""
    return f"{value:.3g}"


def precise(value: float) -> str:
    """A plain number, to six significant digits and with its thousands apart: 12345.67 -> ``12,345.7``."""
    return f"{value:,.6g}"


def number_of(number: int, thing: str) -> str:
    """1 -> ``1 input``, 1234 -> ``1,234 inputs``."""
    return f"{number:,} {thing if number == 1 else thing + 's'}"


def never_active(dead_inputs: Mapping[str, int]) -> str:
    """Layer name -> inputs whose weights went as they were silent, on one line; nothing where there are none.

    ``9 inputs of layer conv1, 64 inputs of layer fc were never active``.
    """
    named = [f"{number_of(n, 'input')} of layer {name}" for name, n in dead_inputs.items() if n]
    return f"{', '.join(named)} {'was' if sum(dead_inputs.values()) == 1 else 'were'} never active" if named else ""
