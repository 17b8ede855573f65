"""The widths of quantised weights; apart from the grids, so that reading a suite imports no torch."""

MIN_BITS, MAX_BITS = 2, 8
