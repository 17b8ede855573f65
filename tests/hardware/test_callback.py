"""HardwareCost in Lightning's test loop, effective weights, and nothing left behind."""

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from spikingjelly.activation_based import layer
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from hardware import CostReport, HardwareCost, WeightCoding, profile
from hardware.storage import StoredWeights, note, noted
from tests.hardware import brute_force
from tests.hardware.networks import Alone, Spiking, loader, sparsify, spikes


class Module(LightningModule):
    def __init__(self, net, fail_at=None):
        super().__init__()
        self.net = net
        self.fail_at = fail_at

    def test_step(self, batch, index):
        if index == self.fail_at:
            raise RuntimeError("a fault in the middle")
        return {"logits": self.net(batch[0])}


def trainer(*callbacks, **options):
    return Trainer(
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"accelerator": "cpu", "devices": 1} | options,
    )


def hooks_of(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.fixture
def module():
    return Module(sparsify(Spiking()))


@pytest.fixture
def x():
    return spikes(8, 3, 2, 8, 8)


def test_test_loop_counts_as_profile_does(module, x):
    cost = HardwareCost({"net.body.0": WeightCoding(bits=4, scales=6)})
    runner = trainer(cost)
    runner.test(module, loader(x, 3), verbose=False)
    plain = profile(module.net, loader(x))
    assert [layer.ac for layer in cost.report.layers] == [layer.ac for layer in plain.layers]
    assert cost.report.sample_std == plain.sample_std
    assert runner.callback_metrics["cost/synops"].item() == pytest.approx(plain.synops_per_sample)
    assert cost.report.layers[0].bits == 4
    assert cost.report.layers[0].side_bits == 6 * 32
    assert hooks_of(module) == 0


def test_a_second_test_starts_from_zero(module, x):
    cost = HardwareCost()
    runner = trainer(cost)
    runner.test(module, loader(x), verbose=False)
    first = cost.report
    runner.test(module, loader(x), verbose=False)
    assert cost.report == first


def test_hooks_and_modes_are_gone_after_an_exception(module, x):
    module.fail_at = 1
    with pytest.raises(RuntimeError, match="a fault in the middle"):
        trainer(HardwareCost()).test(module, loader(x, 4), verbose=False)
    assert hooks_of(module) == 0
    assert torch.overrides._get_current_function_mode_stack() == []


def test_profile_restores_the_network_after_an_exception(module):
    module.net.train()
    with pytest.raises(RuntimeError):
        profile(module.net, loader(spikes(2, 3, 5, 8, 8)))  # five channels where two are expected
    assert hooks_of(module) == 0
    assert module.net.training
    assert torch.overrides._get_current_function_mode_stack() == []


def test_unknown_layers_and_empty_runs_are_named(module, x):
    with pytest.raises(ValueError, match=r"unknown layer 'net\.body\.O': did you mean 'net\.body\.\d'"):
        trainer(HardwareCost({"net.body.O": WeightCoding()})).test(module, loader(x), verbose=False)
    with pytest.raises(ValueError, match="no sample was counted"):
        profile(module.net, [])
    with pytest.raises(ValueError, match="bits must be at least 1"):
        WeightCoding(bits=0)


def test_rows_that_samples_cannot_share_are_refused():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x[1:])

    with pytest.raises(ValueError, match="layer 'fc' received input with leading dimensions"):
        profile(Dropping(), loader(spikes(4, 4)))


DISTRIBUTED = """
import json
from pathlib import Path
import torch
torch.set_num_threads(1)
from hardware import HardwareCost
from tests.hardware.networks import Spiking, loader, sparsify, spikes
from tests.hardware.test_callback import Module, trainer
torch.manual_seed(0)
module, x = Module(sparsify(Spiking())), spikes(8, 3, 2, 8, 8)
cost = HardwareCost()
two = trainer(cost, devices=2, strategy="ddp")
two.test(module, loader(x, 2), verbose=False)
Path(f"process_{two.global_rank}.json").write_text(json.dumps(cost.report.to_dict()))
"""


@pytest.mark.slow
def test_processes_are_summed(tmp_path, module, x):
    script = tmp_path / "distributed.py"
    script.write_text(DISTRIBUTED)
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    # Every process holds the sum of both; one network, one input by the same seed as the fixtures here.
    report, other = (CostReport.from_dict(json.loads(file.read_text())) for file in tmp_path.glob("process_*.json"))
    assert other == report
    alone = profile(module.net, loader(x, 2))
    assert [layer.synops_per_step for layer in report.layers] == [layer.synops_per_step for layer in alone.layers]
    assert (report.samples, report.ac, report.sample_std) == (8, alone.ac, alone.sample_std)
    assert [n.spikes for n in report.neurons] == [n.spikes for n in alone.neurons]


# ------------------------------------------------------------------ the weight that the forward pass uses


def baked(x, weight):
    return brute_force.count_linear(x.numpy(), weight.detach().numpy()).sum()


def test_pruned_weights_with_the_mask_still_on():
    module, x = nn.Linear(12, 6), spikes(5, 12)
    prune.random_unstructured(module, "weight", amount=0.5)
    report = profile(Alone(module), loader(x))
    assert report.ac == baked(x, module.weight)
    assert report.layers[0].nonzero == 36


def test_parametrized_weights():
    class Mask(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.mask = mask

        def forward(self, weight):
            return weight * self.mask

    module, x = nn.Linear(12, 6), spikes(8, 12)
    parametrize.register_parametrization(module, "weight", Mask((torch.rand(6, 12) < 0.5).float()))
    report = profile(Alone(module), loader(x, 2))
    assert report.ac == baked(x, module.weight)
    assert report.layers[0].nonzero == int((module.weight != 0).sum())


def test_weights_quantized_in_the_forward_pass():
    class Quantized(nn.Linear):
        def forward(self, x):
            return F.linear(x, torch.round(self.weight * 2) / 2)

    module, x = sparsify(Quantized(12, 6), 1.0), spikes(5, 12)
    assert profile(Alone(module), loader(x)).ac == baked(x, torch.round(module.weight * 2))


def test_layers_of_an_unknown_class_and_wrappers_are_seen():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return F.linear(x, self.inner.weight)

    module, x = sparsify(nn.Linear(12, 6)), spikes(5, 12)
    report = profile(Alone(Wrapper(module)), loader(x))
    assert [(layer.name, layer.ac) for layer in report.layers] == [("layer", baked(x, module.weight))]
    assert report.uncalled == ()


def test_a_bare_layer_as_the_whole_network():
    module, x = sparsify(nn.Linear(12, 6)), spikes(5, 12)
    assert profile(module, loader(x)).ac == baked(x, module.weight)


def test_a_layer_called_twice_counts_twice_and_an_uncalled_one_is_reported():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = sparsify(nn.Linear(12, 12)), nn.Linear(12, 3)

        def forward(self, x):
            return self.used(x) + self.used(x.flip(0))

    net, x = Net(), spikes(5, 12)
    report = profile(net, loader(x))
    used, unused = report.layers
    assert (used.ac, used.calls) == (2 * baked(x, net.used.weight), 2)
    assert (unused.name, unused.called, unused.weights, unused.ac) == ("unused", False, 36, 0)
    assert report.uncalled == ("unused",)


def test_two_weights_of_one_module_are_two_layers():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(2, 6))

        def forward(self, x):
            return F.linear(x, self.a)[:, :2] + F.linear(x, self.b)

    x = spikes(3, 6)
    report = profile(Pair(), loader(x))
    assert [(layer.name, layer.ac) for layer in report.layers] == [
        ("Pair", int(x.sum()) * 4),
        ("Pair#2", int(x.sum()) * 2),
    ]


def test_zeros_that_move_between_batches_are_followed():
    class Moving(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.left = nn.Parameter(torch.ones(2, 4)), 2

        def forward(self, x):
            self.left -= 1
            return F.linear(x, self.weight * self.left)

    x = torch.ones(2, 4)
    assert profile(Moving(), loader(x, 1)).ac == 8  # the second batch meets no weight


def test_images_convolved_once_and_repeated_have_one_step():
    class Repeating(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), layer.Linear(4 * 16, 2, step_mode="m")

        def forward(self, x):
            steps = self.first(x).flatten(1).sign().relu().expand(5, len(x), -1)
            return self.second(steps).mean(0)

    report = profile(Repeating(), loader(torch.rand(3, 3, 6, 6)))
    assert [len(layer.synops_per_step) for layer in report.layers] == [1, 5]
    assert (report.timesteps, report.layers[0].inputs, report.layers[1].inputs) == (5, "real", "spikes")


def test_outside_of_a_test_it_says_where_it_belongs():
    counter, module = HardwareCost(), nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="attached to no module: give it to Trainer.test"):
        counter.on_test_batch_start(None, module, (torch.ones(1, 2), torch.zeros(1)), 0)


# ------------------------------------------------------------------ how weights are stored, noted on the layers


def quantised(bits=4, rows=True):
    """A linear layer whose weights lie on a grid, one for each row or one for all, with the note that says so."""
    torch.manual_seed(1)
    module = nn.Linear(12, 6, bias=False)
    scale = torch.rand(6 if rows else 1, 1) + 0.1
    zero = torch.full_like(scale, 2 ** (bits - 1))
    codes = torch.randint(0, 2**bits, (6, 12)).float()
    with torch.no_grad():
        module.weight.copy_(scale * (codes - zero))
    note(module, StoredWeights(WeightCoding(bits, scales=len(scale)), scale, zero))
    return module


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_note_on_a_layer_counts_its_bits(bits, rows):
    module, x = quantised(bits, rows), spikes(5, 12)
    (cost,) = profile(Alone(module), loader(x)).layers
    assert (cost.bits, cost.side_bits, cost.memory_bits["dense"]) == (bits, 32 * (6 if rows else 1), 72 * bits)
    (bare,) = profile(module, loader(x)).layers
    assert bare.bits == bits
    with torch.no_grad():
        module.weight[0, :6] = 0  # pruned later: still on the grid
    (pruned,) = profile(Alone(module), loader(x)).layers
    assert pruned.bits == bits
    assert pruned.nonzero < cost.nonzero


def test_codings_of_the_caller_come_first():
    report = profile(Alone(quantised()), loader(spikes(5, 12)), {"layer": WeightCoding(bits=7)})
    assert report.layers[0].bits == 7
    assert report.off_grid == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.mul_(1.5),
        lambda w: w[0, 0].add_(1e-3),
        lambda w: w[0, 0].fill_(float("nan")),
        lambda w: w.copy_(w.abs() * 128),
    ],
    ids=["scaled", "one weight", "nan", "beyond the ends"],
)
def test_weights_that_were_changed_are_floats_again_and_named(change):
    module = quantised()
    with torch.no_grad():
        change(module.weight)
    with pytest.warns(UserWarning, match="counted as floats: layer; their weights were quantised, and have been"):
        report = profile(Alone(module), loader(spikes(5, 12)))
    assert report.layers[0].bits == 32
    assert report.off_grid == ("layer",)
    assert CostReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_report_without_such_layers_is_written_as_it_always_was(module, x):
    assert "off_grid" not in profile(module.net, loader(x)).to_dict()


def test_a_layer_that_lost_rows_since_is_one_of_floats():
    module = quantised()
    module.weight.data = module.weight.data[:4]
    with pytest.warns(UserWarning, match="counted as floats: layer"):
        assert profile(Alone(module), loader(spikes(5, 12))).layers[0].bits == 32


def test_a_note_on_a_layer_that_another_computes_with_is_named():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return F.linear(x, self.inner.weight)

    with pytest.warns(UserWarning, match=r"counted as floats: layer\.inner"):
        report = profile(Alone(Wrapper(quantised())), loader(spikes(5, 12)))
    assert report.layers[0].bits == 32


def test_notes_go_where_modules_go():
    module, x = Alone(quantised()), spikes(5, 12)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    pickled = torch.load(buffer, weights_only=False)
    assert list(noted(copy.deepcopy(module).to("meta"))) == ["layer"]
    for other in (copy.deepcopy(module), pickled, copy.deepcopy(module).double().float(), module.to("cpu")):
        assert profile(other, loader(x)).layers[0].bits == 4
    assert profile(copy.deepcopy(module).double(), loader(x.double())).layers[0].bits == 4
    assert list(module.state_dict()) == ["layer.weight"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_notes_hold_on_a_gpu():
    assert profile(Alone(quantised()).cuda(), loader(spikes(5, 12))).layers[0].bits == 4


def test_the_two_trainers_count_what_was_quantised():
    """As README shows it: fit with the compressor, test with a counter that is not told what was done."""
    from compressors import RTN
    from tests.compressors.networks import QUIET, RandomEvents, classifier, fit

    compressor, counted = RTN(bits=4), HardwareCost()
    network = fit(compressor)
    Trainer(callbacks=[counted], **QUIET).test(network, RandomEvents(), verbose=False)
    informed = HardwareCost(compressor.compression.codings())
    Trainer(callbacks=[informed], **QUIET).test(network, RandomEvents(), verbose=False)
    assert counted.report == informed.report
    floats = HardwareCost()
    Trainer(callbacks=[floats], **QUIET).test(classifier(), RandomEvents(), verbose=False)
    assert counted.report.weight_bits < floats.report.weight_bits / 7
    assert counted.report.stored_bits < floats.report.stored_bits / 3

    Trainer(max_epochs=1, **QUIET).fit(network, RandomEvents())  # trained on: no grid holds it any more
    with pytest.warns(UserWarning, match=r"counted as floats: network\.0, network\.5, network\.7"):
        Trainer(callbacks=[counted], **QUIET).test(network, RandomEvents(), verbose=False)
    assert {layer.bits for layer in counted.report.layers} == {32}
