"""What other programs read fires as the whole numbers do, to the bit: NIR as snnbench, sinabs and norse take it."""

import nir
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from benchmark.networks.fixed_point.network import dequantised, fixed_point
from benchmark.networks.fixed_point.scheme import FixedPoint
from benchmark.networks.inference.multistep import multistep
from benchmark.networks.nir.reading import nir_network
from benchmark.networks.nir.writing import write_nir
from datamodules import NMNIST
from hardware.storage import noted
from tests.benchmark.networks.fixed_point.test_network import events, run
from tests.conftest import REAL_DATA

SHAPE = (2, 8, 8)


def network(reset):
    torch.manual_seed(3)
    made = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False, step_mode="m"),
        layer.BatchNorm2d(4, step_mode="m"),
        neuron.IFNode(v_threshold=0.7, v_reset=reset, step_mode="m"),
        layer.AvgPool2d(2, step_mode="m"),
        layer.Conv2d(4, 6, 3, padding=1, step_mode="m"),
        layer.AvgPool2d(2, step_mode="m"),
        neuron.IFNode(v_reset=reset, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(24, 5, bias=False, step_mode="m"),
        neuron.IFNode(v_threshold=1.3, v_reset=reset, step_mode="m"),
    ).eval()
    with torch.no_grad():
        made[1].bias.normal_()
        for module in made:
            if hasattr(module, "weight"):
                module.weight.mul_(4)
    return made


@pytest.fixture(scope="module", params=[None, 0.0], ids=["subtract", "value"])
def written(request, tmp_path_factory):
    """A file, inputs, the whole numbers' spikes for them, and the account of the whole numbers."""
    made, x = network(request.param), events(11, steps=40)
    numbers = fixed_point(made, events(steps=40), FixedPoint(4, 20))
    path = tmp_path_factory.mktemp("nir") / "whole.nir"
    write_nir(path, dequantised(made, numbers, exactly=True), SHAPE, metadata=numbers.metadata())
    spikes = run(numbers.network, x)
    assert 0.05 < spikes.mean() < 0.95
    assert not any(numbers.overflows().values())
    return path, x, spikes, numbers


def test_snnbench_reads_it_back(written):
    path, x, spikes, _ = written
    assert torch.equal(run(nir_network(SHAPE, 5, path=str(path)), x), spikes)


def test_the_whole_numbers_stand_beside_what_they_stand_for(written):
    path, _, _, numbers = written
    graph = nir.read(path)
    said, fired = graph.nodes["0"].metadata, graph.nodes["2"].metadata
    unit = float(fired["unit"])
    assert float(np.log2(unit)).is_integer()
    assert (said["weight_bits"], fired["potential_bits"]) == (4, 20)
    assert (fired["overflow"], fired["leak"]) == ("saturate", "none")
    assert said["weight_codes"].dtype == np.int8
    assert -8 <= said["weight_codes"].min() < said["weight_codes"].max() <= 7
    assert np.array_equal(graph.nodes["0"].weight, said["weight_codes"] * 2.0 ** said["weight_shift"] * unit)
    assert np.array_equal(graph.nodes["0"].bias, said["bias_integers"] * unit)
    assert said["bias_integers"].any()
    below = 0 if numbers.neurons["2"].reset is None else 0.5
    assert np.all(graph.nodes["2"].v_threshold == (fired["threshold_integer"] - below) * unit)


def test_weights_are_counted_as_narrow_as_they_were_written_while_they_are_those(written, tmp_path):
    path, _, _, numbers = written
    found = [*noted(nir_network(SHAPE, 5, path=str(path))).values()]
    for (module, stored), one in zip(found, numbers.layers.values(), strict=True):
        assert stored.coding.bits == 4
        assert torch.equal(module.weight / stored.scale, one.codes.float())
    graph = nir.read(path)
    graph.nodes["0"].weight[0, 0, 0, 0] += 0.01
    graph.nodes["4"].metadata["weight_bits"] = 2  # fewer than its codes have
    graph.nodes["8"].metadata["weight_codes"] = graph.nodes["8"].metadata["weight_codes"][:1]
    nir.write(tmp_path / "other.nir", graph)
    assert noted(nir_network(SHAPE, 5, path=str(tmp_path / "other.nir"))) == {}


def test_sinabs_fires_alike(written):
    """Told that neurons fire once a step, how they are reset, and that a potential has no lower end."""
    path, x, spikes, numbers = written
    assert torch.equal(in_sinabs(path, x, numbers.neurons["2"].reset is None), spikes)


def in_sinabs(path, x, subtracts):
    """Spikes ``[T, B, classes]`` of a NIR file's network in sinabs."""
    sinabs = pytest.importorskip("sinabs")
    from sinabs.activation import MembraneReset, MembraneSubtract, SingleSpike

    loaded = sinabs.from_nir(nir.read(path), batch_size=x.shape[1])
    for module in loaded.modules():
        if isinstance(module, sinabs.layers.IAFSqueeze):
            module.spike_fn, module.min_v_mem = SingleSpike, None
            module.reset_fn = MembraneSubtract() if subtracts else MembraneReset()
    with torch.no_grad():
        got = loaded(x.transpose(0, 1).flatten(0, 1))  # batch and time as one, the batch outside
    got = got[0] if isinstance(got, tuple) else got
    return got.view(x.shape[1], len(x), -1).transpose(0, 1)


@pytest.fixture(scope="module")
def recordings():
    """Two real N-MNIST recordings in steps of a millisecond: ``[T, B, 2, 34, 34]``."""
    folder = REAL_DATA / "nmnist"
    if not folder.is_dir():
        pytest.skip(f"the recordings are not at {folder}")
    data = NMNIST(folder, timesteps=310, window_us=1000, calibration_samples=10)
    data.setup("fit")
    x, _ = next(iter(data.calibration_dataloader(10)))
    return x[:2].transpose(0, 1)


@pytest.fixture(scope="module", params=["subtract", "value"])
def trained(request, recordings, tmp_path_factory):
    """The N-MNIST network of the NIR paper's repository in 8 bits: a file, and the whole numbers' spikes.

    It was trained to be reset by subtraction, which norse does not have; read as reset to a value it still fires.
    """
    source = REAL_DATA / "nir" / "nmnist_cnn.nir"
    if not source.is_file():
        pytest.skip(f"the trained network is not at {source}")
    network = multistep(nir_network((2, 34, 34), 10, path=str(source), reset=request.param).eval())
    numbers = fixed_point(network, recordings, FixedPoint(8, 24))
    path = tmp_path_factory.mktemp("trained") / "whole.nir"
    write_nir(path, dequantised(network, numbers, exactly=True), (2, 34, 34), metadata=numbers.metadata())
    spikes = run(numbers.network, recordings)
    assert spikes.sum() > 100
    assert numbers.dtypes.keys() == numbers.layers.keys()
    assert {*numbers.dtypes.values()} == {"float32"}
    return path, spikes


def test_snnbench_fires_alike_on_real_recordings(trained, recordings):
    path, spikes = trained
    assert torch.equal(run(nir_network((2, 34, 34), 10, path=str(path)), recordings), spikes)


@pytest.mark.parametrize("trained", ["subtract", "value"], indirect=True)
def test_sinabs_fires_alike_on_real_recordings(trained, recordings, request):
    path, spikes = trained
    assert torch.equal(in_sinabs(path, recordings, request.node.callspec.params["trained"] == "subtract"), spikes)


@pytest.mark.parametrize("trained", ["value"], indirect=True)
def test_norse_fires_alike_on_real_recordings(trained, recordings):
    path, spikes = trained
    assert torch.equal(in_norse(path, recordings), spikes)


@pytest.mark.parametrize("written", [0.0], indirect=True, ids=["value"])
def test_norse_fires_alike(written):
    """It resets integrate-and-fire neurons to a value, never by subtraction, and fires above the threshold."""
    path, x, spikes, _ = written
    assert torch.equal(in_norse(path, x), spikes)


def in_norse(path, x):
    """Spikes ``[T, B, classes]`` of a NIR file's network in norse, which takes no batches of flattened maps."""
    norse = pytest.importorskip("norse.torch")
    loaded, samples = norse.from_nir(nir.read(path)), []
    for sample in x.unbind(1):
        state, got = None, []
        with torch.no_grad():
            for step in sample:
                output, state = loaded(step, state)
                got.append(output.flatten())
        samples.append(torch.stack(got))
    return torch.stack(samples, 1)
