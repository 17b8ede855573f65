"""What a network is: its layers, its neurons, its leaks."""
