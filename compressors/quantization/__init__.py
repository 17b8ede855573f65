"""Grids of weights."""
