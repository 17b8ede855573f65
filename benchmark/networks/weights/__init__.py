"""Networks' weights as files."""
