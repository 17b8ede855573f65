"""A compressed network in whole numbers: what is measured, what is written, and the table of widths."""

import io
import json
from types import SimpleNamespace

import nir
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from spikingjelly.activation_based import layer, neuron
from torch import nn

from benchmark.catalog import MODELS
from benchmark.cli import main
from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.fixed_point.scheme import FixedPoint, FixedPointError
from benchmark.networks.nir.reading import nir_network
from benchmark.networks.weights import checkpoints
from benchmark.single_network import compress, compression_map, fixed
from benchmark.single_network.differences import differences
from benchmark.single_network.fixed import Widths
from compressors.budget import Budget
from tests.benchmark.networks.fixed_point import reference
from tests.compressors.networks import CLASSES, RandomEvents, T

SHAPE = (2, 6, 6)


class Events(RandomEvents):
    """Random events as a benchmark data set has them."""

    input_shape = SHAPE

    def calibration_indices(self):
        return range(8)


def network(model="conv"):
    torch.manual_seed(0)
    options = {"conv": {"width": 4, "hidden": 8}, "mlp": {"hidden": 16}}[model]
    made = MODELS[model].load()(SHAPE, CLASSES, **options).eval()
    with torch.no_grad():  # so that the untrained network fires
        for parameter in made.parameters():
            parameter.mul_(4)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_()
            elif isinstance(module, nn.Linear):
                module.weight.mul_(2)
    return made


def if_network():
    """Without a leak and a maximum, which NIR and other simulators have as well."""
    torch.manual_seed(0)
    made = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False, step_mode="m"),
        layer.BatchNorm2d(4, step_mode="m"),
        neuron.IFNode(v_threshold=0.7, v_reset=None, step_mode="m"),
        layer.AvgPool2d(2, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(36, CLASSES, step_mode="m"),
        neuron.IFNode(v_reset=None, step_mode="m"),
    ).eval()
    made[1].running_mean.normal_()
    return made


@pytest.fixture
def subject(tmp_path, monkeypatch):
    """Opens a network whose file nobody needs to read."""
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path))

    def opened(made=network):
        subject = SimpleNamespace(
            data=Events(),
            module=lambda: SNNClassifier(made(), classes=CLASSES, timesteps=T),
            description={"data": {"name": "random"}},
            checkpoint=SimpleNamespace(sha256="0" * 64),
            path=tmp_path / "mine.ckpt",
        )
        monkeypatch.setattr(compress, "open_for", lambda source, output: subject)
        monkeypatch.setattr(fixed, "open_subject", lambda source: subject)
        return subject

    return opened


SOURCE = SimpleNamespace(seed=0)


def compressed(subject, output, scheme, method=("magnitude", 0.5), **settings):
    name, density = method
    return compress.compress_checkpoint(SOURCE, {"name": name}, Budget(density), output, scheme=scheme, **settings)


def test_the_figures_are_those_of_the_whole_numbers(subject, tmp_path):
    subject()
    done = compressed(subject, tmp_path / "small.safetensors", FixedPoint(4, 12))
    floats, whole = done["floats"], done["compressed"]
    assert whole["weight_bits"] == floats["weight_bits"] / 8  # no weight that was kept became zero here
    state = floats["total_bits"] - floats["stored_bits"]
    assert whole["total_bits"] - whole["stored_bits"] == state * 12 / 32
    account = done["fixed_point"]
    assert (account["weight_bits"], account["potential_bits"]) == (4, 12)
    assert [neurons["name"] for neurons in account["neurons"]] == ["2", "5", "9", "11"]
    assert all(0 <= neurons["mismatch"] <= 1 for neurons in account["neurons"])
    assert {layer["bits"] for layer in done["compression"]["layers"]} == {4}
    shown = io.StringIO()
    Console(file=shown, width=120).print(compress.show(done))
    assert "whole numbers: weights of 4 bits, potentials of 12, which saturate" in " ".join(shown.getvalue().split())


def test_the_map_holds_the_whole_numbers(subject, tmp_path):
    """What stands in the map, run by the rules that stand in it, gives the spikes that were measured."""
    subject(lambda: network("mlp"))
    done = compressed(subject, tmp_path / "small.safetensors", FixedPoint(5, 14))
    told = json.loads((tmp_path / "small.map.json").read_text())
    assert "saturates or wraps in potential_bits" in told["reading"]
    known = compression_map.load(tmp_path / "small.map.json")  # which takes them as well
    x = Events().x.transpose(0, 1)
    values = x.long().flatten(2).numpy()
    scheme = FixedPoint(5, told["neurons"]["2"]["potential_bits"], told["neurons"]["2"]["overflow"])
    for known_layer, neurons in zip(known.layers, told["neurons"].values(), strict=True):
        codes = known_layer.codes.long() - known_layer.grid.zero.long()
        weight = codes << told["layers"][known_layer.name]["shift"]
        currents = reference.linear(values.reshape(-1, values.shape[2]), weight.numpy())
        leak = SimpleNamespace(kind=neurons["leak"], amount=neurons["amount"])
        currents = currents.reshape(*values.shape[:2], -1)
        values = reference.neuron(currents, neurons["threshold"], neurons["reset"] == "subtract", leak, scheme)
    right = torch.from_numpy(values).double().mean(0).argmax(1) == Events().y
    assert values.any()
    assert float(right.double().mean()) == pytest.approx(done["compressed"]["accuracy"])


def test_the_packed_file_holds_the_weights_on_their_grid(subject, tmp_path):
    subject()
    compressed(subject, tmp_path / "small.safetensors", FixedPoint(3, 12))
    state = checkpoints.load(tmp_path / "small.safetensors").state
    known = compression_map.load(tmp_path / "small.map.json")
    for one in known.layers:
        weight = state[f"{one.name}.weight"]
        assert torch.equal(weight, one.weight())
        assert len(weight.unique()) <= 8
        assert one.grid.scale.shape == (1, 1)
    assert (state["1.running_mean"] != 0).any()  # the bias of the BatchNorm that went into the layer
    assert torch.equal(state["1.weight"], torch.ones(4))


def test_a_nir_file_stands_for_the_whole_numbers(subject, tmp_path):
    subject(if_network)
    done = compressed(subject, tmp_path / "small.nir", FixedPoint(6, 16))
    read = nir_network(SHAPE, CLASSES, path=str(tmp_path / "small.nir"))
    floats = SNNClassifier(read, classes=CLASSES, timesteps=T).eval()
    right = [floats(x).argmax(1) == y for x, y in Events().test_dataloader()]
    assert float(torch.cat(right).double().mean()) == pytest.approx(done["compressed"]["accuracy"])
    assert nir.read(tmp_path / "small.nir").nodes["0"].metadata["weight_bits"] == 6


def test_nothing_needs_to_be_compressed_before(subject, tmp_path):
    subject()
    done = compressed(subject, tmp_path / "same.safetensors", FixedPoint(8, 24), ("identity", 1.0))
    assert done["compressed"]["weight_bits"] < done["floats"]["weight_bits"] / 3.9
    assert {layer["bits"] for layer in done["compression"]["layers"]} == {8}


def test_what_has_no_form_in_whole_numbers_is_refused_before_the_work(subject, tmp_path, monkeypatch):
    def strange():
        made = network("mlp")
        made[2] = neuron.EIFNode(step_mode="m")
        return made

    subject(strange)
    monkeypatch.setattr(compress, "compress", lambda *_, **__: pytest.fail("it was compressed"))
    with pytest.raises(FixedPointError, match="layer '2' \\(EIFNode\\) has no form in whole numbers"):
        compressed(subject, tmp_path / "small.safetensors", FixedPoint())
    assert not (tmp_path / "small.safetensors").exists()


def test_images_are_refused():
    data = Events()
    data.x = data.x[:, 0]
    with pytest.raises(FixedPointError, match="these data are images"):
        fixed.calibration_inputs(SNNClassifier(network(), classes=CLASSES, timesteps=T), data)


def test_the_table_of_widths(subject):
    subject()
    heard = []
    account = fixed.compare_widths(SOURCE, {"name": "identity"}, Budget(), Widths((8, 2), (8, 16)), heard.append)
    rows = account["rows"]
    assert [(row["weight_bits"], row["potential_bits"]) for row in rows] == [
        *((8, None), (8, 8), (8, 16)),
        *((2, None), (2, 8), (2, 16)),
    ]
    assert heard == ["8/8", "8/16", "2/8", "2/16", "test"]
    assert all(row["mismatch"].keys() == {"2", "5", "9", "11"} for row in rows)
    # more bits of a weight spoil fewer spikes, and floats behind the same weights fewer still
    first = [row["mismatch"]["2"] for row in rows]
    assert first[0] <= first[2] < first[5]
    assert first[3] <= first[5]
    assert "overflows" in rows[1]
    assert "overflows" not in rows[0]
    shown = io.StringIO()
    Console(file=shown, width=120).print(fixed.table(account))
    last = shown.getvalue().splitlines()[-len(rows) :]
    assert [line.split()[:2] for line in last] == [
        [str(row["weight_bits"]), str(row["potential_bits"] or "float")] for row in rows
    ]


def test_spikes_that_only_one_network_fires_are_a_share_of_those_of_either():
    module = SNNClassifier(network("mlp"), classes=CLASSES, timesteps=T)
    other = SNNClassifier(network("mlp"), classes=CLASSES, timesteps=T)
    other.network[2].v_threshold = 1e9
    found = differences(module, {"same": module, "silent": other}, Events().test_dataloader())
    assert found["same"].mismatch == {"2": 0, "4": 0}
    assert found["silent"].mismatch["2"] == 1
    assert found["silent"].spikes == {"2": 0, "4": 0}
    assert found[""].spikes_per_sample > 1
    assert found[""].accuracy == found["same"].accuracy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "sbc", "--weight-bits", "4"], "--weight-bits is of whole numbers: give --fixed-point too"),
        (["--method", "sbc", "--fixed-point", "--weight-bits", "9"], "weights of 9 bits: give 2 to 8"),
        (["--method", "sbc", "--fixed-point", "--potential-bits", "7"], "potentials of 7 bits: give 8 to 24"),
        (
            ["--method", "sbc", "--fixed-point", "--max-drop", "1", "--weight-bits", "4"],
            "the width of weights is searched",
        ),
    ],
)
def test_mistakes_in_the_call(words, message, tmp_path):
    done = CliRunner().invoke(main, ["compress", "--checkpoint", str(tmp_path / "mine.ckpt"), *words])
    assert done.exit_code == 2
    assert message in done.output
