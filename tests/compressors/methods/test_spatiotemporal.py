"""Widths from principal components, T that falls while training, and rounding that a neuron's threshold can take up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.decomposition import PCA
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark.networks.classifier import SNNClassifier, coarser
from benchmark.networks.optimization import Optimization
from benchmark.networks.weights import checkpoints
from benchmark.runs.distributed import DeviceGroup, Devices
from compressors.budget import BudgetError, OptionError
from compressors.channels.criteria import channel_means, spike_map_rank
from compressors.channels.principal import READINGS, covariances, significant, spanning_order, unexplained
from compressors.channels.tracing import find_channels
from compressors.methods.spatiotemporal import SpatioTemporal, begin_anew, variance_keys
from compressors.network.layers import LayerError, find_layers
from compressors.network.leaks import make_leaks_trainable
from compressors.network.neurons import charged
from compressors.quantization.grids import fit_grid
from tests.compressors.networks import QUIET, RandomEvents, classifier, fit, weights

SEEDS = st.integers(0, 999)


def low_rank(rank, channels, rows=200, seed=0):
    """Observations ``[rows, channels]`` that lie in a subspace, none of its directions weak, around a mean of 5."""
    generator = torch.Generator().manual_seed(seed)
    tall = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.randn(channels, rank, generator=generator, dtype=torch.float64))
    return tall @ basis.T + 5.0


def covariance(rows):
    return torch.cov(rows.T, correction=0).reshape(rows.shape[1], rows.shape[1])


@settings(max_examples=40, deadline=None)
@given(rank=st.integers(1, 7), extra=st.integers(0, 5), seed=SEEDS)
def test_activity_of_rank_k_has_width_k(rank, extra, seed):
    assert significant(covariance(low_rank(rank, rank + extra, seed=seed)), 1 - 1e-9) == rank


def test_the_authors_count_is_one_less():
    data = covariance(low_rank(7, 12))
    assert significant(data, 1 - 1e-9) == 7
    assert significant(data, 1 - 1e-9, authors_count=True) == 6


@settings(max_examples=25, deadline=None)
@given(channels=st.integers(1, 8), threshold=st.floats(0.05, 0.999), seed=SEEDS)
def test_width_is_that_of_scikit_learn(channels, threshold, seed):
    rows = torch.randn(60, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows *= torch.logspace(0, -2, channels)
    shares = PCA().fit(rows.numpy()).explained_variance_ratio_.cumsum()
    assert significant(covariance(rows), threshold) == int((shares < threshold - 1e-12).sum()) + 1
    torch.testing.assert_close(1 - unexplained(covariance(rows))[1:], torch.from_numpy(shares), atol=1e-9, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, permutation=st.permutations(range(6)), copied=st.integers(0, 5))
def test_copies_and_order_of_channels_do_not_matter_but_their_scale_does(seed, permutation, copied):
    rows = torch.randn(80, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows *= torch.tensor([1, 1, 1, 0.5, 0.02, 0.01], dtype=torch.float64)
    width = significant(covariance(rows), 0.99)
    assert significant(covariance(rows[:, list(permutation)]), 0.99) == width
    twice = torch.cat([rows, rows[:, copied : copied + 1]], 1)
    assert significant(covariance(twice), 1 - 1e-9) == significant(covariance(rows), 1 - 1e-9)
    assert significant(covariance(rows / rows.std(0)), 0.99) > width, "no channel is standardised"


def test_constant_channels_count_nothing():
    rows = torch.cat([low_rank(2, 2), torch.full((200, 3), 7.0, dtype=torch.float64)], 1)
    assert significant(covariance(rows), 1 - 1e-9) == 2
    assert significant(torch.zeros(4, 4, dtype=torch.float64), 0.999) == 0


@settings(max_examples=25, deadline=None)
@given(rank=st.integers(1, 5), seed=SEEDS)
def test_the_first_channels_of_the_order_span_the_rest(rank, seed):
    rows = low_rank(rank, 8, seed=seed)
    order = spanning_order(covariance(rows))
    assert sorted(order) == list(range(8))
    centred = rows - rows.mean(0)
    kept = centred[:, order[:rank]]
    solution = torch.linalg.lstsq(kept, centred).solution
    torch.testing.assert_close(kept @ solution, centred, atol=1e-6, rtol=0)


def test_a_copy_comes_last():
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.tensor(
        [3, 2, 1.0]
    )
    assert spanning_order(covariance(torch.cat([rows[:, :1], rows], 1))) == [0, 2, 3, 1]


def passed(cell, x):
    functional.set_step_mode(cell, "m")
    cell.store_v_seq = True
    functional.reset_net(cell)
    cell(x)
    return cell


def test_readings_agree_with_an_ordinary_network_at_one_step_without_leak():
    x = torch.randn(1, 3, 4, 2, 2)
    for name, reading in READINGS.items():
        torch.testing.assert_close(reading(passed(neuron.IFNode(), x), x), x[0], msg=name)


def test_readings_by_hand():
    x = torch.tensor([2.0, 0.0, 1.0]).view(3, 1, 1)
    cell = passed(neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=1.5), x)
    assert charged(cell, x).flatten().tolist() == [2.0, 0.0, 1.0]  # fires in the first step, and is reset
    values = {name: float(reading(passed(cell, x), x)) for name, reading in READINGS.items()}
    assert values == pytest.approx({"current": 1.0, "charge": 1.0, "integrated": (2 / 4 + 1) / 3})


def test_covariances_are_those_of_all_samples_and_positions_at_once():
    module, x = classifier().eval(), RandomEvents().x
    layers = find_layers(module, lambda: module(x[:1]))
    found = covariances(module, layers, READINGS["current"], lambda: x.split(5))
    with torch.no_grad():
        maps = module.network[1](module.network[0](x.transpose(0, 1))).mean(0)
    torch.testing.assert_close(
        found["network.0"], covariance(maps.movedim(1, -1).flatten(0, 2).double()), atol=1e-6, rtol=0
    )
    assert set(found) == {"network.0", "network.5"}
    assert not any(cell.store_v_seq for cell in module.modules() if isinstance(cell, neuron.BaseNode))


def statistics_of(module, x, size):
    """What the two structured methods see of a network: runs in one process, or in each of a group."""
    layers = find_layers(module, lambda: module(x[:1]))
    found = covariances(module, layers, READINGS["integrated"], lambda: x.split(size))
    return found | {
        f"{k} rank": v for k, v in channel_means(module, layers, spike_map_rank, lambda: x.split(size)).items()
    }


@pytest.mark.slow
def test_processes_that_share_the_calibration_batches_see_the_same():
    module, x = classifier().eval(), RandomEvents().x
    with DeviceGroup(Devices("cpu", 2)) as group:
        for size in (12, 5):  # one batch, of which a process gets none, and three
            together = group.call(statistics_of, module, x, size)
            alone = statistics_of(module, x, size)
            assert together.keys() == alone.keys()
            for name, expected in alone.items():
                torch.testing.assert_close(together[name], expected, rtol=1e-6, atol=1e-9)


def with_copies(module):
    """Channels 3 to 5 of the first convolution do what 0 to 2 do."""
    with torch.no_grad():
        module.network[0].weight[3:] = module.network[0].weight[:3]
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(module.network[1], name)
            tensor[3:] = tensor[:3]
    return module


@pytest.mark.parametrize("reading", sorted(READINGS))
def test_copied_channels_go_and_one_of_each_pair_stays(reading):
    module = with_copies(classifier())
    pruner = SpatioTemporal(variance=1 - 1e-9, reading=reading, include=["network.0", "network.7"])
    fit(pruner, module)
    kept = pruner.compression.layers[0].outputs.tolist()
    assert sorted(channel % 3 for channel in kept) == [0, 1, 2]
    assert module.network[5].in_features == 3 * 9


def test_the_variance_fixes_each_width():
    plain, x = classifier(), RandomEvents().x
    layers = find_layers(plain, lambda: plain(x[:1]))
    found = covariances(plain, layers, READINGS["current"], lambda: x.split(4))
    for share in (0.5, 0.8, 0.95, 1.0):
        module = fit(SpatioTemporal(variance=share))
        expected = [significant(found[name], share) for name in ("network.0", "network.5")]
        assert [module.network[0].out_channels, module.network[5].out_features] == expected


class Shortcut(nn.Module):
    """Two convolutions whose outputs are added before the neuron."""

    def __init__(self):
        super().__init__()
        self.stem = layer.Conv2d(2, 5, 3, padding=1)
        self.first = neuron.IFNode()
        self.inner = layer.Conv2d(5, 5, 3, padding=1)
        self.second = neuron.IFNode()
        self.head = layer.Linear(5 * 36, 3)
        functional.set_step_mode(self, "m")

    def forward(self, x):
        x = self.first(self.stem(x))
        x = self.second(self.inner(x)) + x
        return self.head(x.flatten(2))


def test_layers_that_meet_in_a_sum_are_as_wide_as_the_widest_needs():
    torch.manual_seed(0)
    net, x = Shortcut(), torch.rand(3, 6, 2, 6, 6)
    channels = find_channels(net, lambda: net(x))
    layers = find_layers(net, lambda: net(x))
    (bundle,) = channels.bundles()
    assert set(bundle.layers) == {"stem", "inner"}
    found = covariances(net, layers, READINGS["current"], lambda: [x])
    found = {name: found[name] for name in bundle.layers}
    keys = variance_keys(channels, bundle, found)
    for share in (0.3, 0.6, 0.9, 0.99):
        widest = max(significant(matrix, share) for matrix in found.values())
        assert sum(key > 1 - share + 1e-12 for key in keys.values()) == widest


@pytest.mark.parametrize("widths", ["pca", "uniform"])
def test_a_density_is_met_by_either_kind_of_widths(widths):
    pruner = SpatioTemporal(0.4, widths=widths)
    module = fit(pruner)
    assert 0.25 < pruner.compression.density <= 0.4
    shares = module.network[0].out_channels / 6, module.network[5].out_features / 8
    if widths == "uniform":
        assert abs(shares[0] - shares[1]) < 0.2


def test_a_thin_network_begins_anew_from_its_seed():
    modules = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed + 7)  # the surrounding draw does not matter
        module = classifier()
        fit(SpatioTemporal(0.5, weights="new", seed=seed), module, epochs=1)
        modules.append(module)
    same, other = modules[1:]
    assert all(torch.equal(v, weights(modules[0])[k]) for k, v in weights(same).items())
    assert not torch.equal(other.network[5].weight, same.network[5].weight)
    fresh = classifier()
    state = torch.get_rng_state()
    begin_anew(fresh, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(fresh.network[5].weight.abs().max()) <= 54**-0.5, "as nn.Linear draws them"


def test_beginning_anew_without_training_is_refused():
    with pytest.raises(BudgetError, match="needs epochs of fine-tuning"):
        fit(SpatioTemporal(0.5, weights="new"))


def test_frames_are_added_up_to_the_steps_asked_for():
    x = torch.arange(10.0).view(1, 5, 2)
    assert coarser(x, 5) is x
    assert coarser(x, 2).tolist() == [[[0 + 2 + 4, 1 + 3 + 5], [6 + 8, 7 + 9]]]
    assert torch.equal(coarser(x, 1)[:, 0], x.sum(1))


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(1, 12), steps=st.integers(1, 12))
def test_no_event_is_lost_and_bins_are_even(frames, steps):
    binned = coarser(torch.ones(1, frames, 1), steps).flatten()
    assert binned.sum() == frames
    assert len(binned) == min(frames, steps)
    assert binned.max() - binned.min() <= 1


def test_time_steps_fall_and_every_stage_is_taken_down():
    pruner, module = SpatioTemporal(0.6, timesteps=(4, 2, 1)), classifier()
    fit(pruner, module, epochs=6)
    stages = pruner.compression.stages
    assert [(stage["timesteps"], stage["epochs"]) for stage in stages] == [(4, 2), (2, 4), (1, 6)]
    assert all("train/accuracy" in stage for stage in stages)
    assert pruner.compression.to_dict()["stages"] == list(stages)
    assert module.timesteps == 1
    seen = []
    module.network[0].register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    module(RandomEvents().x)
    assert seen == [1]


def test_without_training_the_last_number_of_steps_is_taken_at_once():
    module = fit(SpatioTemporal(0.6, timesteps=(4, 2)))
    assert module.timesteps == 2


def test_images_are_shown_as_often():
    net = nn.Sequential(layer.Linear(4, 6), neuron.IFNode(), layer.Linear(6, 3))
    functional.set_step_mode(net, "m")
    module = SNNClassifier(net, classes=3, timesteps=8)
    x = torch.rand(2, 4)
    module.timesteps = 1
    expected = net(x[None])[0]
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("epoch", [0, 2, 3])
def test_resuming_in_any_stage_gives_the_same_bits(epoch, tmp_path):
    def make():
        return SpatioTemporal(0.4, bits=4, timesteps=(3, 1))

    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, uninterrupted = classifier(), make()
    options = {**QUIET, "enable_checkpointing": True}
    Trainer(max_epochs=5, callbacks=[uninterrupted, kept], **options).fit(whole, datamodule=RandomEvents())
    resumed, pruner = classifier(seed=5), make()
    Trainer(max_epochs=5, callbacks=[pruner], **QUIET).fit(
        resumed, datamodule=RandomEvents(), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", weights_only=True
    )
    expected = weights(whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(resumed).items())
    assert pruner.compression.to_dict()["stages"] == uninterrupted.compression.to_dict()["stages"]
    assert (resumed.timesteps, len(pruner.compression.stages)) == (1, 2)


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(2, 8), reset=st.sampled_from([0.0, None]), seed=SEEDS)
def test_whole_numbers_and_a_rescaled_threshold_fire_the_same_spikes(bits, reset, seed):
    """A grid for the whole layer is a common factor, and a neuron takes a common factor as its threshold."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    grid = fit_grid(weight, bits, per="tensor", search=False)
    whole = grid.codes(weight).double() - grid.zero
    scale = float(grid.scale)
    spikes = (torch.rand(6, 3, 8, generator=generator) < 0.4).double()
    rounded = neuron.LIFNode(tau=2.0, v_threshold=0.7, v_reset=reset, step_mode="m")
    integer = neuron.LIFNode(tau=2.0, v_threshold=0.7 / scale, v_reset=reset, step_mode="m")
    currents = spikes @ grid.values(grid.codes(weight)).T
    near = (rounded_potential(currents, reset) - 0.7).abs().min() < 1e-9  # a tie that rounding could turn
    if not near:
        assert torch.equal(rounded(currents), integer(spikes @ whole.T))


def rounded_potential(currents, reset):
    cell = neuron.LIFNode(tau=2.0, v_threshold=0.7, v_reset=reset, step_mode="m", store_v_seq=True)
    cell(currents)
    return charged(cell, currents)


@pytest.mark.parametrize("epochs", [0, 2])
def test_every_layer_is_rounded_to_a_grid_of_its_own_after_training(epochs):
    pruner = SpatioTemporal(0.5, bits=3)
    module = fit(pruner, epochs=epochs)
    for entry in pruner.compression.layers:
        weight = module.get_submodule(entry.name).weight
        assert torch.equal(entry.weight(), weight)
        assert len(weight.unique()) <= 8
        assert entry.grid.scale.shape == (1, 1)
    assert set(pruner.compression.codings()) == {"network.0", "network.5", "network.7"}


def test_leaks_are_trained_and_the_result_loads(tmp_path):
    module, plain, x = classifier().eval(), classifier().eval(), RandomEvents().x
    assert make_leaks_trainable(module) == ["network.2", "network.6"]
    torch.testing.assert_close(module(x), plain(x))

    trained, pruner = classifier(), SpatioTemporal(0.6, learn_leaks=True)
    trained.optimization = Optimization(learning_rate=0.05)
    fit(pruner, trained, epochs=3)
    leaks = [float(trained.network[place].w) for place in (2, 6)]
    assert leaks != pytest.approx([float(module.network[place].w) for place in (2, 6)], abs=1e-3)

    path = tmp_path / "narrow.safetensors"
    checkpoints.save(path, trained.network, {"compressed": pruner.compression.to_dict()})
    checkpoints.restore(plain.network, checkpoints.load(path), path)
    assert torch.equal(plain(x), trained.eval()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": 1.5}, "variance is 1.5"),
        ({"density": 0.5, "variance": 0.9}, "give one of them"),
        ({"variance": 0.9, "widths": "uniform"}, "leave out variance"),
        ({"reading": "charges"}, "reading is 'charges': did you mean 'charge'"),
        ({"weights": "old"}, "weights is 'old'"),
        ({"timesteps": (1, 3)}, "timesteps is .*falling whole numbers"),
        ({"timesteps": (2, 0)}, "timesteps is .*falling whole numbers"),
        ({"timesteps": (4, 0.5)}, "timesteps is .*a list of whole numbers"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        SpatioTemporal(**options)


def test_more_stages_than_epochs_are_refused():
    with pytest.raises(BudgetError, match="3 stages of timesteps need as many epochs, and there are 2"):
        fit(SpatioTemporal(0.5, timesteps=(4, 2, 1)), epochs=2)


def test_a_module_without_time_steps_is_refused():
    module = classifier()
    del module.timesteps
    with pytest.raises(LayerError, match="no attribute `timesteps` to lower"):
        fit(SpatioTemporal(0.5, timesteps=(2, 1)), module)
