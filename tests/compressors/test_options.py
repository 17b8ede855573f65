"""Compressors are values: typed options, checked when made and then fixed, equal where options are, JSON in records."""

import copy
import inspect
import json
import pickle
import re
from dataclasses import FrozenInstanceError

import pytest
from mypy import api

from compressors import OBC, QPSNN, SBC, Budget, BudgetError, Magnitude, Pruner, SpatioTemporal
from compressors.annotations import Admitted
from compressors.base import Compressor
from compressors.budget import OptionError
from compressors.registry import COMPRESSORS
from compressors.weights.latent import LatentTraining
from tests.end_to_end.conftest import REPOSITORY

METHODS = [COMPRESSORS[name].load() for name in sorted(COMPRESSORS)]
EXAMPLES = {"density": {"density": 0.3}, "bits": {"bits": 4}, "none": {}}


def example(method):
    return method(**EXAMPLES[method.budgets[0]])


@pytest.mark.parametrize("method", METHODS)
def test_equal_options_make_equal_compressors_with_one_hash(method):
    one, other = example(method), example(method)
    assert one == other
    assert hash(one) == hash(other)
    assert one != object()
    excluding = method(**EXAMPLES[method.budgets[0]], exclude=["*.1"])
    assert excluding != one
    assert excluding == method(**EXAMPLES[method.budgets[0]], exclude=("*.1",))


@pytest.mark.parametrize("method", METHODS)
def test_options_are_json_and_make_the_same_compressor_again(method):
    options = json.loads(json.dumps(example(method).options_to_dict()))
    assert method(**options) == example(method)
    assert {"density", "bits", "synops", "include", "exclude", "aftercare"} <= options.keys()


@pytest.mark.parametrize("method", METHODS)
def test_options_are_fixed_and_what_is_none_is_not(method):
    compressor = example(method)
    for option in compressor.options_to_dict():
        with pytest.raises(FrozenInstanceError, match=f"{option} is an option of {method.__name__}"):
            setattr(compressor, option, 0.7)
    compressor.log = print  # as Lightning does
    assert compressor == example(method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_are_equal_and_have_a_state_of_their_own(method, again):
    compressor = example(method)
    copied = again(compressor)
    assert copied == compressor
    assert copied.state is not compressor.state


def test_what_is_not_the_default_is_shown():
    assert repr(Magnitude(0.1, allocation="erk")) == "Magnitude(density=0.1, allocation='erk')"
    assert repr(QPSNN(0.5, bits=4)) == "QPSNN(density=0.5, bits=4)"
    assert repr(SBC(0.1, solver="fast", cache="/somewhere")) == "SBC(density=0.1, allocation='lamp', solver='fast')"


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (OBC, {"pattern": "block4", "solver": "fast"}, "'fast' has no blocks of four"),
        (OBC, {"pattern": "block4", "solver": "refined"}, "'refined' has no blocks of four"),
        (OBC, {"pattern": "block4", "solver": "auto"}, "'auto' has no blocks of four"),
        (OBC, {"variant": "paper", "pattern": "2:4"}, "'paper' has no pattern '2:4'"),
        (OBC, {"variant": "paper", "per": "tensor"}, "'paper' has a grid of its own"),
        (SBC, {"allocation": "erk", "power": 3.0}, "power is that of LAMP scores"),
        (Magnitude, {"allocation": "lampp"}, "allocation is 'lampp': did you mean 'lamp'"),
        (Magnitude, {"aftercare": ["mean"]}, "unknown aftercare mean"),
        (SpatioTemporal, {"widths": "pcs"}, "widths is 'pcs': did you mean 'pca'"),
        (QPSNN, {"gamma": "median"}, "gamma is 'median'"),
    ],
)
def test_options_that_contradict_are_refused_when_the_compressor_is_made(method, options, message):
    with pytest.raises(OptionError, match=message):
        method(**options)


class Seeded(Pruner):
    """An author's method: an annotated attribute is an option."""

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise OptionError(f"seed is {self.seed}: give 0 or more")


class Old(Pruner):
    """An author's method with a constructor of its own."""

    def __init__(self, density: float = 1.0, *, seed: int = 0, **pruning):
        super().__init__(density, **pruning)
        self.seed = seed


@pytest.mark.parametrize("method", [Seeded, Old])
def test_an_authors_options_stand_beside_those_of_the_base(method):
    compressor = method(0.5, seed=3, bits=4)
    assert (compressor.density, compressor.bits, compressor.seed) == (0.5, 4, 3)
    assert {"seed", "density", "schedule", "exclude"} <= method.options().keys()


def test_an_authors_check_runs_with_those_of_the_base():
    with pytest.raises(OptionError, match="seed is -1"):
        Seeded(seed=-1)
    with pytest.raises(BudgetError, match="density is 2"):
        Seeded(2)


def test_budgets_know_their_kind_their_limits_and_their_words():
    budgets = [Budget(), Budget(0.1), Budget(bits=4), Budget(0.25, 4), Budget(synops=0.3)]
    assert [b.kind for b in budgets] == ["none", "density", "bits", "density+bits", "synops"]
    assert [b.short for b in budgets] == ["", "0.1", "4 bit", "0.25, 4 bit", "0.3 of SynOps"]
    assert [str(b) for b in budgets] == ["", "density 0.1", "bits 4", "density 0.25, bits 4", "synops 0.3"]
    assert all(Budget(**b.limits) == b for b in budgets)
    shuffled = [budgets[i] for i in (3, 0, 4, 2, 1)]
    assert sorted(shuffled, key=lambda b: b.rank) == budgets


@pytest.mark.slow
def test_a_misspelt_option_is_an_error_for_type_checkers(tmp_path):
    path = tmp_path / "misspelt.py"
    path.write_text("from compressors import SBC\n\nSBC(0.1, bits=4, solver='fast')\nSBC(densty=0.1)\n")
    report, _, status = api.run(["--config-file", str(REPOSITORY / "pyproject.toml"), str(path)])
    assert status == 1
    assert 'misspelt.py:4: error: Unexpected keyword argument "densty" for "SBC"; did you mean "density"?' in report
    assert "Found 1 error" in report


WRONG = ("maybe", "no", 1, 0.5, True, None, [1], {"a": 1}, object(), float("nan"), float("-inf"))
"""Values of which no annotation of an option admits all."""


@pytest.mark.parametrize("method", METHODS)
def test_every_option_refuses_what_its_annotation_does_not_admit(method):
    for option, parameter in method.options().items():
        admitted = Admitted(parameter.annotation)
        refused = [value for value in WRONG if not admitted.admits(value)]
        assert len(refused) >= 4, f"{option} of {method.__name__} takes nearly everything"
        for value in refused:
            with pytest.raises(OptionError, match=rf"^{option} is .*: give ") as raised:
                method(**{option: value})
            assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        (
            OBC,
            {"propagate": "maybe"},
            "propagate is 'maybe': give true or false, or a number of at least 0 and of at most 1, or 'auto'",
        ),
        (OBC, {"damping": True}, "damping is True: give a number of at least 0"),
        (OBC, {"damping": -1.0}, "damping is -1.0: give a number of at least 0"),
        (OBC, {"max_memory": -1}, "max_memory is -1: give a whole number above 0"),
        (OBC, {"power": 0}, "power is 0: give a number above 0"),
        (SBC, {"pattern": "2:4", "density": True}, "density is True: give a number above 0 and at most 1"),
        (SBC, {"exclude": [1]}, "exclude is [1]: give a text, or a list of texts"),
        (QPSNN, {"first_share": 2}, "first_share is 2: give a number of at least 0 and of at most 1"),
    ],
)
def test_the_message_names_option_value_and_what_is_expected(method, options, words):
    with pytest.raises(OptionError, match=re.escape(words)):
        method(**options)


def test_whole_numbers_stand_for_numbers_and_stay_as_they_are_written():
    assert OBC(1, damping=1).options_to_dict()["damping"] == 1
    assert type(OBC(1, damping=1).damping) is int


def test_options_of_authors_are_checked_by_their_annotations_too():
    with pytest.raises(OptionError, match="seed is 'x': give a whole number"):
        Seeded(0.5, seed="x")
    with pytest.raises(OptionError, match="bits is 'x'"):
        Old(0.5, bits="x")


@pytest.mark.parametrize("method", METHODS)
def test_a_method_of_which_nothing_is_asked_says_so(method):
    assert method().idle == ("none" not in method.budgets)
    assert method(exclude=["*.1"]).idle == method().idle
    assert not example(method).idle
    assert not method(aftercare=["means"]).idle


@pytest.mark.parametrize(
    "asking",
    [
        QPSNN(ratios={"*": 0.5}),
        SpatioTemporal(variance=0.9),
        SpatioTemporal(timesteps=[2, 1]),
        SpatioTemporal(weights="new"),
        SpatioTemporal(learn_leaks=True),
        OBC(pattern="2:4"),
    ],
)
def test_other_options_ask_for_something_too(asking):
    assert not asking.idle


@pytest.mark.parametrize("method", METHODS)
def test_budgets_of_a_kind_that_a_method_cannot_meet_are_refused(method):
    for limit, value in (("density", 0.5), ("bits", 4), ("synops", 0.5)):
        if not any(limit in kind for kind in method.budgets):
            with pytest.raises(BudgetError, match=f"{method.__name__} (does not|has no) .*: "):
                method(**{limit: value})


@pytest.mark.parametrize(
    ("kind", "missing"), [(Compressor, "compress"), (Pruner, "prune"), (LatentTraining, "account")]
)
def test_a_method_that_leaves_its_part_out_is_told_which(kind, missing):
    class Unfinished(kind):
        pass

    arguments = [None] * (len(inspect.signature(getattr(kind, missing)).parameters) - 1)
    with pytest.raises(NotImplementedError, match=rf"Unfinished must implement {missing}\(\)"):
        getattr(Unfinished(), missing)(*arguments)
