"""What PyTorch's functions are, by whatever name they are called, and what other functions are taken for."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import handle_torch_function, has_torch_function

from hardware import profile
from hardware.functions import FUNCTIONS, Kind, describe, stands_in_for
from tests.hardware.networks import loader, spikes


@pytest.mark.parametrize(
    "called",
    [torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__, operator.add],
)
def test_one_operation_has_many_names(called):
    assert describe(called).kind is Kind.ADDITION


def test_functions_of_pytorch_that_are_not_described_are_none_and_others_are_opaque():
    assert describe(torch.erfinv) is None
    assert describe(describe).kind is Kind.OPAQUE


def test_convolutions_and_pools_know_their_dimensions():
    for n in (1, 2, 3):
        assert FUNCTIONS[f"conv{n}d"].dimensions == FUNCTIONS[f"max_pool{n}d"].dimensions == n


def test_a_function_stands_in_for_another_only_with_its_arguments():
    with pytest.raises(TypeError, match="cannot stand in for conv2d"):

        @stands_in_for("conv2d")
        def other_order(weight, input):
            return F.conv2d(input, weight)


def own(input, weight):
    if has_torch_function((input, weight)):
        return handle_torch_function(own, (input, weight), input, weight)
    return F.linear(input, weight)


own.__name__ = own.__qualname__ = "linear"  # a name says nothing: only a declaration does


class Own(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.weight, self.linear = nn.Parameter(torch.ones(3, 5)), linear

    def forward(self, x):
        return self.linear(x, self.weight)


def test_a_function_of_another_origin_is_counted_if_it_says_what_it_is_and_named_if_not():
    x = spikes(4, 5)
    report = profile(Own(own), loader(x))
    assert (report.layers, report.uncounted) == ((), ("Own: linear",))

    @stands_in_for("linear")
    def declared(input, weight):
        if has_torch_function((input, weight)):
            return handle_torch_function(declared, (input, weight), input, weight)
        return F.linear(input, weight)

    report = profile(Own(declared), loader(x))
    assert (report.ac, report.uncounted) == (3 * int(x.sum()), ())


def test_pooling_is_counted_whether_places_are_asked_for_or_not():
    x = spikes(2, 3, 8, 8)
    plain = profile(nn.MaxPool2d(2), loader(x)).others
    (pool,) = profile(nn.MaxPool2d(2, return_indices=True), loader(x)).others
    assert (pool,) == plain
    assert pool.operations == int(x.sum())
