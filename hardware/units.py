"""Operations, memory and energy for people: three significant digits and a prefix, worded once.

:mod:`benchmark.wording` adds what only a benchmark shows. Programs get the raw numbers, in CSV and JSON.
"""

from collections.abc import Sequence

_Units = Sequence[tuple[float, str]]

_COUNTS: _Units = ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, ""))
_BYTES: _Units = ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B"))
_JOULES: _Units = ((1, " J"), (1e-3, " mJ"), (1e-6, " µJ"), (1e-9, " nJ"), (1e-12, " pJ"))


def count(value: float) -> str:
    """1234567 -> ``1.23 M``."""
    return _scaled(value, _COUNTS)


def size(bits: float) -> str:
    """373555 bits -> ``45.6 KiB``; the smallest unit is a whole byte."""
    return _scaled(round(bits / 8), _BYTES)


def joules(value: float) -> str:
    """0.0000123 -> ``12.3 µJ``."""
    return _scaled(value, _JOULES)


def _scaled(value: float, units: _Units) -> str:
    """A number that is not negative, in the largest unit of which there is one; the smallest takes what is left."""
    scale, unit = next((pair for pair in units if value >= 0.9995 * pair[0]), units[-1])  # 999.6 is shown as 1 k
    scaled = value / scale
    return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:.0f}{unit}"  # not 1.02e+03 KiB
