"""Mimic: SBC's cut, made up for layer by layer, then learning from the dense network."""

import pytest
import torch

from compressors import SBC, Mimic
from compressors.budget import BudgetError
from compressors.calibration import reconstruction
from tests.compressors.networks import classifier, fit, weights

STEPS = 16


def made(**options):
    compressor = Mimic(**{"reconstruction_steps": STEPS, **options})
    return fit(compressor), compressor


def test_of_several_rounds_each_learns():
    module, compressor = made(density=0.2, schedule=0.5)
    account = compressor.compression
    assert [round_.density for round_ in compressor.rounds] == [0.5, 0.25, 0.2]
    assert [stage["stage"] for stage in account.stages] == ["reconstruct"] * 3
    assert account.density == pytest.approx(0.2, abs=0.01)
    assert account.aftercare["reconstruct"] == [layer.name for layer in account.layers]
    for layer in account.layers:
        assert not module.get_parameter(f"{layer.name}.weight").detach()[~layer.mask].any()


def test_without_learning_it_is_sbc_on_the_inputs_that_cut_layers_leave(monkeypatch):
    monkeypatch.setattr(reconstruction, "LEARNING_RATES", ())
    mimic, _ = made(density=0.3, bits=4)
    plain = fit(SBC(0.3, bits=4, solver="admm", propagate="auto"))
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(mimic)[name]), name


def test_reconstruction_belongs_to_it_whatever_other_care_is_asked_for():
    assert Mimic(0.3).aftercare == ("reconstruct",)
    assert Mimic(0.3, aftercare="means").aftercare == ("means", "reconstruct")
    assert Mimic(0.3, aftercare=["reconstruct"]).aftercare == ("reconstruct",)


def test_a_pattern_is_cut_at_once_and_bits_alone_are_one_round():
    assert len(Mimic(pattern="1:4").rounds) == 1
    assert len(Mimic(bits=4).rounds) == 1
    with pytest.raises(BudgetError, match="the pattern 1:4 fixes the density"):
        Mimic(pattern="1:4", schedule=(0.5,))


@pytest.mark.parametrize(
    ("asked", "goes_with", "message"),
    [
        ({"variant": "paper"}, {"solver": "exact"}, "take solver 'exact', not 'admm'"),
        ({"pattern": "block4"}, {"solver": "exact"}, "'admm' has no blocks of four"),
        ({"hessian": "fisher"}, {"propagate": False}, "take propagate False with hessian 'fisher'"),
    ],
)
def test_what_its_own_choices_do_not_go_with_is_refused_with_what_does(asked, goes_with, message):
    with pytest.raises(ValueError, match=message):
        Mimic(0.3, **asked)
    Mimic(0.3, **asked, **goes_with)


def test_all_rounds_come_before_fine_tuning_and_hold_in_it():
    compressor = Mimic(0.2, reconstruction_steps=STEPS, schedule=0.5)
    module = fit(compressor, classifier(), epochs=1)
    assert len(compressor.compression.stages) == 3
    assert compressor.compression.density == pytest.approx(0.2, abs=0.01)
    for layer in compressor.compression.layers:
        assert not module.get_parameter(f"{layer.name}.weight").detach()[~layer.mask].any()


def test_without_a_budget_there_is_nothing_to_do():
    assert Mimic().idle
    assert not Mimic(0.5).idle


def test_the_same_seed_gives_the_same_bits():
    (one, _), (other, _) = made(density=0.3), made(density=0.3)
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name
