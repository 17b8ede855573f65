"""Channel pruning: which channels belong together, scores of channels, and how they are removed from a network."""
