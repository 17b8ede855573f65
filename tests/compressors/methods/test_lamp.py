"""LAMP on whole networks; the scores' closed forms are tested with the allocations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.budget import OptionError
from compressors.methods.lamp import LAMP
from compressors.methods.magnitude import Magnitude
from compressors.weights.allocation import lamp, lamp_scores
from tests.compressors.methods.leaky_networks import classifier, fit, masks, same


@pytest.mark.parametrize("density", [1.0, 0.3, 0.07])
def test_it_is_magnitude_pruning_with_lamps_allocation(density):
    assert same(fit(LAMP(density)), fit(Magnitude(density, allocation="lamp")))


def test_as_many_weights_as_layers_leaves_each_layer_its_largest():
    module = classifier()
    dense = {name: p.detach().clone() for name, p in module.named_parameters()}
    total = sum(dense[f"{name}.weight"].numel() for name in ("network.0", "network.4", "network.6"))
    for name, mask in masks(fit(LAMP(3 / total), module)).items():
        assert mask.flatten().nonzero().tolist() == [[int(dense[f"{name}.weight"].abs().argmax())]]


@given(scale=st.floats(1e-3, 1e3), density=st.floats(0.01, 1), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_scale_of_a_layer_makes_no_difference(scale, density, seed):
    generator = torch.Generator().manual_seed(seed)
    net = {str(n): torch.randn(n, generator=generator, dtype=torch.float64) for n in (7, 60, 200)}
    scaled = {name: w * scale if name == "60" else w for name, w in net.items()}
    assert lamp(net, density) == lamp(scaled, density)


def test_scores_of_a_large_layer_do_not_lose_their_digits():
    """A difference of float32 sums would give the largest weight a score far from 1."""
    weight = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    scores = lamp_scores(weight)
    top = weight.double().square().sort().values[-1000:]
    surviving = torch.stack([top[i:].sum() for i in range(1000)])
    torch.testing.assert_close(scores[-1000:], top / surviving, rtol=1e-12, atol=0)
    assert float(scores[-1]) == 1.0


def test_another_allocation_is_refused():
    with pytest.raises(OptionError, match="LAMP splits the budget by its own scores.*'magnitude' with allocation"):
        LAMP(0.1, allocation="uniform")
