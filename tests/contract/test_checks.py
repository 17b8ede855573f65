"""The checks of the contract find faults: each method here breaks one rule, and is told which and what to do."""

import json
import re
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from benchmark.cli import main
from benchmark.contract import checks
from benchmark.contract.subject import Method, RandomEvents, classifier, fit
from benchmark.single_network.comparison import compress
from compressors import Identity, LayerCompression, Magnitude, Pruner, largest
from compressors.lifecycle import CompressorError, hooks_without_super


class Sound(Pruner):
    """Keeps the largest weights, as an author of a package would write it."""

    def prune(self, layer, keep, statistics):
        """The largest."""
        mask = largest(layer.rows.abs(), keep)
        return layer.rows * mask, mask, None


class ForgetsStart(Sound):
    """Does something of its own when the fit starts."""

    def on_fit_start(self, trainer, pl_module):
        self.seen = True


class ForgetsBatch(Sound):
    """Does something of its own after each batch, and before each step."""

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.seen = True

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen = False


class CallsSuper(Sound):
    """Does something of its own after each batch, and lets the base class do its part."""

    def on_train_batch_end(self, trainer, pl_module, *args):
        super().on_train_batch_end(trainer, pl_module, *args)
        self.seen = True


class ForgetsState(Sound):
    """Keeps the smallest weights, others each time, and saves nothing."""

    def prune(self, layer, keep, statistics):
        mask = largest(-layer.rows.abs(), keep)
        return layer.rows * mask, mask, None

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        self.seen = True


class Greedy(Sound):
    """Keeps a tenth more than it was given."""

    def prune(self, layer, keep, statistics):
        return super().prune(layer, min(layer.rows.numel(), keep + layer.rows.numel() // 10), statistics)


class Untrue(Identity):
    """Says that weights are gone which are there."""

    budgets = ("density",)

    def compress(self, network):
        return tuple(
            LayerCompression(entry.name, entry.shape, torch.arange(entry.mask.numel()).view(entry.shape) % 2 == 0)
            for entry in super().compress(network)
        )


class Careless(Sound):
    """Draws its weights anew each time."""

    def prune(self, layer, keep, statistics):
        generator = torch.Generator()
        generator.seed()
        mask = largest(torch.rand(layer.rows.shape, generator=generator), keep)
        return layer.rows * mask, mask, None


class Curious(Sound):
    """Looks at the test samples."""

    def calibrate(self, network):
        list(network.module.trainer.datamodule.test_dataloader())
        return super().calibrate(network)


class Hooked(Sound):
    """Leaves a hook behind."""

    def compress(self, network):
        network.layers[0].module.register_forward_hook(lambda *_: None)
        return super().compress(network)


class Numbered(Sound):
    """Puts a tensor into its account."""

    def compress(self, network):
        layers = super().compress(network)
        return tuple(replace(layer, loss=torch.tensor(1.0)) for layer in layers)


class Undocumented(Sound):
    weird: torch.dtype = torch.float32


FAULTS = [
    (ForgetsStart, "calls_super", r"call super\(\)\.on_fit_start\(\.\.\.\) in ForgetsStart\.on_fit_start"),
    (ForgetsStart, "leaves_an_account", r"has not compressed the network: call super\(\)\.on_fit_start"),
    (ForgetsBatch, "calls_super", r"call super\(\)\.on_train_batch_end\(\.\.\.\) in ForgetsBatch"),
    (ForgetsBatch, "masks_hold_in_fine_tuning", "pruned weights are not zero in fine-tuning"),
    (ForgetsState, "a_resumed_fit_goes_on", r"put what it needs into state_dict\(\)"),
    (Greedy, "meets_its_budget", "at density 0.5 it keeps [0-9]+ of 564 weights instead of 279 to 285"),
    (Untrue, "meets_its_budget", "weights of|it keeps|not zero"),
    (Careless, "same_seed_same_bits", "two fits gave different weights"),
    (Curious, "calibrates_on_training_data", "it looked at the test samples"),
    (Hooked, "plain_layers_remain", "a forward hook is left in the network: take it off again"),
    (Numbered, "leaves_an_account", "the account cannot stand in a record: .*Tensor"),
    (Undocumented, "documented", "no docstring"),
    (Undocumented, "options_for_records", "the value of option 'weird' is no JSON"),
]


@pytest.mark.parametrize(("method", "name", "message"), FAULTS, ids=[f"{m.__name__}-{n}" for m, n, _ in FAULTS])
def test_a_fault_is_found_and_named(method, name, message):
    (check,) = [check for check in checks.CHECKS if check.name == name]
    with pytest.raises((checks.ContractError, CompressorError), match=message):
        check.run(Method(method))
    check.run(Method(Sound))


def test_the_hook_that_forgets_super_is_named_wherever_it_shows():
    assert hooks_without_super(Sound) == []
    assert hooks_without_super(CallsSuper) == []
    assert hooks_without_super(Magnitude) == []
    assert hooks_without_super(ForgetsState) == ["ForgetsState.state_dict", "ForgetsState.load_state_dict"]
    for fitted in (lambda: fit(ForgetsStart(0.5)), lambda: compress(classifier(), RandomEvents(), ForgetsStart(0.5))):
        with pytest.raises(
            CompressorError, match=r"ForgetsStart has not compressed .* in ForgetsStart\.on_fit_start"
        ) as e:
            fitted()
        assert e.value.exit_status == 1


def test_every_check_has_a_name_and_a_sentence():
    assert len({check.name for check in checks.CHECKS}) == len(checks.CHECKS)
    assert all(20 < len(check.sentence) < 110 and "\n" not in check.sentence for check in checks.CHECKS)
    assert len(checks.checks_of(Sound)) >= 20
    assert "meets_its_budget" not in [check.name for check in checks.checks_of(Identity)]


AUTHORS = '''
"""Methods of an author."""
from compressors import Pruner, largest


class Mine(Pruner):
    """Keeps the largest weights of each layer.

    Args:
        strength: nothing.
    """

    def __init__(self, density=1.0, *, strength=1, **pruning):
        super().__init__(density, **pruning)
        self.strength = strength

    def prune(self, layer, keep, statistics):
        mask = largest(layer.rows.abs() * self.strength, keep)
        return layer.rows * mask, mask, None


class Broken(Mine):
    """Keeps the largest weights, and forgets something."""

    def on_fit_start(self, trainer, pl_module):
        pass


def helper():
    pass
'''


@pytest.fixture
def snnbench(tmp_path, monkeypatch):
    (tmp_path / "authors_methods.py").write_text(AUTHORS)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["check", *words])


def test_the_command_checks_a_method_by_its_module(snnbench):
    done = snnbench("authors_methods:Mine", "-o", "strength=2", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found) == len(checks.checks_of(Sound))
    assert all(finding["passed"] for finding in found)


def test_the_command_fails_with_a_table_that_says_what_to_mend(snnbench):
    done = snnbench("authors_methods:Broken")
    assert done.exit_code == 1
    text = " ".join(done.stdout.replace("│", " ").split())
    assert "authors_methods:Broken: " in text
    assert "call super().on_fit_start(...) in Broken.on_fit_start" in text
    assert "fail" in text
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["authors_methods:helper"], "authors_methods:helper is of type function, but must be a class derived from"),
        (["benchmark.records:RunRecord"], "is the class RunRecord, but must be a class derived from compressors.base"),
        (["authors_methods:Yours"], "authors_methods:Yours cannot be loaded .*mend the module or its name"),
        (["magnitud"], "did you mean 'magnitude'"),
        (["authors_methods:Mine", "-o", "strenght=2"], "has no option 'strenght': did you mean 'strength'"),
        (["authors_methods:Mine", "-o", "density=0.2"], "has no option 'density'"),
    ],
)
def test_what_cannot_be_checked_is_a_mistake_in_the_call(snnbench, words, message):
    done = snnbench(*words)
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1

    assert re.search(message, done.stderr), done.stderr
