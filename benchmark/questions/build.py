"""From names and options in a question to objects, with errors in the user's words."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from torch import nn
from torch.nn.parameter import is_lazy

from benchmark.catalog import DATA, MODELS
from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.inference.multistep import multistep
from benchmark.networks.losses import LOSSES
from benchmark.networks.outline import outlined
from benchmark.networks.weights import checkpoints
from benchmark.networks.weights.checkpoints import Checkpoint
from benchmark.questions.builders import check_builder
from benchmark.questions.suite import BUDGET_KEYS, Data, Model, Named, NamedNetwork, Question, Suite, Training
from compressors.annotations import Admitted, shown
from compressors.base import Compressor
from compressors.budget import Budget, OptionError
from compressors.registry import COMPRESSORS, OWN, parameters_of, suggestion
from datamodules.base import BenchmarkDataModule

GIVEN_TO_DATA = {"batch_size", "calibration_samples", "calibration_seed", "num_workers", "root", "seed"}
GIVEN_TO_COMPRESSORS = {"density", "bits", "synops", "aftercare", "calibration", "cache"}
GIVEN_TO_MODELS = {"input_shape", "classes"}


Valid = TypeVar("Valid", bound=BaseModel)


def check_options(kind: str, named: Named, target: Any, reserved: set[str]) -> None:
    """Refuse options that ``target`` does not take, and values that their annotations do not admit.

    Raises:
        OptionError: names the option and the nearest known one, or the value and what is expected.
    """
    parameters = parameters_of(target)
    known = parameters.keys() - reserved
    for option, value in named.options.items():
        if option not in known:
            hint = suggestion(option, known) if known else "it has no options"
            raise OptionError(f"the {kind} {named.name!r} has no option {option!r}: {hint}")
        admitted = Admitted(parameters[option].annotation)
        if not admitted.admits(value):
            raise OptionError(f"the {kind} {named.name}: {option} is {shown(value)}: give {admitted.words}")


_REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What builders of networks and data, SpikingJelly's among them, raise at options that they cannot use."""


def _make(kind: str, named: Named, target: Any, reserved: set[str], **arguments: Any) -> Any:
    check_options(kind, named, target, reserved)
    try:
        return target(**arguments, **named.options)
    except _REFUSALS as error:
        raise OptionError(f"the {kind} {named.label}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def validated(kind: str, schema: type[Valid], content: Any) -> Valid:
    """A name with options, or a training, as its schema has it.

    Raises:
        OptionError: it is none; names the key and what is wrong with it.
    """
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise OptionError(f"the {kind}'s {place}: {reason}" if place else f"the {kind}: {reason}") from None


def datamodule(
    data: Data, *, batch_size: int, calibration_samples: int, seed: int, root: Path | None = None
) -> BenchmarkDataModule:
    """The data set of a question. ``seed`` also seeds the draw of the calibration samples."""
    arguments: dict[str, Any] = {
        "root": root,
        "timesteps": data.timesteps,
        "batch_size": batch_size,
        "calibration_samples": calibration_samples,
        "calibration_seed": seed,
        "seed": seed,
    }
    return _make("data set", data, data.found_in(DATA).load(), GIVEN_TO_DATA, **arguments)


def network(model: Named, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network of the zoo or of a user's own, newly initialised, with the time steps kept between all layers.

    That of a NIR file has its weights.

    Raises:
        BuilderError: its builder takes something else.
        OptionError: its builder refuses its options, or makes no module, or weights without entries.
    """
    builder, arguments = builder_of(model), {"input_shape": input_shape, "classes": classes}
    if model.name == "nir" and isinstance(model, NamedNetwork) and model.weights is not None:
        arguments["path"] = str(model.weights)
    made = _make("model", model, builder, GIVEN_TO_MODELS, **arguments)
    if not isinstance(made, nn.Module):
        raise OptionError(f"the model {model.label}: its builder returns a {type(made).__name__}: return a nn.Module")
    made = multistep(made)
    for name, parameter in made.named_parameters():
        if not is_lazy(parameter) and not parameter.numel():
            raise OptionError(f"the model {model.label}: its {name} has no entries, of shape {list(parameter.shape)}")
    return made


def builder_of(model: Named) -> Callable[..., Any]:
    """The function that builds a network of the zoo or of a user's own; the latter is looked at before it is called.

    Raises:
        BuilderError: it takes something else than builders are given.
    """
    entry = model.found_in(MODELS)
    builder = entry.load()
    if entry.origin != OWN and (inspect.isfunction(builder) or inspect.isclass(builder)):
        check_builder(model.name, inspect.signature(builder), model.options)
    return builder


def outline(
    model: Named, input_shape: tuple[int, int, int], classes: int, most_parameters: int | None = None
) -> nn.Module:
    """The network without its values, for which hardly any memory or time is spent (:mod:`benchmark.networks.outline`).

    Raises:
        OptionError: as of :func:`network`; it has more parameters; or its builder needs values.
    """
    with outlined(most_parameters):
        return network(model, input_shape, classes)


def check_training(training: Training) -> None:
    """Refuse names in a training that nothing is known under.

    Raises:
        OptionError: names the nearest known one.
    """
    if training.loss not in LOSSES:
        raise OptionError(f"unknown loss {training.loss!r}: {suggestion(training.loss, LOSSES)}")


def classifier(net: nn.Module, data: BenchmarkDataModule, training: Training) -> SNNClassifier:
    """The LightningModule around a network for a data set."""
    check_training(training)
    return SNNClassifier(
        net,
        classes=data.num_classes,
        timesteps=data.timesteps,
        **training.of_classifier,
    )


def compressor(
    named: Named, budget: Budget, seed: int, cache: Path | None = None, aftercare: Sequence[str] = ()
) -> Compressor:
    """A compressor with its budget. ``seed`` and ``cache`` go to those that take them."""
    target = named.found_in(COMPRESSORS).load()
    offered: Mapping[str, Any] = {"seed": seed, "cache": cache}
    taken = {name: value for name, value in offered.items() if name in target.options() and name not in named.options}
    taken |= budget.limits
    if aftercare:
        taken["aftercare"] = tuple(aftercare)
    return _make("compressor", named, target, GIVEN_TO_COMPRESSORS, **taken)


def check_suite(suite: Suite, load: Callable[[Path], Checkpoint] = checkpoints.load) -> None:
    """Build everything a suite names, networks without their values and no data: mistakes are found before any work.

    Args:
        suite: what is asked.
        load: reads the checkpoints that its networks come with.

    Raises:
        UnknownName: a name that nothing is registered under.
        OptionError: an option that does not exist, or a value that is refused.
        CheckpointError: a checkpoint that cannot be read, or does not fit its network.
    """
    check_training(suite.training)
    sets = [_unopened(data, suite) for data in suite.data]
    for model in suite.models:
        _check_model(model, [named.name for named in suite.compressors])
        weights = None if model.weights is None else load(model.weights)
        for data in sets:
            _check_network(model, data, weights)
    kinds, budgets = kinds_of(suite), suite.budgets()
    for named in suite.compressors:
        met = [budget for kind in kinds[named.name] for budget in budgets[kind]]
        if not met:
            wanted = " or ".join(BUDGET_KEYS[kind] for kind in kinds[named.name])
            raise OptionError(f"the compressor {named.name!r} meets none of the suite's budgets: give {wanted}")
        for budget in met:
            compressor(named, budget, suite.seeds[0], aftercare=suite.aftercare)


def _unopened(data: Data, suite: Suite) -> BenchmarkDataModule:
    """A suite's data set, which opens no files until it is set up."""
    samples = suite.calibration_samples[0]
    return datamodule(
        data, batch_size=suite.training.batch_size, calibration_samples=samples, seed=suite.seeds[0], root=Path()
    )


def _check_network(model: Model, data: BenchmarkDataModule, weights: Checkpoint | None) -> None:
    try:
        made = outline(model, data.input_shape, data.num_classes)
    except OptionError:
        made = network(model, data.input_shape, data.num_classes)  # whose builder may need values
    if weights is not None and weights.state is not None:
        checkpoints.fitted(made, weights.state, weights.description, model.weights)


def _check_model(model: Model, compressors: Sequence[str]) -> None:
    check_options("model", model, builder_of(model), GIVEN_TO_MODELS)
    for name in model.compressors or ():
        if name not in compressors:
            raise OptionError(
                f"the model {model.name!r} asks for the compressor {name!r}, which the suite does not have: "
                f"{suggestion(name, compressors)}"
            )


def kinds_of(suite: Suite) -> dict[str, Sequence[str]]:
    """Compressor name -> the kinds of budget it meets, of the suite's compressors."""
    return {named.name: named.found_in(COMPRESSORS).load().budgets for named in suite.compressors}


def beginners_of(suite: Suite) -> set[str]:
    """The names of a suite's compressors that train from scratch."""
    return {named.name for named in suite.compressors if named.found_in(COMPRESSORS).load().from_scratch}


def questions_of(suite: Suite) -> list[Question]:
    """All runs of a suite."""
    return list(suite.questions(kinds_of(suite), beginners_of(suite)))
