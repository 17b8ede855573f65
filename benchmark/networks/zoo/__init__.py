"""Networks that can be named."""
