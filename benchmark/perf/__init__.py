"""The performance table of all packages: `python -m benchmark.perf`."""
