"""Weights & Biases: runs, dashboards, sweeps."""
