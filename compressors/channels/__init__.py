"""Ground of the methods that take out whole channels."""
