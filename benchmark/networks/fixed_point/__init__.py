"""Spiking networks in whole numbers: weights, thresholds and potentials as a chip holds them, to the bit."""
