"""Dynamic sparse training: how many weights there are at every step, which ones move, and what they begin with."""

import math

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from benchmark.networks.optimization import Optimization
from compressors.budget import BudgetError, OptionError
from compressors.methods.dst import DST
from compressors.weights.allocation import er, erk, uniform
from tests.compressors.networks import QUIET, RandomEvents, classifier, weights

LAYERS = ("network.0", "network.5", "network.7")
SHAPES = {"network.0": (6, 2, 3, 3), "network.5": (8, 54), "network.7": (3, 8)}
WEIGHTS = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
EPOCHS, STEPS = 4, 12  # three batches an epoch
OPTIMIZERS = {
    "sgd": Optimization("sgd", learning_rate=0.1, weight_decay=1e-2),
    "adam": Optimization("adam", learning_rate=1e-2),
}
SET = {"growth": "random", "allocation": "er", "annealed": False, "until": 1.0}
NDSNN = {"initial": 0.25}


class Watch(Callback):
    """Each step's weights, gradients and masks before the compressor looks, after it, and after the step."""

    def __init__(self, compressor):
        self.compressor, self.steps = compressor, []

    def on_after_backward(self, trainer, pl_module):
        parameters = {name: pl_module.get_parameter(f"{name}.weight") for name in LAYERS}
        self.steps.append(
            {
                "weights": {name: p.detach().clone() for name, p in parameters.items()},
                "gradients": {name: p.grad.clone() for name, p in parameters.items()},
                "masks": dict(self.compressor.compression.masks()),
            }
        )

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        parameters = {name: pl_module.get_parameter(f"{name}.weight") for name in LAYERS}
        self.steps[-1] |= {
            "new weights": {name: p.detach().clone() for name, p in parameters.items()},
            "new gradients": {name: p.grad.clone() for name, p in parameters.items()},
            "new masks": dict(self.compressor.compression.masks()),
            "memory": {
                name: [v.clone() for v in optimizer.state[p].values() if torch.is_tensor(v) and v.shape == p.shape]
                for name, p in parameters.items()
            },
        }


def watched(optimizer="adam", epochs=EPOCHS, **options):
    compressor = DST(**{"density": 0.2, "interval": 2} | options)
    watch, module = Watch(compressor), classifier()
    module.optimization = OPTIMIZERS[optimizer]
    Trainer(max_epochs=epochs, callbacks=[compressor, watch], **QUIET).fit(module, datamodule=RandomEvents())
    assert len(watch.steps) == 3 * epochs
    return compressor, watch.steps, module


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("options", [{}, SET, {"allocation": "uniform"}], ids=["rigl", "set", "uniform"])
def test_the_density_is_constant_to_the_weight(options):
    compressor, steps, module = watched(**options)
    expected = {"erk": erk, "er": er, "uniform": uniform}[compressor.allocation](WEIGHTS, 0.2)
    for step in steps:
        assert counts(step["masks"]) == counts(step["new masks"]) == expected
        for name in LAYERS:
            assert not step["weights"][name][~step["masks"][name]].any()
    assert {e.name: e.kept for e in compressor.compression.layers} == expected
    assert all(int(module.get_parameter(f"{n}.weight").count_nonzero()) <= expected[n] for n in LAYERS)


def test_the_density_falls_along_a_cubic_to_the_weight():
    _, steps, _ = watched(initial=0.8, until=0.75, interval=2)
    first, final, last = erk(WEIGHTS, 0.8), erk(WEIGHTS, 0.2), 8  # updates after 2, 4, 6 and 8 of 12 steps
    for number, step in enumerate(steps):
        update = min(number // 2 * 2, last)
        due = {name: round(final[name] + (first[name] - final[name]) * (1 - update / last) ** 3) for name in LAYERS}
        assert counts(step["new masks"]) == due
    assert counts(steps[0]["masks"]) == first
    assert counts(steps[-1]["new masks"]) == final


@pytest.mark.parametrize("growth", ["gradient", "random"])
@pytest.mark.parametrize(
    ("annealed", "share"), [(True, lambda step: 0.15 * (1 + math.cos(math.pi * step / 8))), (False, lambda step: 0.3)]
)
def test_an_update_is_the_papers(growth, annealed, share):
    """The smallest go, in number as scheduled; others grow by gradient, or anywhere."""
    _, steps, _ = watched(growth=growth, annealed=annealed)
    grown_at = []
    for number in (2, 4, 6, 8):
        step = steps[number]
        for name in LAYERS:
            before, after, weight = step["masks"][name], step["new masks"][name], step["weights"][name].abs()
            keep = int(before.sum()) - round(share(number) * int(before.sum()))
            threshold = weight[before].sort(descending=True).values[keep - 1]
            staying = before & (weight >= threshold)
            assert int(staying.sum()) == keep
            assert (after | ~staying).all()
            grown = after & ~staying
            if growth == "gradient" and grown.any():
                gradient = step["gradients"][name].abs()
                assert gradient[grown].min() >= gradient[~after].max()
            grown_at.append((grown & ~before).any())
    assert any(grown_at)
    for number in (1, 3, 5, 7, 9, 10, 11):
        assert counts(steps[number]["masks"]) == counts(steps[number]["new masks"])
        assert all(torch.equal(steps[number]["masks"][n], steps[number]["new masks"][n]) for n in LAYERS)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, SET, NDSNN], ids=["rigl", "set", "ndsnn"])
def test_what_grows_begins_at_zero_and_so_does_its_memory(optimizer, options):
    _, steps, _ = watched(optimizer, **options)
    grown_ever = 0
    for step in steps:
        for name in LAYERS:
            grown = step["new masks"][name] & ~step["masks"][name]
            grown_ever += int(grown.sum())
            gone = ~step["new masks"][name]
            assert not step["new weights"][name][grown | gone].any()
            assert not step["new gradients"][name][gone].any()
            assert not any(moment[grown | gone].any() for moment in step["memory"][name])
    assert grown_ever


def test_the_first_mask_is_drawn_by_the_seed_and_no_weight_is_moved():
    masks = [watched(moved=0.0, seed=seed)[1] for seed in (0, 0, 1)]
    for steps in masks:
        assert all(torch.equal(steps[0]["masks"][n], steps[-1]["new masks"][n]) for n in LAYERS)
    same, other = (
        all(torch.equal(masks[0][0]["masks"][n], steps[0]["masks"][n]) for n in LAYERS) for steps in masks[1:]
    )
    assert same
    assert not other


@pytest.mark.parametrize("options", [{}, SET, NDSNN], ids=["rigl", "set", "ndsnn"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_fit_goes_on_where_it_was_cut_off(tmp_path, options, cut):
    settings, options = QUIET | {"enable_checkpointing": True}, {"interval": 2} | options
    whole, uninterrupted = classifier(), DST(0.2, **options)
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    Trainer(max_epochs=EPOCHS, callbacks=[uninterrupted, kept], **settings).fit(whole, datamodule=RandomEvents())
    resumed, compressor = classifier(seed=3), DST(0.2, **options)
    Trainer(max_epochs=EPOCHS, callbacks=[compressor], **QUIET).fit(
        resumed, datamodule=RandomEvents(), ckpt_path=tmp_path / f"epoch={cut}.ckpt", weights_only=True
    )
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    done = [c.compression.masks() for c in (uninterrupted, compressor)]
    assert all(torch.equal(done[0][name], done[1][name]) for name in LAYERS)


def test_layer_densities_are_the_published_ones():
    """Erdos-Renyi: (in + out) / (in * out); with the kernel, the sum of all dimensions over their product."""
    shapes = {"conv": (32, 16, 3, 3), "wide": (64, 32, 3, 3), "fc": (10, 640)}
    layers = {name: torch.zeros(shape) for name, shape in shapes.items()}
    total = sum(w.numel() for w in layers.values())
    for split, rule in (
        (er, lambda s: (s[0] + s[1]) / (s[0] * s[1])),
        (erk, lambda s: sum(s) / math.prod(s)),
    ):
        kept = split(layers, 0.05)
        ratios = [kept[n] / w.numel() / rule(shapes[n]) for n, w in layers.items()]
        assert max(ratios) / min(ratios) == pytest.approx(1, abs=0.02)
        assert sum(kept.values()) == pytest.approx(0.05 * total, abs=2)


def test_a_fit_shorter_than_an_interval_is_sparse_all_the_same():
    compressor, steps, _ = watched(epochs=1, initial=0.8, interval=100)
    assert compressor.last == 0
    assert counts(steps[0]["masks"]) == erk(WEIGHTS, 0.2)


def test_what_cannot_be_is_refused():
    with pytest.raises(OptionError, match=r"initial is 0.1, below the density of 0.2"):
        DST(0.2, initial=0.1)
    with pytest.raises(OptionError, match=r"growth is 'gradients': did you mean 'gradient'"):
        DST(0.2, growth="gradients")
    with pytest.raises(OptionError, match=r"allocation is 'lamp'"):
        DST(0.2, allocation="lamp")
    with pytest.raises(BudgetError, match="it has no end"):
        Trainer(max_epochs=-1, max_time={"seconds": 1}, callbacks=[DST(0.2)], **QUIET).fit(
            classifier(), datamodule=RandomEvents()
        )
