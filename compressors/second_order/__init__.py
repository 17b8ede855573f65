"""Least squares on a layer's Hessian: which weights to remove or round, and what the others become.

Nothing here is a method. Three modules know layers, calibration data and budgets, and a method is made of them:

- :mod:`~compressors.second_order.curvature`: every layer's problem, measured on calibration data.
- :mod:`~compressors.second_order.budget_split`: how much each layer keeps.
- :mod:`~compressors.second_order.layer_solver`: a layer, pruned and rounded within its part of the budget.

They stand on pure functions of tensors, from the top:

- :mod:`~compressors.second_order.solvers`: the ways of pruning and quantising one layer that a user can choose from.
- :mod:`~compressors.second_order.solution_cache`: keeps their results on disk, under a hash of what they depend on.
- :mod:`~compressors.second_order.problem`: their input (weight, Hessian, BatchNorm's factors), and sparsity patterns.
- :mod:`~compressors.second_order.obs`: the exact way, one function a step, named there in order.
- :mod:`~compressors.second_order.elimination`: the loop inside its first steps, and
  :mod:`~compressors.second_order.kernels`: what of it is compiled.
- :mod:`~compressors.second_order.fixed_order`: the fast way (SparseGPT, GPTQ), on one page.
"""
