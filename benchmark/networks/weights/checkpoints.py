"""Networks as files: safetensors with a description, plain or packed, and other people's checkpoints.

Loading one executes nothing.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmark.files import replacing, sha256
from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import packed
from benchmark.networks.weights.arrays import ArrayError, note_grids, noted_grids, noted_layers
from benchmark.networks.weights.pickled import read_pickled
from benchmark.networks.weights.published import PUBLISHED, locate, require_file
from benchmark.networks.weights.releases import translated
from compressors.channels.surgery import adopt_widths
from compressors.compression import Compression
from compressors.network.leaks import adopt_leaks
from hardware.memory import WeightCoding
from hardware.storage import StoredWeights, note


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, what is known about them, and the SHA-256 of the file they came from.

    ``state`` is None where the network named by the description brings its weights with it, as a NIR file's does.
    ``described_by_us`` is true where the description is not out of the file: of a NIR file and a published checkpoint.
    ``quantised`` says how the weights of layers are stored that are packed as integers, by the layer's name.
    """

    state: Mapping[str, Tensor] | None
    description: Mapping[str, Any]
    sha256: str
    quantised: Mapping[str, StoredWeights] = field(default_factory=dict)
    described_by_us: bool = False

    @property
    def tensors_sha256(self) -> str:
        """What identifies the weights, wherever and whenever they were written: a hash of the tensors alone.

        It covers names, types, shapes and bytes, and is the same for the file's other headers.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted((self.state or {}).items()):
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def codings(self) -> dict[str, WeightCoding]:
        """Bits and scales of the packed layers, by name."""
        return {name: stored.coding for name, stored in self.quantised.items()}


@dataclass(frozen=True)
class PackedSize:
    """Bytes of a packed file by what they hold.

    Args:
        weights: codes of the weights.
        index: where they stand.
        scales: scales and zero points.
        others: biases, BatchNorms, leaks and whatever else the network has, stored plain.
        header: the names and places of all tensors, and the description.
    """

    weights: int
    index: int
    scales: int
    others: int
    header: int

    @property
    def file(self) -> int:
        """Bytes of the file."""
        return self.weights + self.index + self.scales + self.others + self.header


def save(path: Path, network: nn.Module, description: Mapping[str, Any]) -> Checkpoint:
    """Write a network's state as safetensors, the description as JSON in its header: at once or not at all.

    The description gets the ``grids`` on which quantised weights lie, where the network's layers say so.

    Raises:
        StoreError: the folder is read-only or full.
    """
    state, grids = _state(network), noted_grids(network)
    described = {**description, "grids": grids} if grids else description
    with replacing(path) as partial:
        save_file(state, partial, metadata={"snnbench": json.dumps(described, sort_keys=True)})
    return Checkpoint(state, described, sha256(path))


def save_packed(path: Path, network: nn.Module, description: Mapping[str, Any], compression: Compression) -> PackedSize:
    """Write a compressed network's state in the smallest format of each weight (see :mod:`.packed`).

    What was written is read back before it takes its name.

    Raises:
        StoreError: the folder is read-only or full.
        CheckpointError: what is read back is not the network's state, as the codes do not give its weights.
    """
    state = _state(network)
    layers = noted_layers(network)  # of which some may have been quantised before, and only pruned now
    layers |= {layer.name.removeprefix("network."): layer for layer in compression.layers if layer.grid is not None}
    content = packed.pack_state(state, {f"{name}.weight": layer for name, layer in layers.items()})
    header = {"snnbench": json.dumps(description, sort_keys=True), packed.KEY: content.contents}
    with replacing(path) as partial:
        save_file(dict(content.tensors), partial, metadata=header)
        _refuse_differences(state, load(partial), path)
        size = partial.stat().st_size
    return PackedSize(**content.sizes, header=size - sum(content.sizes.values()))


def _state(network: nn.Module) -> dict[str, Tensor]:
    # Copies, since a layer that stands under two names would share its memory, which the format refuses.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}


def _refuse_differences(state: Mapping[str, Tensor], written: Checkpoint, path: Path) -> None:
    """Equal means the same bits; a negative zero is written as zero."""
    if written.state is None:
        raise CheckpointError(f"{path} was written without weights: write the network plain (--plain)")
    for name, tensor in state.items():
        read = written.state[name]
        different = (tensor != read) & ~(tensor.isnan() & read.isnan())
        if different.any():
            raise CheckpointError(
                f"{path}: {name} has {int(different.sum())} weights that are not on the grid of its codes: "
                "write the network plain (--plain)"
            )


def load(path: Path) -> Checkpoint:
    """Read a checkpoint: ``.safetensors``, ``.nir``, or a state dict or Lightning checkpoint of ``torch.save``.

    Of what training scripts keep beside the weights, the one dictionary of tensors is found
    (:func:`benchmark.networks.weights.pickled.read_pickled`). Pickled code is never run.

    Args:
        path: the file, or a name among :data:`benchmark.networks.weights.published.PUBLISHED`.

    Raises:
        CheckpointError: no such file, or not a checkpoint.
    """
    if str(path) in PUBLISHED and not path.is_file():
        description = PUBLISHED[str(path)].description
        return replace(load(locate(str(path))), description=description, described_by_us=True)
    require_file(path)
    if path.suffix == ".nir":
        description = {"model": {"name": "nir", "path": str(path.absolute())}}
        return Checkpoint(None, description, sha256(path), described_by_us=True)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    return Checkpoint(read_pickled(path), {}, sha256(path))


def _load_safetensors(path: Path) -> Checkpoint:
    try:
        return _read_safetensors(path)
    except Exception as error:  # whatever the bytes lead the libraries to
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint that can be read safely: {reason}") from error


def _read_safetensors(path: Path) -> Checkpoint:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        header = file.metadata() or {}
    description = json.loads(header.get("snnbench", "{}"))
    if not isinstance(description, dict):
        raise ValueError("its description is no mapping")
    if packed.KEY not in header:
        return Checkpoint(tensors, description, sha256(path))
    state, quantised = packed.unpack_state(tensors, header[packed.KEY])
    return Checkpoint(state, description, sha256(path), quantised)


def restore(network: nn.Module, checkpoint: Checkpoint, source: object) -> None:
    """Load weights into a network, which takes the widths and the trained leaks of one that was compressed.

    How quantised weights are stored is noted on their layers, for whatever counts their cost.

    Raises:
        CheckpointError: names or shapes differ, or grids are damaged; names the first few of them.
    """
    if checkpoint.state is None:
        return
    network.load_state_dict(fitted(network, checkpoint.state, checkpoint.description, source))
    try:
        note_grids(network, checkpoint.description.get("grids", {}))
    except ArrayError as error:
        raise CheckpointError(f"{source} does not fit the network: {error}") from error
    for name, stored in checkpoint.quantised.items():
        if f"{name}.weight" in network.state_dict():
            note(network.get_submodule(name), stored)


def fitted(
    network: nn.Module, state: Mapping[str, Tensor], description: Mapping[str, Any], source: object
) -> dict[str, Tensor]:
    """A checkpoint's weights under a network's own names; the network takes the widths of one that was compressed.

    Only shapes and types are looked at, so that the network may be without values, on the device ``meta``.

    Raises:
        CheckpointError: names, shapes or types differ; names the first few of them, and a remedy.
    """
    if "compressed" in description:
        adopt_leaks(network, state)
        adopt_widths(network, state)
    expected = network.state_dict()
    try:
        own = translated(state, expected)
    except RuntimeError as error:  # parts that cannot be joined
        raise CheckpointError(f"{source} does not fit the network: {str(error).splitlines()[0]}") from error
    _refuse_misfits(own, expected, source)
    return own


def _refuse_misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> None:
    problems = [f"{name} is missing" for name in expected.keys() - state.keys()]
    problems += [f"{name} is not in the network" for name in state.keys() - expected.keys()]
    problems += [
        f"{name} is {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        remedy = reparametrised(state.keys() - expected.keys())
        raise _misfit(source, problems, remedy or "give the model, its options and the data set it was trained with")
    whole = [
        f"{name} is {state[name].dtype} instead of {tensor.dtype}"
        for name, tensor in expected.items()
        if tensor.is_floating_point() and not state[name].is_floating_point()
    ]
    if whole:
        raise _misfit(source, whole, "save what the network computes with, its weights as floats")


def _misfit(source: object, problems: list[str], remedy: str) -> CheckpointError:
    more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
    return CheckpointError(f"{source} does not fit the network: {'; '.join(sorted(problems)[:4])}{more}; {remedy}")


PARTS_OF_WEIGHTS = {
    ("_orig", "_mask"): ("torch.nn.utils.prune", "torch.nn.utils.prune.remove"),
    ("_g", "_v"): ("torch.nn.utils.weight_norm", "torch.nn.utils.remove_weight_norm"),
    ("_orig", "_u"): ("torch.nn.utils.spectral_norm", "torch.nn.utils.remove_spectral_norm"),
}
"""Endings of the tensors that a weight is made of -> who makes it so, and how to make it one tensor again."""


def reparametrised(names: Collection[str]) -> str | None:
    """What to do about weights that are saved as the parts they are computed from; None where there are none."""
    for name in sorted(names):
        if match := re.fullmatch(r"(.*\.)?parametrizations\.(\w+)\..*", name):
            call = f"torch.nn.utils.parametrize.remove_parametrizations(module, {match[2]!r})"
            return _before_saving((match[1] or "") + match[2], "torch.nn.utils.parametrizations", call)
        for (ending, other), (maker, remove) in PARTS_OF_WEIGHTS.items():
            whole = name.removesuffix(ending)
            if whole != name and whole + other in names:
                return _before_saving(whole, maker, f"{remove}(module, {whole.rpartition('.')[2]!r})")
    return None


def _before_saving(weight: str, maker: str, call: str) -> str:
    return f"{weight} is saved as the parts that {maker} computes it from: call {call} on its module before saving"
