"""The callback that every compressor is: what happens to a network in which of Lightning's hooks."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from compressors import masks
from compressors.annotations import Count
from compressors.budget import Budget, BudgetError, OptionError
from compressors.calibration.aftercare import AFTERCARE, correct_biases, output_means, reestimate_batchnorm
from compressors.calibration.augmentation import AUGMENTATIONS
from compressors.calibration.held_out import fitted
from compressors.calibration.hessians import CalibrationError
from compressors.calibration.network import Network, open_network
from compressors.calibration.reconstruction import Course, Reached, Teacher
from compressors.calibration.scales import rescale
from compressors.compression import Compression, LayerCompression
from compressors.lifecycle import CompressorError, hooks_without_super
from compressors.network.layers import Layer, left_alone, require_own_weight
from compressors.options import Configured
from compressors.progress import Note, Track, track, unnoted

Texts = str | Sequence[str]
"""A single text may stand by itself."""


@dataclass
class State:
    """What changes while a compressor is at work; its options never do.

    Args:
        compression: what was done so far; None before the first cut.
        track: shows the progress of long work.
        note: is told figures of it, step by step.
    """

    compression: Compression | None = None
    track: Track = track
    note: Note = unnoted


class Compressor(Configured):
    """A method that makes a trained network smaller: ``Trainer(callbacks=[Method(...)]).fit(module, datamodule)``.

    With ``max_epochs=0`` the method is post-training: it looks at calibration data and takes no gradient step. With
    more epochs the compressed network is fine-tuned: weights, gradients and the optimizer's memory are masked. Either
    way the module ends with plain layers and exact zeros. The calibration data are those of the datamodule's
    ``calibration_dataloader()``, or of ``calibration``.

    A compressor is a value (:class:`~compressors.options.Configured`): its options are fixed when it is made, and what
    contradicts is refused then. What changes during a fit stands in ``state``.

    Subclasses implement :meth:`compress`; their annotated attributes are their options.

    Args:
        density: share of the weights of the compressed layers to keep, in (0, 1].
        bits: width of a weight, 2 to 8; None leaves floats.
        synops: share of the dense network's synaptic operations to keep, in place of a density.
        include: shell patterns of layer names to compress.
        exclude: shell patterns of layer names to leave alone.
        aftercare: what is put right afterwards, on the calibration data and in this order, of ``batchnorm`` (statistics
            re-estimated), ``means`` (each layer's mean output brought back to the dense one; both in
            :mod:`compressors.calibration.aftercare`), ``scales`` (each channel's spikes, by a factor:
            :mod:`compressors.calibration.scales`) and ``reconstruct`` (all that is left learns to act as the dense
            network did: :mod:`compressors.calibration.reconstruction`).
        reconstruction_steps: of Adam in ``reconstruct``, at most, and a quarter more to choose between learning rates.
        augment: what makes more of the same samples in ``reconstruct``, of ``shift`` (by some pixels) and ``flip``
            (left to right): those that leave the class of such data alone.
        unlabelled: number of training samples that stand in for the calibration samples, which are among them; nobody
            looks at a label. Default: the calibration samples of the datamodule.
        calibration: a loader of ``(x, y)`` batches, for datamodules without one of their own.

    Raises:
        BudgetError: a budget out of range, or of a kind that the method cannot meet.
        OptionError: an option of an unknown value, or options that contradict each other.
        LayerError: at the start of the fit: nothing to compress, or weights that are not finite.
        CalibrationError: at the start of the fit: no calibration data.
    """

    version: ClassVar[int] = 1  # raise it when the results change: another version is another question
    versions: ClassVar[Mapping[str, int]] = {}  # option -> the version of results with another value than its default
    control: ClassVar[bool] = False  # a yardstick rather than a method of its own
    structured: ClassVar[bool] = False  # takes out whole channels: a density is met as nearly as widths allow
    reconstructs: ClassVar[bool] = False  # takes gradients towards the dense network of its own accord
    from_scratch: ClassVar[bool] = False  # made for a network that was never trained, which suites then hand it
    budgets: ClassVar[tuple[str, ...]] = ("density",)  # the kinds of budget (of KINDS) that a method can meet

    density: float = field(default=1.0, kw_only=False)
    bits: int | None = None
    synops: float | None = None
    include: Texts = ("*",)
    exclude: Texts = ()
    aftercare: Texts = ()
    reconstruction_steps: Count = 200
    augment: Texts = ()
    unlabelled: Count | None = None
    calibration: DataLoader[Any] | None = field(default=None, compare=False, repr=False)
    state: State = field(default_factory=State, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("include", "exclude", "aftercare", "augment"):
            value = getattr(self, name)
            self._set(name, (value,) if isinstance(value, str) else tuple(value))
        for option, known in (("aftercare", AFTERCARE), ("augment", AUGMENTATIONS)):
            if unknown := set(getattr(self, option)) - set(known):
                raise OptionError(f"unknown {option} {', '.join(sorted(unknown))}: known: {', '.join(known)}")
        self._check_reconstruction()
        name, budget = type(self).__name__, self.goal
        if budget.bits is not None and not any("bits" in kind for kind in self.budgets):
            raise BudgetError(f"{name} does not quantise: leave out `bits`, or take another method")
        if budget.density < 1 and not any("density" in kind for kind in self.budgets):
            raise BudgetError(f"{name} does not prune: leave out `density`, or take another method")
        if budget.synops is not None and "synops" not in self.budgets:
            raise BudgetError(f"{name} has no SynOps budget: give a density")

    @property
    def only_for_reconstruction(self) -> tuple[str, ...]:
        """Options that ask for nothing without ``reconstruct``."""
        return ("reconstruction_steps", "augment")

    def _check_reconstruction(self) -> None:
        """Refuse options of ``reconstruct`` without it."""
        given = {
            name: getattr(self, name)
            for name in self.only_for_reconstruction
            if getattr(self, name) != self.options()[name].default
        }
        if given and "reconstruct" not in self.aftercare:
            raise OptionError(f"{', '.join(given)} is for aftercare 'reconstruct': ask for that, or leave it out")

    def course(self, network: Network) -> Course:
        """How the compressed network learns, where it is reconstructed."""
        return Course(self.reconstruction_steps, tuple(self.augment))

    @classmethod
    def check_option(cls, name: str, value: Any) -> None:
        """Refuse a value that the option's annotation does not admit, or of a limit one that no budget can have.

        Raises:
            OptionError, BudgetError: name the option, the value, and what is expected.
        """
        if name in Budget.names():
            Budget(**{name: value})
        else:
            super().check_option(name, value)

    @classmethod
    def version_with(cls, options: Mapping[str, Any], aftercare: Sequence[str] = ()) -> int:
        """The version of what comes out with these options, one higher for each change of an after-care."""
        concerned = [name for name in cls.versions if name in options]
        changed = [name for name in concerned if options[name] != cls.options()[name].default]
        own = max([cls.version, *(cls.versions[name] for name in changed)])
        return own + sum(AFTERCARE[care] - 1 for care in aftercare)

    @property
    def goal(self) -> Budget:
        """What the compressed network may cost in the end."""
        return Budget(self.density, self.bits, self.synops)

    @property
    def idle(self) -> bool:
        """Whether its options ask for nothing, so that every weight would stay as it is.

        Not so of the dense control, of which nothing else is expected. Methods that know better say so.
        """
        return False

    @property
    def stage(self) -> str:
        """What the method is at, for progress displays."""
        return str(self.goal)

    @property
    def compression(self) -> Compression | None:
        """What was done to the network; None before the fit."""
        return self.state.compression

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Change the layers' weights in place and say what was done to each of them."""
        raise NotImplementedError(f"{type(self).__name__} must implement compress()")

    # Lightning's hooks, in their order -------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate and compress, unless a checkpoint restored a network that is already compressed."""
        if self.compression is None:
            self.compress_now(trainer, pl_module)

    def compress_now(self, trainer: Trainer, module: LightningModule, teacher: Teacher | None = None) -> None:
        """Calibrate and compress the network as it stands; its time is added to that of earlier rounds.

        ``teacher`` is the dense network, where that is another one.
        """
        started, reused = time.perf_counter(), self.reused_seconds()
        network = self._open(trainer, module)
        teacher = teacher or (Teacher(module) if {"scales", "reconstruct"} & {*self.aftercare} else None)
        reached = self._rehearse(trainer, module, teacher) if teacher and "reconstruct" in self.aftercare else None
        layers, care = self._compressed(network, teacher)
        stages = () if self.compression is None else self.compression.stages
        if teacher is not None and reached is not None:
            layers = teacher.repeat(reached, network, layers, self.course(network))
            stages += (reached.to_dict(),)
            care["reconstruct"] = [layer.name for layer in layers]
            layers = tuple(_on_grid(layer, module) for layer in layers)
        seconds = time.perf_counter() - started + self.reused_seconds() - reused
        earlier = 0.0 if self.compression is None else self.compression.seconds
        others = left_alone(module, network.layers, self.exclude)
        self.state.compression = Compression(layers, earlier + seconds, care, stages, others)
        masks.enforce(module, self.held_masks())
        for optimizer in trainer.optimizers:
            masks.forget(module, self.held_masks(), optimizer)

    def _open(self, trainer: Trainer, module: LightningModule) -> Network:
        """The network as it stands, with the layers to compress and the calibration data."""
        description, loader = f"{type(self).__name__}: calibration", self._loader(trainer)
        network = open_network(module, loader, self.include, self.exclude, self.state.track, description)
        return replace(network, layers=self.accepted(network.layers), note=self.state.note)

    def _rehearse(self, trainer: Trainer, module: LightningModule, teacher: Teacher) -> Reached:
        """Compress a copy by four fifths of the samples and let it learn, judged by those that nothing is fitted to."""
        stand_in = deepcopy(module)
        stand_in.trainer = trainer
        understudy = self.understudy()
        network = understudy._open(trainer, stand_in)
        layers, _ = understudy._compressed(replace(network, calibration=lambda: fitted(network.calibration())), teacher)
        return teacher.reconstruct(network, layers, self.course(network))

    def understudy(self) -> Self:
        """Itself with a state of its own: what it does to a copy of the network leaves no trace."""
        other, track = copy(self), self.state.track
        other.state = replace(self.state, track=lambda items, text: track(items, f"rehearsal: {text}"))
        for name in [name for name in vars(other) if isinstance(getattr(type(other), name, None), cached_property)]:
            delattr(other, name)
        return other

    def _compressed(
        self, network: Network, teacher: Teacher | None
    ) -> tuple[tuple[LayerCompression, ...], dict[str, list[str]]]:
        """Compress, and put right what can be without learning: what was done to each layer, and what was put right."""
        module = network.module
        dense = output_means(module, network.layers, network.calibration) if "means" in self.aftercare else {}
        layers = self.compress(network)
        care = self._care(network, _of_kept(dense, layers))
        if teacher is not None and "scales" in self.aftercare:
            care["scales"] = rescale(network, layers, teacher.module)
        return layers, care

    def accepted(self, layers: Sequence[Layer]) -> Sequence[Layer]:
        """The layers to compress, of all that the options choose: every one, and each must have a weight of its own.

        Raises:
            LayerError: the weight of one is computed anew in every pass.
        """
        for layer in layers:
            require_own_weight(layer)
        return layers

    def _loader(self, trainer: Trainer) -> Iterable[Any]:
        found = getattr(getattr(trainer, "datamodule", None), "calibration_dataloader", None)
        if self.unlabelled is not None and (self.calibration is not None or not _takes_a_number(found)):
            raise CalibrationError(
                f"unlabelled={self.unlabelled} asks the data module for so many training samples: fit with one whose "
                "calibration_dataloader takes their number, and leave out `calibration`"
            )
        if self.calibration is not None:
            return self.calibration
        if found is None:
            raise CalibrationError(
                f"{type(self).__name__} needs a calibration_dataloader(): fit with a datamodule that has one, "
                "or pass calibration=DataLoader(...) of training samples"
            )
        return found() if self.unlabelled is None else found(self.unlabelled)

    def _care(self, network: Network, dense: Mapping[str, Tensor]) -> dict[str, list[str]]:
        """Put BatchNorm statistics and output means right, where asked to: what was done, and to which modules."""
        done = {}
        if "batchnorm" in self.aftercare:
            done["batchnorm"] = reestimate_batchnorm(network.module, network.calibration)
        if "means" in self.aftercare:
            done["means"] = correct_biases(network.module, network.layers, dense, network.calibration)
        return done

    def reused_seconds(self) -> float:
        """Time that earlier runs spent on work this one took up again."""
        return 0.0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """A pruned weight has no gradient, so that it takes no part in clipping and leaves no trace in momenta."""
        masks.mask_gradients(pl_module, self.held_masks())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Momentum and weight decay move pruned weights away from zero: put them back."""
        masks.enforce(pl_module, self.held_masks())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The result holds: see :meth:`settle`."""
        self.settle(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """After the fit, whatever other callbacks wrote at its end: settle, and note how weights are stored."""
        if stage == "fit" and self.compression is not None:
            self.settle(pl_module)
            self.compression.note_storage(pl_module)

    def settle(self, module: LightningModule) -> None:
        """Pruned weights are zero, quantised ones on their grids, and the account has their codes, whoever else wrote.

        Fine-tuning moves weights off their grids; callbacks that average weights over time write at the end of a fit.
        """
        done = self.done()
        masks.enforce(module, self.held_masks())
        self.state.compression = replace(done, layers=tuple(_on_grid(layer, module) for layer in done.layers))

    # What a checkpoint keeps -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What was done, so that a resumed fit goes on with the same masks."""
        return {} if self.compression is None else self.compression.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the masks of a checkpoint."""
        if state_dict:
            self.state.compression = Compression.from_state(state_dict)

    # ------------------------------------------------------------------------------------------------------------------

    def done(self) -> Compression:
        """What was done to the network.

        Raises:
            CompressorError: nothing was; names the hooks to mend.
        """
        if self.compression is None:
            calls = [
                f"call super().{hook.partition('.')[2]}(...) in {hook}" for hook in hooks_without_super(type(self))
            ]
            remedy = " and ".join(calls) or "hand it to Trainer(callbacks=[...]) and fit"
            raise CompressorError(f"{type(self).__name__} has not compressed the network: {remedy}")
        return self.compression

    def held_masks(self) -> masks.Masks:
        """The masks that hold while the network is trained: a weight stays zero where its mask is False."""
        return self.done().masks()


def _on_grid(layer: LayerCompression, module: LightningModule) -> LayerCompression:
    """Round a quantised layer's weight to its grid again, in place; the layer's account with the codes of now."""
    if layer.grid is None:
        return layer
    weight = module.get_parameter(f"{layer.name}.weight")
    codes = layer.grid.codes(weight.detach().flatten(1)).view(layer.shape)
    layer = replace(layer, codes=codes)
    with torch.no_grad():
        weight.copy_(layer.weight())
    return layer


def _of_kept(means: Mapping[str, Tensor], layers: Iterable[LayerCompression]) -> dict[str, Tensor]:
    """Means ``[out]`` of the dense layers' outputs, of those outputs that are left."""
    kept = {layer.name: layer.outputs for layer in layers}
    return {name: mean if kept[name] is None else mean[kept[name]] for name, mean in means.items()}


def _takes_a_number(loader: Callable[..., Any] | None) -> bool:
    return loader is not None and bool(signature(loader).parameters)
