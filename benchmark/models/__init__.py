"""The names under which earlier documents import networks; they are in :mod:`benchmark.networks.zoo`."""
