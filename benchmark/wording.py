"""Numbers for people: one wording of each unit, wherever it is shown."""


def count(value: float) -> str:
    """1234567 -> ``1.23 M``."""
    for limit, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit * 0.9995:  # what rounds up to the next unit is shown in it
            return f"{value / limit:.3g}{prefix}"
    return f"{value:.3g}"


def size(bits: float) -> str:
    """373555 bits -> ``45.6 KiB``."""
    value = bits / 8
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g} {unit}" if value < 999.5 * limit else f"{value / limit:.0f} {unit}"
    return f"{value:.0f} B"


def joules(value: float) -> str:
    """0.0000123 -> ``12.3 µJ``."""
    for limit, unit in ((1e0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g} {unit}"
    return f"{value / 1e-12:.3g} pJ"


def percent(value: float) -> str:
    """0.934 -> ``93.40``."""
    return f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference of shares, in percentage points, with its sign: -0.012 -> ``−1.20``."""
    return f"{100 * value:+.2f}".replace("-", "−").replace("−0.00", "+0.00")


def seconds(value: float) -> str:
    """0.1234 -> ``0.12 s``, 754 -> ``12.6 min``."""
    if value < 120:
        return f"{value:.2g} s" if value < 9.95 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def duration(seconds: float) -> str:
    """``0.3 s``, ``42 s``, ``3 min`` or ``1 h 20 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def gibibytes(count: int) -> str:
    """``1.5 GiB``."""
    return f"{count / 2**30:.1f} GiB"
