"""The checks, each a function of a method that raises :class:`ContractError` where the method breaks the contract."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from benchmark.contract.subject import QUIET, Method, RandomEvents, classifier, fit, weights
from benchmark.networks.classifier import SNNClassifier
from compressors.base import Compressor
from compressors.budget import EXAMPLES, BudgetError
from compressors.calibration.hessians import CalibrationError
from compressors.compression import Compression
from compressors.lifecycle import hooks_without_super
from compressors.network.layers import LayerError

LAYERS = ["network.0", "network.5", "network.7"]


class ContractError(AssertionError):
    """What a method does, and what the contract wants instead."""


def require(condition: object, message: str) -> None:
    """Raise the message unless the condition holds."""
    if not condition:
        raise ContractError(message)


@contextmanager
def refused(error: type[Exception], words: str, what: str) -> Iterator[None]:
    """Require that what happens inside is refused by this error, whose message has these words."""
    try:
        yield
    except error as raised:
        require(words in str(raised), f"{what} is refused with {str(raised)!r}, which does not say {words!r}")
    else:
        raise ContractError(f"{what} is not refused: raise {error.__name__}")


def account(compressor: Compressor) -> Compression:
    """What a compressor says it did."""
    if compressor.compression is None:
        raise ContractError("there is no account after the fit: `compression` is None")
    return compressor.compression


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states are the same to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# The checks ----------------------------------------------------------------------------------------------------------


def documented(method: Method) -> None:
    """its docstring begins with a sentence, and its options take in those of every compressor"""
    target = method.target
    sentence = (target.__doc__ or "").partition("\n")[0]  # dataclasses write a signature where there is none
    own = len(sentence) > 20 and not sentence.startswith(f"{target.__name__}(")
    require(own, "the class has no docstring of a sentence")
    require(isinstance(target.version, int), f"version is {target.version!r}: give a whole number")
    missing = {"include", "exclude", "calibration"} - set(target.options())
    require(not missing, f"the constructor does not take {', '.join(sorted(missing))}: pass **base on to super()")


def options_for_records(method: Method) -> None:
    """its options can stand in a record: their values are JSON"""
    for name, value in method.make().options_to_dict().items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ContractError(f"the value of option {name!r} is no JSON ({error})") from error


def calls_super(method: Method) -> None:
    """the hooks it overrides call super()"""
    forgotten = hooks_without_super(method.target)
    if method.target.__module__.startswith("compressors."):
        return
    calls = [f"call super().{hook.partition('.')[2]}(...) in {hook}" for hook in forgotten]
    require(not forgotten, f"what the base class does there is left out: {', '.join(calls)}")


def leaves_an_account(method: Method) -> None:
    """it names the layers in order of execution, and its account is JSON"""
    compressor = method.make()
    fit(compressor)
    done = account(compressor)
    names = [entry.name for entry in done.layers]
    require(names == LAYERS, f"the account has the layers {names} instead of {LAYERS}")
    try:
        json.dumps(done.to_dict())
    except TypeError as error:
        raise ContractError(f"the account cannot stand in a record: {error}") from error


def meets_its_budget(method: Method) -> None:
    """it meets densities of 1, 0.5 and 0.1, with exact zeros where its account says so"""
    for density in (1.0, 0.5, 0.1):
        compressor = method.make(density)
        module = fit(compressor)
        _keeps(account(compressor), density, compressor.structured)
        for entry in account(compressor).layers:
            _is_as_told(entry, module.get_parameter(f"{entry.name}.weight"))


def _keeps(done: Compression, density: float, structured: bool) -> None:
    total, kept = sum(entry.weights for entry in done.layers), sum(entry.kept for entry in done.layers)
    require(total == 6 * 18 + 8 * 54 + 3 * 8, f"the account has {total} weights of 564")
    channel = 18 + 8 * 9  # the largest that can go at once
    room = (channel, 0) if structured else (len(done.layers), len(done.layers))
    low, high = density * total - room[0], density * total + room[1]
    wanted = f"{low:.0f} to {high:.0f}"
    require(low <= kept <= high, f"at density {density} it keeps {kept} of {total} weights instead of {wanted}")


def _is_as_told(entry: Any, weight: Tensor) -> None:
    shapes = {tuple(weight.shape), tuple(entry.mask.shape), tuple(entry.shape)}
    require(len(shapes) == 1, f"{entry.name}: weight, mask and account have the shapes {sorted(shapes)}")
    require(not weight[~entry.mask].any(), f"{entry.name}: weights that the mask says are pruned are not zero")
    require(torch.isfinite(weight).all(), f"{entry.name}: weights are NaN or infinite")


def full_density_changes_nothing(method: Method) -> None:
    """at a density of 1 it changes nothing"""
    module = classifier()
    before = weights(module)
    fit(method.make(1.0), module)
    for name, value in weights(module).items():
        require(torch.allclose(value, before[name], rtol=1e-5, atol=1e-6), f"{name} is changed")


def quantised_weights_lie_on_their_grid(method: Method) -> None:
    """weights of few bits lie on their grid, fine-tuned or not, and codes and scales give them to the bit"""
    kinds = [kind for kind in method.target.budgets if "bits" in kind]
    known = method.target.options()
    choices: dict[str, tuple[Any, ...]] = {"per": ("channel", "tensor"), "symmetric": (True, False)}
    settings = {name: values for name, values in choices.items() if name in known and name not in method.options}
    for kind, epochs, *values in product(kinds, (0, 1), *settings.values()):
        options = dict(zip(settings, values, strict=True))
        compressor = method.make(**{"density": 1.0, **EXAMPLES[kind], **options})
        module = fit(compressor, epochs=epochs)
        for entry in account(compressor).layers:
            _is_on_its_grid(entry, module.get_parameter(f"{entry.name}.weight").detach(), EXAMPLES[kind]["bits"])
        wanted = EXAMPLES[kind].get("density", 1.0)
        density = account(compressor).density
        require(abs(density - wanted) < 0.02, f"with {kind} it keeps {density:.3f} of the weights, not {wanted}")


def _is_on_its_grid(entry: Any, weight: Tensor, bits: int) -> None:
    require(entry.grid is not None, f"{entry.name}: the account has no grid")
    require(entry.codes is not None, f"{entry.name}: the account has no codes")
    require(torch.equal(entry.weight(), weight), f"{entry.name}: codes and scales do not give the weights to the bit")
    require(not weight[~entry.mask].any(), f"{entry.name}: pruned weights are not zero")
    steps = weight.flatten(1) / entry.grid.scale + entry.grid.zero
    require(torch.allclose(steps, steps.round(), rtol=0, atol=1e-3), f"{entry.name}: weights lie beside the grid")
    require(int(entry.codes.max()) < 2**bits, f"{entry.name}: codes of more than {bits} bits")
    require(entry.coding().bits == bits, f"{entry.name}: {entry.coding().bits} bits instead of {bits}")


def same_seed_same_bits(method: Method) -> None:
    """the same seed gives the same bits"""
    require(same(weights(fit(method.make())), weights(fit(method.make()))), "two fits gave different weights")


def plain_layers_remain(method: Method) -> None:
    """the network keeps its classes, parameters and names, and no hook is left in it"""
    module = classifier()
    kinds, parameters = [type(m) for m in module.modules()], [id(p) for p in module.parameters()]
    names = list(module.state_dict())
    fit(method.make(), module)
    require([type(m) for m in module.modules()] == kinds, "classes of modules have changed")
    require([id(p) for p in module.parameters()] == parameters, "parameters were replaced: change their data in place")
    require(list(module.state_dict()) == names, "names in the state dict have changed")
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    require(not hooks, "a forward hook is left in the network: take it off again")
    require(all(p.requires_grad for p in module.parameters()), "a parameter cannot be trained any more")


class _Masks(Callback):
    """Looks at the pruned weights at the start of each batch, before the network computes with them."""

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Refuse pruned weights that are not zero."""
        for name, mask in account(self.compressor).masks().items():
            lost = int(pl_module.get_parameter(f"{name}.weight")[~mask].count_nonzero())
            require(not lost, f"{name}: {lost} pruned weights are not zero in fine-tuning")


def masks_hold_in_fine_tuning(method: Method) -> None:
    """pruned weights stay zero in fine-tuning, with momentum and weight decay"""
    module, compressor = classifier(), method.make()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), **settings)  # type: ignore
    untrained = weights(fit(method.make()))
    fit(compressor, module, 3, callbacks=[_Masks(compressor)])
    require(not same(weights(module), untrained), "nothing was trained: a hook keeps the optimizer from its work")
    for name, mask in account(compressor).masks().items():
        lost = int(module.get_parameter(f"{name}.weight")[~mask].count_nonzero())
        require(not lost, f"{name}: {lost} pruned weights are not zero after three epochs")


def a_resumed_fit_goes_on(method: Method) -> None:
    """a fit resumed from a checkpoint gives the bits of an uninterrupted one"""
    with TemporaryDirectory() as folder:
        kept = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        uninterrupted, whole = method.make(), classifier()
        settings = QUIET | {"enable_checkpointing": True}
        Trainer(max_epochs=2, callbacks=[uninterrupted, kept], **settings).fit(whole, datamodule=RandomEvents())
        resumed, compressor = classifier(seed=5), method.make()
        checkpoint = Path(folder, "epoch=0.ckpt")
        Trainer(max_epochs=2, callbacks=[compressor], **QUIET).fit(
            resumed, datamodule=RandomEvents(), ckpt_path=checkpoint, weights_only=True
        )
    remedy = "put what it needs into state_dict() and take it up in load_state_dict()"
    require(same(weights(whole), weights(resumed)), f"the weights differ: {remedy}")
    layers = [account(done).to_dict()["layers"] for done in (compressor, uninterrupted)]
    require(layers[0] == layers[1], f"the accounts differ: {remedy}")


class _Guarded(RandomEvents):
    """Random events whose test part nobody may look at."""

    def test_dataloader(self) -> Any:
        raise ContractError("it looked at the test samples")

    predict_dataloader = test_dataloader


def calibrates_on_training_data(method: Method) -> None:
    """it never looks at the test samples"""
    fit(method.make(), data=_Guarded())
    fit(method.make(), data=_Guarded(), epochs=1)


def patterns_leave_layers_alone(method: Method) -> None:
    """an excluded layer keeps its weights, and is not in the account"""
    module, compressor = classifier(), method.make(exclude=["network.0"])
    before = weights(module)["0.weight"]
    fit(compressor, module)
    names = [entry.name for entry in account(compressor).layers]
    require(names == LAYERS[1:], f"without network.0 the account has {names}")
    require(torch.equal(weights(module)["0.weight"], before), "network.0 is excluded, and was changed")


def names_what_it_leaves_alone(method: Method) -> None:
    """layers of a kind that nobody handles are left alone and named"""
    module, compressor = classifier(), method.make()
    other = layer.ConvTranspose2d(2, 2, 3, padding=1, step_mode="m")
    module.network = nn.Sequential(other, *_parts(module))
    before = other.weight.detach().clone()
    fit(compressor, module)
    named = list(account(compressor).left_alone)
    require(named == ["network.0 (ConvTranspose2d)"], f"left_alone is {named} instead of network.0 (ConvTranspose2d)")
    require(torch.equal(other.weight, before), "a transposed convolution was changed")


def _parts(module: SNNClassifier) -> list[nn.Module]:
    return list(module.network.children())


def aftercare_is_done(method: Method) -> None:
    """after-care changes what it is for, and stands in the account"""
    compressor, plain = method.make(aftercare=("means", "batchnorm")), method.make()
    cared, uncared = weights(fit(compressor)), weights(fit(plain))
    done = {care: names for care, names in account(compressor).aftercare.items() if care != "reconstruct"}
    expected = {"batchnorm": ["network.1"], "means": ["network.0", "network.7"]}
    require(done == expected, f"the account of the after-care is {done} instead of {expected}")
    require(not torch.equal(cared["1.running_var"], uncared["1.running_var"]), "BatchNorm was not re-estimated")
    same = torch.equal(cared["0.weight"], uncared["0.weight"])
    require(same or compressor.reconstructs, "after-care changed weights")


class _Branching(nn.Module):
    """A layer that runs for some inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.early = network, layer.Conv2d(2, 2, 1, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.early(x) if x.any() else x)


def branches_are_refused(method: Method) -> None:
    """a network that branches on values is refused before anything changes"""
    module = classifier()
    module.network = _Branching(module.network)
    before = weights(module)
    with refused(LayerError, "whether network.early runs depends on the data", "a branch on values"):
        fit(method.make(), module)
    require(same(weights(module), before), "the network was changed all the same")


def bad_weights_are_refused(method: Method) -> None:
    """weights that are NaN are refused, and the network is left alone"""
    module = classifier()
    module.get_parameter("network.5.weight").data.fill_(math.nan)
    _refuses(method, module, RandomEvents(), LayerError, "'network.5' has NaN")


def bad_samples_are_refused(method: Method) -> None:
    """calibration samples that are infinite are refused, and the network is left alone"""
    _refuses(method, classifier(), RandomEvents(value=math.inf), CalibrationError, "NaN or infinite")


class _Uncalibrated(RandomEvents):
    """No calibration samples."""

    def calibration_dataloader(self) -> Any:
        return []


def missing_samples_are_refused(method: Method) -> None:
    """an empty calibration set is refused, and the network is left alone"""
    _refuses(method, classifier(), _Uncalibrated(), CalibrationError, "empty")


def _refuses(method: Method, module: SNNClassifier, data: RandomEvents, error: type[Exception], words: str) -> None:
    before = {name: value.nan_to_num(nan=9.0) for name, value in weights(module).items()}
    with refused(error, words, words):
        fit(method.make(), module, data=data)
    after = {name: value.nan_to_num(nan=9.0) for name, value in weights(module).items()}
    require(same(before, after), "the network was changed all the same")
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    require(not hooks, "a forward hook is left in the network after an error")


def unknown_patterns_are_refused(method: Method) -> None:
    """a pattern without a match is refused, and the layers are named"""
    with refused(LayerError, "'conv1' matches no layer", "the pattern 'conv1'"):
        fit(method.make(include=["conv1"]))


def calibration_can_be_given(method: Method) -> None:
    """data without a calibration part are refused with the remedy, and the remedy works"""
    loader = RandomEvents().train_dataloader()

    def fit_without(compressor: Compressor) -> None:
        Trainer(max_epochs=0, callbacks=[compressor], **QUIET).fit(classifier(), train_dataloaders=loader)

    with refused(CalibrationError, "calibration=DataLoader", "a fit without calibration data"):
        fit_without(method.make())
    fit_without(method.make(calibration=loader))


def bad_densities_are_refused(method: Method) -> None:
    """densities outside (0, 1] are refused where the method is made"""
    density: Any
    for density in (0, -0.1, 1.5, math.nan, math.inf, "half"):
        with refused(BudgetError, "above 0 and at most 1", f"a density of {density!r}"):
            method.make(density)


# ---------------------------------------------------------------------------------------------------------------------


def _with_density(target: type[Compressor]) -> bool:
    return "density" in target.budgets


def _with_grids(target: type[Compressor]) -> bool:
    return any("bits" in kind for kind in target.budgets) and not target.structured  # whose grids are their own


def _without_compulsory_bits(target: type[Compressor]) -> bool:
    return "bits" not in target.budgets[0]


def _always(target: type[Compressor]) -> bool:
    return True


@dataclass(frozen=True)
class Check:
    """A check, and which methods it is for."""

    run: Callable[[Method], None]
    applies: Callable[[type[Compressor]], bool] = _always

    @property
    def name(self) -> str:
        """For programs."""
        return self.run.__name__

    @property
    def sentence(self) -> str:
        """What holds of a method that passes, in one line."""
        return (self.run.__doc__ or "").strip()


CHECKS = (
    Check(documented),
    Check(options_for_records),
    Check(calls_super),
    Check(leaves_an_account),
    Check(meets_its_budget, _with_density),
    Check(full_density_changes_nothing, _without_compulsory_bits),
    Check(quantised_weights_lie_on_their_grid, _with_grids),
    Check(same_seed_same_bits),
    Check(plain_layers_remain),
    Check(masks_hold_in_fine_tuning),
    Check(a_resumed_fit_goes_on),
    Check(calibrates_on_training_data),
    Check(patterns_leave_layers_alone),
    Check(names_what_it_leaves_alone),
    Check(aftercare_is_done),
    Check(branches_are_refused),
    Check(bad_weights_are_refused),
    Check(bad_samples_are_refused),
    Check(missing_samples_are_refused),
    Check(unknown_patterns_are_refused),
    Check(calibration_can_be_given),
    Check(bad_densities_are_refused, _with_density),
)


def checks_of(target: type[Compressor]) -> tuple[Check, ...]:
    """The checks that are for a method."""
    return tuple(check for check in CHECKS if check.applies(target))
