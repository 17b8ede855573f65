"""OBC and SBC as wholes: budgets shared by loss, patterns, the paper's procedure, compressed inputs."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron

from benchmark.networks.classifier import SNNClassifier
from compressors import OBC, SBC
from compressors.budget import BudgetError, OptionError
from compressors.calibration.activity import activities
from compressors.calibration.aftercare import AFTERCARE
from compressors.calibration.augmentation import with_copies
from compressors.calibration.held_out import HELD_OUT, held_out
from compressors.calibration.hessians import CalibrationError, drift, vectors
from compressors.network.layers import find_layers
from compressors.second_order import curvature, obs
from compressors.second_order.curvature import CORRECTION
from compressors.second_order.problem import Pattern
from compressors.second_order.solution_cache import SolutionCache
from compressors.second_order.solvers import Exact
from tests.compressors.networks import RandomEvents, classifier, fit, weights
from tests.compressors.second_order.oracles import layer_problem

METHODS = [OBC, SBC]


# Budgets -------------------------------------------------------------------------------------------------------------


def summed_loss(compressor, module) -> float:
    """The loss that the elimination foresees, behind BatchNorm, from the masks: what the loss allocation minimises."""
    fit(compressor, module)
    return sum(entry.loss for entry in compressor.compression.layers)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_allocation_loses_less_than_any_other_at_the_same_number_of_weights(method):
    options = {"density": 0.3, "batchnorm_factor": False}
    found = {a: method(allocation=a, **options) for a in ("loss", "lamp", "uniform", "erk", "global")}
    losses = {name: summed_loss(compressor, classifier()) for name, compressor in found.items()}
    kept = {name: sum(e.kept for e in c.compression.layers) for name, c in found.items()}
    assert kept["loss"] == kept["lamp"] == kept["global"]
    assert min(losses, key=losses.__getitem__) == "loss"


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_synops_budget_is_kept_at_the_dense_activity_and_used_up(share):
    dense, module = classifier(), classifier()
    data = RandomEvents()
    layers = find_layers(dense, lambda: dense(data.x[:1]))
    seen = activities(dense, layers, lambda: iter(data.x.split(4)))
    cost = {layer.name: seen[layer.name].synops(len(layer.rows)) for layer in layers}
    compressor = SBC(synops=share)
    fit(compressor, module)
    spent = sum(float((cost[e.name] * e.mask.flatten(1)).sum()) for e in compressor.compression.layers)
    whole = sum(float(c.sum()) for c in cost.values())
    assert 0.98 * share * whole < spent <= share * whole * (1 + 1e-9)


def test_beside_a_synops_budget_weights_are_as_wide_as_was_asked():
    module = classifier()
    compressor = OBC(synops=0.5, bits=4)
    fit(compressor, module)
    assert [entry.grid.bits for entry in compressor.compression.layers] == [4, 4, 4]
    assert all(len(row.unique()) <= 2**4 + 1 for row in module.network[5].weight)


def test_a_synops_budget_that_one_weight_a_layer_exceeds_is_refused():
    with pytest.raises(BudgetError, match="synops 1e-09 cannot be met"):
        fit(SBC(synops=1e-9))


def test_bits_by_loss_keep_to_the_mean_and_lose_less_than_the_same_width_everywhere():
    mixed, same = SBC(bits=3, allocation="loss"), SBC(bits=3)
    losses = [summed_loss(compressor, classifier()) for compressor in (mixed, same)]
    entries = mixed.compression.layers
    assert sum(e.grid.bits * e.weights for e in entries) <= 3 * sum(e.weights for e in entries)
    assert len({e.grid.bits for e in entries}) > 1
    assert losses[0] < losses[1]


# Patterns ------------------------------------------------------------------------------------------------------------


def by_tap(mask):
    """A layer's mask with neighbouring input channels side by side, tap after tap: ``[out, taps * in]``."""
    return mask.flatten(2).mT.flatten(1) if mask.ndim > 2 else mask


@pytest.mark.parametrize("solver", ["exact", "fast"])
@pytest.mark.parametrize(("pattern", "kept", "of"), [("2:4", 2, 4), ("4:8", 4, 8)])
def test_n_of_m_holds_in_every_group_of_every_layer(pattern, kept, of, solver):
    compressor = OBC(pattern=pattern, solver=solver)
    fit(compressor)
    for entry in compressor.compression.layers:
        for group in by_tap(entry.mask).split(of, dim=1):
            assert (group.sum(1) == min(kept, group.shape[1])).all()


def test_blocks_of_four_leave_as_wholes_at_the_density_asked_for():
    compressor = SBC(0.5, pattern="block4")
    fit(compressor)
    for entry in compressor.compression.layers:
        for group in by_tap(entry.mask).split(4, dim=1):
            assert (group.all(1) | ~group.any(1)).all()
    assert compressor.compression.density == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("pattern", ["2:4", "block4"])
def test_a_convolution_is_pruned_as_the_linear_layer_of_its_taps_and_channels(pattern):
    """What OBC's published code does: columns in the order (kernel row, kernel column, input channel)."""
    torch.manual_seed(3)
    data = RandomEvents()
    net = torch.nn.Sequential(layer.Conv2d(2, 4, 2, bias=False), neuron.LIFNode(tau=2.0), layer.Flatten())
    functional.set_step_mode(net, "m")
    module = SNNClassifier(net, classes=100, timesteps=4)
    weight = net[0].weight.detach().double()
    compressor = OBC(0.5, pattern=pattern, allocation="uniform")
    fit(compressor, module)
    z = torch.nn.functional.unfold(data.x.flatten(0, 1).double(), 2)  # [B T, in * taps, positions]
    z = z.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2).mT.flatten(0, 1)
    h = obs.damped((2 * z.T @ z / len(data.x))[None], 0.01)
    plain = weight.flatten(2).mT.flatten(1)
    if pattern == "2:4":
        expected = obs.mask_of_pattern(plain, h, 2, 4)
    else:
        trace = obs.eliminate_blocks(plain, h, 4)
        steps = obs.steps_per_row(trace.losses, trace.losses.numel() // 2)
        expected = obs.mask_after(trace.order, steps).repeat_interleave(4, dim=1)
    (entry,) = compressor.compression.layers
    assert torch.equal(by_tap(entry.mask), expected)


@pytest.mark.parametrize("columns", [9, 10, 11, 12])
def test_blocks_keep_to_the_budget_where_columns_are_no_multiple_of_four(columns):
    problem = layer_problem(rows=32, columns=columns)
    for keep in (12, 100, 144, 200, 32 * columns - 20):
        _, mask = Exact(SolutionCache(None)).prune(problem, keep, Pattern("block4"))
        assert abs(int(mask.sum()) - keep) <= 2


@pytest.mark.parametrize(("pattern", "expected"), [("unstructured", 2), ("2:4", 3), ("block4", 3)])
def test_a_new_version_is_that_of_the_options_it_concerns(pattern, expected):
    assert SBC.version_with({"pattern": pattern}) == expected
    assert SBC.version_with({}) == SBC.version


def test_a_change_of_an_aftercare_is_a_new_version_of_what_had_it(monkeypatch):
    before = {care: SBC.version_with({}, (care,)) for care in AFTERCARE}
    monkeypatch.setitem(AFTERCARE, "means", AFTERCARE["means"] + 1)
    assert SBC.version_with({}) == SBC.version
    for care in AFTERCARE:
        assert SBC.version_with({}, (care, "batchnorm")) == before[care] + (care == "means")


@pytest.mark.parametrize("options", [{"pattern": "2:4"}, {"density": 0.3}, {"density": 0.5, "pattern": "block4"}])
def test_jointly_pruned_and_quantised_weights_are_both(options):
    compressor = SBC(bits=3, **options)
    module = fit(compressor)
    for entry in compressor.compression.layers:
        weight = module.get_submodule(entry.name).weight.detach()
        assert not weight[~entry.mask].any()
        assert torch.equal(entry.grid.values(entry.grid.codes(weight.flatten(1))), weight.flatten(1))
        assert not entry.mask.all()


# Solvers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["auto", "refined", "fast"])
def test_the_solver_stands_in_the_record(solver):
    compressor = OBC(0.3, solver=solver)
    fit(compressor)
    expected = {"auto": "exact"}.get(solver, solver)
    assert {layer["solver"] for layer in compressor.compression.to_dict()["layers"]} == {expected}


def test_one_elimination_serves_every_density_and_is_found_again(tmp_path):
    first, again = OBC(0.5, cache=tmp_path), OBC(0.2, cache=tmp_path)
    plain = OBC(0.2)
    fit(first)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    modules = [fit(again), fit(plain)]
    assert sorted(tmp_path.iterdir()) == files
    assert again.reused_seconds() > 0
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in modules), strict=True))


@pytest.mark.parametrize("budget", [{"bits": 3}, {"density": 0.5}, {"density": 0.5, "bits": 3}])
@pytest.mark.parametrize("solver", ["exact", "refined", "fast"])
def test_finished_layers_are_found_again_whatever_the_solver(tmp_path, solver, budget):
    class Interrupted(SBC):
        def compress_layer(self, network, layer, *args):
            if layer.name == network.layers[2].name:
                raise ConnectionError
            return super().compress_layer(network, layer, *args)

    with pytest.raises(ConnectionError):
        fit(Interrupted(**budget, solver=solver, cache=tmp_path))
    finished = set(tmp_path.iterdir())
    again, plain = SBC(**budget, solver=solver, cache=tmp_path), SBC(**budget, solver=solver)
    modules = [fit(again), fit(plain)]
    assert len(finished) * 3 == len(set(tmp_path.iterdir())) * 2
    assert again.reused_seconds() > plain.reused_seconds() == 0
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in modules), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_single_precision_finds_the_weights_of_double_precision(method):
    single, double = (fit(method(0.3, precision=p)) for p in ("float32", "float64"))
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("allocation", ["lamp", "loss"])
def test_little_memory_gives_the_same_network(method, allocation):
    """Layers measured one at a time see what the dense network's layers emit, although some are compressed already."""
    one, several = (fit(method(0.3, allocation=allocation, max_memory=limit)) for limit in (2**33, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), several.parameters(), strict=True))


# Compressed inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filtered", [True, False])
def test_drift_is_the_explicit_sums_over_both_networks_inputs(filtered):
    dense, changed, data = classifier(), classifier(), RandomEvents()
    with torch.no_grad():
        changed.network[0].weight[::2] = 0
    layers = find_layers(changed, lambda: changed(data.x[:1]))
    layer = layers[1]
    response = SBC().response(layer) if filtered else None
    saved = {f"{entry.name}.weight": dense.get_submodule(entry.name).weight for entry in layers}
    found = drift(changed, layer, response, lambda: iter(data.x.split(5)), saved)
    z, z_now = inputs_of(dense, layer, response, data.x), inputs_of(changed, layer, response, data.x)
    torch.testing.assert_close(found.seen, 2 * z_now.mT @ z_now / len(data.x))
    torch.testing.assert_close(found.change, 2 * (z - z_now).mT @ z_now / len(data.x))
    assert found.change.abs().max() > 0


def inputs_of(module, layer, response, x):
    caught = []
    handle = module.get_submodule(layer.name).register_forward_pre_hook(lambda m, i: caught.append(i[0]))
    with torch.no_grad():
        functional.reset_net(module)
        module.eval()(x)
    handle.remove()
    return torch.cat([*vectors(layer, caught[0].double(), response)], dim=1)


def test_the_first_layer_sees_no_drift_and_the_later_ones_aim_at_the_least_squares_target():
    data, dense, module = RandomEvents(), classifier(), classifier()
    plain, propagated = SBC(0.3), SBC(0.3, propagate=True)
    first = fit(plain).network[0].weight
    fit(propagated, module)
    torch.testing.assert_close(module.network[0].weight, first)

    layers = find_layers(module, lambda: module(data.x[:1]))
    layer, mask = layers[1], propagated.compression.layers[1].mask.flatten(1)
    response = propagated.response(layer)
    z, z_now = (inputs_of(m, layer, response, data.x)[0] for m in (dense, module))
    h = obs.damped((2 * z_now.T @ z_now / len(data.x))[None], 0.01)
    w = dense.network[5].weight.detach().double()
    damping = h[0] - 2 * z_now.T @ z_now / len(data.x)
    best = torch.linalg.solve(h[0], 2 * z_now.T @ (z @ w.T) / len(data.x) + damping @ w.T).T
    target = w + CORRECTION * (best - w)
    expected = obs.least_squares(target, h, mask)
    torch.testing.assert_close(module.network[5].weight.double(), expected, rtol=1e-4, atol=1e-5)


def test_no_strength_is_no_propagation_and_true_is_qeps():
    plain, none, half, true = (fit(SBC(0.3, propagate=value)) for value in (False, 0.0, CORRECTION, True))
    for one, other in ((plain, none), (half, true)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_chosen_strength_is_the_best_of_a_fine_ladder_on_the_held_out_samples():
    """Brute force over strengths, with the errors of real outputs of both networks."""
    data, dense, module = RandomEvents(), classifier(), classifier()
    compressor = SBC(0.3, propagate="auto")
    fit(compressor, module)
    found = [layer.extra["propagated"] for layer in compressor.compression.layers]
    assert found[0] == 0, "nothing is compressed before the first layer"
    assert all(0 <= strength <= 1 for strength in found)

    layers = find_layers(module, lambda: module(data.x[:1]))
    layer, held = layers[1], torch.arange(len(data.x)) % HELD_OUT == HELD_OUT - 1
    response = compressor.response(layer)
    w = dense.network[5].weight.detach().double()
    z, z_now = (inputs_of(m, layer, response, data.x[~held])[0] for m in (dense, module))
    h = obs.damped((2 * z_now.T @ z_now / (~held).sum())[None], 0.01)[0]
    step = w @ torch.linalg.solve(h, 2 * z_now.T @ (z - z_now) / (~held).sum()).T
    z, z_now = (inputs_of(m, layer, response, data.x[held])[0] for m in (dense, module))
    ladder = torch.linspace(0, 1, 2001)
    errors = [float((z @ w.T - z_now @ (w + a * step).T).square().sum()) for a in ladder.tolist()]
    assert found[1] == pytest.approx(float(ladder[torch.tensor(errors).argmin()]), abs=1e-3)


def test_a_strength_needs_samples_to_hold_out():
    with pytest.raises(CalibrationError, match="every 5th calibration sample is held out: ask for 5 at least"):
        fit(SBC(0.3, propagate="auto"), data=RandomEvents(4))


@pytest.mark.parametrize("value", [124, None, ["2:4"]])
def test_a_pattern_that_is_no_text_is_refused(value):
    with pytest.raises(ValueError, match="^(unknown )?pattern .*: give "):
        OBC(pattern=value)


def test_a_single_pattern_of_names_may_stand_by_itself():
    assert OBC(exclude="network.0") == OBC(exclude=["network.0"])
    for wrong in (5, None, [1], {"a": "b"}):
        with pytest.raises(OptionError, match="exclude is .*: give a text, or a list of texts"):
            OBC(exclude=wrong)


def test_a_split_by_loss_without_a_budget_leaves_the_network_as_it_is():
    compressor = OBC(allocation="loss")
    fit(compressor)
    assert compressor.compression.density == 1


# What cannot be ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "4:2"}, "unknown pattern '4:2': give 'unstructured', 'block4' or N:M"),
        ({"pattern": "2:4", "density": 0.3}, "2:4 keeps 0.5 of the weights: leave out density 0.3"),
        ({"variant": "papers"}, "variant is 'papers'"),
        ({"solver": "quick"}, "solver is 'quick'"),
        ({"variant": "paper", "solver": "fast"}, "take solver 'exact', not 'fast'"),
        ({"allocation": "relative_loss", "solver": "fast"}, "'relative_loss' needs the losses of exact"),
        ({"allocation": "lamp", "synops": 0.5}, "'lamp' knows no SynOps: take loss or relative_loss"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"damping": -1.0}, "damping is -1.0"),
        ({"pattern": "2:4", "schedule": 0.8}, "2:4 fixes the density"),
        ({"bits": 9}, "bits is 9: give a whole number from 2 to 8"),
        ({"density": 0.5, "synops": 0.5}, "give one of them"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OBC(**options)


@pytest.mark.parametrize("options", [{"solver": "fast"}, {"variant": "paper"}])
def test_a_pattern_that_a_solver_lacks_is_refused_with_the_remedy(options):
    with pytest.raises(OptionError, match="take solver 'exact'|take variant 'exact'"):
        SBC(0.5, pattern="block4", **options)


class WithCopies(RandomEvents):
    """Its calibration set holds, behind each batch, what ``copies`` makes of it."""

    def calibration_dataloader(self):
        batches = (x for x, _ in self.train_dataloader())
        return [(x, None) for x in with_copies(batches, ("flip",), 2)]


@pytest.mark.parametrize("hessian", ["layer", "fisher"])
def test_copies_are_seen_as_samples_of_their_own(hessian):
    asked = fit(SBC(0.3, hessian=hessian, copies=2, augment="flip"))
    had = fit(SBC(0.3, hessian=hessian), data=WithCopies())
    without = fit(SBC(0.3, hessian=hessian))
    for name, weight in weights(asked).items():
        assert torch.equal(weight, weights(had)[name]), name
    assert any(not torch.equal(weight, weights(without)[name]) for name, weight in weights(asked).items())


def test_copies_of_what_is_held_out_are_held_out_too(monkeypatch):
    seen = []

    def watched(network, layer, response, batches, *args, **options):
        seen.append(torch.cat([*batches()]))
        return drift(network, layer, response, batches, *args, **options)

    monkeypatch.setattr(curvature, "drift", watched)
    fit(SBC(0.3, propagate="auto", copies=2, augment="flip"))
    others, held = seen[:2]
    assert len(held) == 3 * sum(map(len, held_out(x for x, _ in RandomEvents().train_dataloader())))
    either_way = {sample.numpy().tobytes() for part in (held, held.flip(-1)) for sample in part}
    assert not any(sample.numpy().tobytes() in either_way for sample in others)


def test_copies_that_nothing_changes_are_refused():
    with pytest.raises(OptionError, match="copies are of samples that `augment` changes"):
        SBC(0.3, copies=2)
