"""Imported by a worker before its first trial arrives: what training needs, and what torch loads with a first step.

It asks for no GPU: which one is this worker's, Ray says with the trial.
"""

import torch

import cifar_tune.search.ray_worker  # noqa: F401 - imported in advance

torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).step()
