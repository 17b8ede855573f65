"""What is asked: suites, and the objects that names in them stand for."""
