"""One network of a user's own: compressed, profiled, described."""
