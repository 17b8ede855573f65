"""Sizes that follow from a network's input."""

import torch
from spikingjelly.activation_based import functional
from torch import nn

LARGE = 96
"""Width in pixels from which on an image gets the stem of the ImageNet networks."""


def features(body: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Number of features a body gives for an input of one time step, ``[1, 1, C, H, W] -> [1, 1, features]``.

    Raises:
        ValueError: the input is too small for the body's pooling.
    """
    training = body.training
    try:
        with torch.no_grad():
            number = body.eval()(torch.zeros(1, 1, *input_shape)).shape[-1]
    except RuntimeError as error:
        raise ValueError(f"inputs of {input_shape[1]} x {input_shape[2]} pixels are too small for it") from error
    finally:
        body.train(training)
        functional.reset_net(body)
    return number
