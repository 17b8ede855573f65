"""Whoever else writes into a network while it is compressed: what the account says is what the network has."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging

from compressors import QPSNN, LayerError, Magnitude
from compressors.registry import COMPRESSORS
from tests.compressors.networks import QUIET, RandomEvents, classifier, make

METHODS = sorted(COMPRESSORS)
EPOCHS = 3


class Meddler(Callback):
    """Moves every weight at the end of the fit, after all other callbacks of the same hook."""

    def on_fit_end(self, trainer, pl_module):
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.add_(0.01)


WRITERS = {
    "averages": lambda: EMAWeightAveraging(decay=0.9),
    "stochastic averages": lambda: StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1),
    "meddler": Meddler,
}


def fit_beside(compressor, *others, module=None):
    module = module or classifier()
    Trainer(max_epochs=EPOCHS, callbacks=[compressor, *others], **QUIET).fit(module, datamodule=RandomEvents())
    return module


def require_as_told(compressor, module):
    for entry in compressor.compression.layers:
        weight = module.get_submodule(entry.name).weight.detach()
        assert tuple(weight.shape) == entry.shape
        assert not weight[~entry.mask].any()
        if entry.grid is not None:
            assert torch.equal(weight, entry.weight())
    kept = sum(int(module.get_submodule(e.name).weight.count_nonzero()) for e in compressor.compression.layers)
    assert kept <= compressor.compression.density * sum(e.weights for e in compressor.compression.layers) + 1e-6


ONE_TRAINING = {"qpsnn": {"order": "prune-quantize"}, "lottery": {"schedule": [0.3]}}
"""Options with which nothing happens in the middle of training that averages of weights cannot go along with."""


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("name", METHODS)
def test_a_network_is_what_its_account_says(name, writer):
    compressor = make(name, **ONE_TRAINING.get(name, {}))
    require_as_told(compressor, fit_beside(compressor, writer()))


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(
    "compressor",
    [
        lambda: Magnitude(0.1, schedule=[0.6, 0.3, 0.1]),
        lambda: Magnitude(0.3, bits=4),
        lambda: QPSNN(bits=3),
        lambda: QPSNN(0.5, bits=3, order="prune-quantize"),
    ],
    ids=["rounds", "quantised", "trained on its grid", "narrowed first"],
)
def test_masks_of_rounds_and_codes_hold_too(compressor, writer):
    made = compressor()
    module = fit_beside(made, writer())
    require_as_told(made, module)
    assert made.goal.density == 1 or made.compression.density <= made.goal.density + 0.05


def test_averages_count_for_something():
    """They are what is rounded, not thrown away."""
    networks = [fit_beside(QPSNN(bits=8, quantize_ends=True), *others) for others in ((), (WRITERS["averages"](),))]
    plain, averaged = (module.network[5].weight for module in networks)
    assert not torch.equal(plain, averaged)


@pytest.mark.parametrize("writer", ["averages", "stochastic averages"])
def test_averages_of_a_network_that_is_narrowed_under_them_are_refused(writer):
    with pytest.raises(LayerError, match="running averages of the network cannot be narrowed"):
        fit_beside(QPSNN(0.5, bits=3), WRITERS[writer]())
    compressor = QPSNN(0.5)
    with pytest.raises(LayerError, match="copies the network before it is narrowed: list it after QPSNN"):
        Trainer(max_epochs=1, callbacks=[WRITERS[writer](), compressor], **QUIET).fit(
            classifier(), datamodule=RandomEvents()
        )
