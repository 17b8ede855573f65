"""Ground of the methods that remove and round single weights."""
