"""A run whose scores mean nothing has failed."""

import math

import pytest
import torch

from benchmark.runs.run import ScoreError, compress_and_measure, finite_metrics
from compressors import Identity, Magnitude
from tests.compressors.networks import RandomEvents, classifier


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_network_with_a_weight_that_is_no_number_is_not_scored(value):
    module = classifier()
    name, weight = list(module.network.named_parameters())[-1]
    with torch.no_grad():
        weight.view(-1)[0] = value
    with pytest.raises(ScoreError, match=f"not finite.*{name}") as error:
        compress_and_measure(module, RandomEvents(), Identity(), 0)
    assert error.value.exit_status == 1


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_a_score_that_is_no_number_is_none(name):
    results = {"test/accuracy": 0.5, "test/loss": 1.0, f"test/{name}": math.nan}
    with pytest.raises(ScoreError, match=f"the network's {name} is nan"):
        finite_metrics(classifier(), results)


def test_outputs_that_are_no_numbers_are_no_result(monkeypatch):
    """The weights are sound, and what the network makes of them is not."""
    module = classifier()
    module.network.register_forward_hook(lambda layer, inputs, output: output * math.nan)
    with pytest.raises(ScoreError, match="loss is nan"):
        compress_and_measure(module, RandomEvents(), Magnitude(0.5), 0)


def test_sound_scores_go_through():
    assert compress_and_measure(classifier(), RandomEvents(), Identity(), 0).metrics.loss > 0
