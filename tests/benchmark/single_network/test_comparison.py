"""The door for people in Python: one network, one compressor, before and after."""

import subprocess
import sys

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import benchmark
from benchmark import SNNClassifier, SubjectError, compress
from benchmark.single_network.comparison import notes_on
from benchmark.wording import never_active
from compressors import DST, OBC, QPSNN, RTN, CalibrationError, Identity, Magnitude, RandomPruning
from compressors.registry import UnknownName
from hardware import HardwareCost, profile
from tests.compressors.networks import CLASSES, QUIET, RandomEvents, T, classifier, fit


class TwoParts(LightningDataModule):
    """Test and calibration samples, and nothing else; says what a classifier needs to know."""

    num_classes, timesteps = CLASSES, T

    def __init__(self):
        super().__init__()
        self.parts = RandomEvents()

    def test_dataloader(self):
        return self.parts.test_dataloader()

    def calibration_dataloader(self):
        return self.parts.calibration_dataloader()


def states(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_it_is_the_way_of_two_trainers():
    module = classifier()
    result = compress(module, RandomEvents(), Magnitude(0.5, bits=4), seed=3)

    by_hand, counter = classifier(), HardwareCost()
    fit(Magnitude(0.5, bits=4), by_hand)
    (metrics,) = Trainer(callbacks=[counter], **QUIET).test(by_hand, RandomEvents(), verbose=False)
    assert result.compressed.cost == counter.report
    assert result.compressed.accuracy == pytest.approx(metrics["test/accuracy"])
    expected = by_hand.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in result.network.state_dict().items())

    dense = HardwareCost()
    Trainer(callbacks=[dense], **QUIET).test(classifier(), RandomEvents(), verbose=False)
    assert result.dense.cost == dense.report
    assert result.compression.density == pytest.approx(0.5, abs=0.01)
    assert [layer.bits for layer in result.compressed.cost.layers] == [4, 4, 4]


def test_inputs_that_were_never_active_are_named():
    module = classifier()
    with torch.no_grad():
        for parameter in next(iter(module.network.children())).parameters():
            parameter.zero_()
    result = compress(module, RandomEvents(), OBC(0.5))
    dead = {entry.name: entry.to_dict()["dead_inputs"] for entry in result.compression.layers[1:]}
    assert all(dead.values())
    assert notes_on(result.compression.to_dict()) == [never_active(dead)]
    assert never_active(dead) in " ".join(str(result).split())


@pytest.mark.parametrize("method", [RandomPruning, RTN, QPSNN], ids=lambda method: method.__name__)
@pytest.mark.parametrize("epochs", [0, 1])
def test_the_dense_network_is_left_as_it_was(method, epochs):
    module = classifier().train()
    before, hooks = states(module), [len(part._forward_hooks) for part in module.modules()]
    result = compress(module, RandomEvents(), method(bits=4) if method is RTN else method(0.5), epochs=epochs)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [len(part._forward_hooks) for part in module.modules()] == hooks
    assert all(part.training for part in module.modules())
    assert result.module is not module
    assert any(value.shape != before[f"network.{name}"].shape or not torch.equal(value, before[f"network.{name}"])
               for name, value in result.network.state_dict().items())  # fmt: skip


def test_a_network_that_just_ran_with_gradients_can_be_copied():
    module = classifier()
    module(RandomEvents().x).sum()  # potentials that hang on a graph
    assert compress(module, RandomEvents(), RandomPruning(0.5)).compression.density == pytest.approx(0.5, abs=0.02)


def test_a_plain_network_is_wrapped_as_the_data_say():
    wrapped = compress(classifier(), TwoParts(), RandomPruning(0.5))
    plain = compress(classifier().network, TwoParts(), RandomPruning(0.5))
    assert isinstance(plain.module, SNNClassifier)
    assert plain.module.timesteps == T
    assert plain.compressed.cost == wrapped.compressed.cost
    assert plain.compressed.accuracy == wrapped.compressed.accuracy


def test_a_registered_name_stands_for_its_class():
    by_name = compress(classifier(), RandomEvents(), "magnitude", density=0.3, allocation="lamp")
    assert by_name.compression.density == pytest.approx(0.3, abs=0.02)
    with pytest.raises(UnknownName, match="did you mean 'magnitude'"):
        compress(classifier(), RandomEvents(), "magnitud")
    with pytest.raises(SubjectError, match=r"where it is made: RandomPruning\(\.\.\.\)"):
        compress(classifier(), RandomEvents(), RandomPruning(0.5), density=0.3)


def test_fine_tuning_trains():
    still = compress(classifier(), RandomEvents(), RandomPruning(0.5))
    trained = compress(classifier(), RandomEvents(), RandomPruning(0.5), epochs=1, learning_rate=0.1)
    assert not torch.equal(still.network[7].weight, trained.network[7].weight)
    assert torch.equal(still.network[7].weight != 0, trained.network[7].weight != 0)
    with pytest.raises(SubjectError, match=r"TwoParts has no train_dataloader\(\): add it"):
        compress(classifier(), TwoParts(), RandomPruning(0.5), epochs=1)


def test_a_result_is_told_in_a_line_and_in_a_table():
    result = compress(classifier(), RandomEvents(), Magnitude(0.5, bits=4))
    before, after = result.dense.cost, result.compressed.cost
    assert repr(result).startswith("<Result of Magnitude(density=0.5, bits=4): accuracy ")
    assert f"{before.stored_bits // 8:,} -> {after.stored_bits // 8:,} bytes" in repr(result)
    told = str(result)
    assert "Magnitude(density=0.5, bits=4)" in told
    assert result.to_dict()["compressed"]["stored_bits"] == after.stored_bits
    assert "compress" in dir(benchmark)


class Other(LightningModule):
    """A module that is no classifier of ours."""


def test_what_it_cannot_work_with_is_named():
    with pytest.raises(SubjectError, match="Other is not an SNNClassifier: give the network inside it"):
        compress(Other(), RandomEvents(), Identity())
    with pytest.raises(SubjectError, match="RandomEvents does not say num_classes and timesteps"):
        compress(classifier().network, RandomEvents(), Identity())
    with pytest.raises(SubjectError, match=r"LightningDataModule has no test_dataloader\(\) and no calibration_data"):
        compress(classifier(), LightningDataModule(), Identity())
    used = RandomPruning(0.5)
    compress(classifier(), RandomEvents(), used)
    for sparse, options in ((DST(0.5), {}), ("dst", {"density": 0.5})):
        with pytest.raises(SubjectError, match=r"DST trains a network from scratch, .*: name it in a suite, or fit"):
            compress(classifier(), RandomEvents(), sparse, **options)
    with pytest.raises(SubjectError, match="this RandomPruning has compressed a network already: make a new one"):
        compress(classifier(), RandomEvents(), used)
    empty = TwoParts()
    empty.parts.calibration_dataloader = list
    with pytest.raises(CalibrationError, match="empty"):
        compress(classifier(), empty, RandomPruning(0.5))


def test_a_compressor_may_bring_its_own_calibration_data():
    class TestOnly(LightningDataModule):
        def test_dataloader(self):
            return RandomEvents().test_dataloader()

    data = RandomEvents()
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=4)
    own = compress(classifier(), TestOnly(), RandomPruning(0.5, calibration=loader))
    theirs = compress(classifier(), RandomEvents(), RandomPruning(0.5))
    assert torch.equal(own.network[5].weight, theirs.network[5].weight)


def test_import_costs_nothing():
    program = "import sys, benchmark; sys.exit(int(bool({'torch', 'lightning', 'pydantic'} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_documented_names_of_earlier_versions_still_import():
    from benchmark.classifier import SNNClassifier as Earlier
    from benchmark.models.conv import conv as earlier_conv
    from benchmark.networks.zoo.conv import conv

    assert Earlier is SNNClassifier
    assert earlier_conv is conv


def test_the_compressed_network_is_counted_the_same_in_one_call():
    result = compress(classifier(), RandomEvents(), RTN(bits=4))
    x = RandomEvents().x.transpose(0, 1)
    loader = [(x[:, i : i + 4].transpose(0, 1), RandomEvents().y[i : i + 4]) for i in range(0, 12, 4)]
    report = profile(result.module, loader)
    assert report.stored_bits == result.compressed.cost.stored_bits


def test_the_answers_of_both_networks_are_those_of_the_same_samples():
    data = RandomEvents()
    result = compress(classifier(), data, RandomPruning(0.3))
    for measured in (result.dense, result.compressed):
        with torch.no_grad():
            right = torch.cat([measured.module.eval()(x).argmax(1) == y for x, y in data.test_dataloader()])
        assert torch.equal(measured.correct, right)
        assert measured.correct.float().mean() == pytest.approx(measured.accuracy)
