"""What is learnt from calibration data."""
