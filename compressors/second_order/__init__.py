"""Least squares on a layer's Hessian: pure functions of tensors."""
