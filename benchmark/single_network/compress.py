"""What ``snnbench compress`` does: one network of a user's own, one compressor, before and after."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from rich.table import Table

from benchmark.files import OutputError, require_writable, write_atomically
from benchmark.networks.fixed_point.network import FixedNetwork
from benchmark.networks.fixed_point.reading import read
from benchmark.networks.fixed_point.scheme import FixedPoint
from benchmark.networks.nir.reading import stated_reset
from benchmark.networks.nir.writing import to_nir, write_nir
from benchmark.networks.weights import checkpoints
from benchmark.questions import build
from benchmark.questions.suite import Named
from benchmark.runs.distributed import Devices
from benchmark.runs.run import Measured
from benchmark.single_network.comparison import Result, compress, notes_on, table
from benchmark.single_network.compression_map import write_map
from benchmark.single_network.fixed import Fixed, for_a_file, in_whole_numbers
from benchmark.single_network.subject import Source, Subject, open_subject
from benchmark.wording import percent, points
from compressors.base import Compressor
from compressors.budget import Budget, BudgetError
from datamodules.storage import cache_folder


def compress_checkpoint(
    source: Source,
    method: dict[str, Any],
    budget: Budget,
    output: Path,
    aftercare: Sequence[str] = (),
    devices: Devices | None = None,
    plain: bool = False,
    scheme: FixedPoint | None = None,
    also: Sequence[Path] = (),
) -> dict[str, Any]:
    """Compress, test before and after, write the network, and beside it a summary and a map of what was done (JSON).

    Args:
        source: the dense network and its data.
        method: the compressor's name and options.
        budget: what the compressed network may cost.
        output: the file of the compressed network: NIR if its name ends so, else packed safetensors.
        aftercare: see :class:`compressors.base.Compressor`.
        devices: what to work on; by default a single one.
        plain: write the safetensors unpacked, every weight as a float.
        scheme: make whole numbers of the compressed network, of these widths, test these, and write what they stand
            for; the map holds them.
        also: further files of the same network: NIR beside safetensors, say.

    Returns:
        A JSON-able summary: ``dense`` and ``compressed`` (accuracy and costs), ``compression`` (layer by layer),
        ``output``, ``bytes``: those of a packed file, by what they hold; ``also``: other files and their bytes;
        ``reset``: how the neurons of a NIR file's network were taken to be reset; ``floats`` (the figures before whole
        numbers were made, if they were) and ``fixed_point``: their widths and units, and what became of each neuron's
        spikes.

    Raises:
        OutputError, StoreError: the network cannot be written under this name; found before the work.
        BudgetError, OptionError, CheckpointError, DataMissing, CalibrationTooLarge, CalibrationError, LayerError,
            NIRError, FixedPointError: see there.
    """
    named = build.validated("compressor", Named, method)
    compressor = build.compressor(named, budget, source.seed, cache_folder() / "eliminations", aftercare)
    subject = open_for(source, (output, *also))
    if scheme is None:
        _refuse_idle(compressor, named.name)
    else:
        read(subject.module().network)  # what has no form in whole numbers is found before the work
    result = compress(subject.module(), subject.data, compressor, seed=source.seed, devices=devices)
    return write(subject, named, finished(result, subject.data, scheme), (output, *also), plain)


@dataclass(frozen=True)
class Finished:
    """A compressed network as it is written.

    Args:
        result: what the method made of the dense network, in floats.
        fixed: the whole numbers that were made of it, where these were asked for.
    """

    result: Result
    fixed: Fixed | None = None

    @property
    def measured(self) -> Measured:
        """What was tested last, in whole numbers where there are any."""
        return self.result.compressed if self.fixed is None else self.fixed.measured

    def told_by(self, output: Path) -> Result:
        """What a file holds: floats; of whole numbers those that they stand for."""
        if self.fixed is None:
            return self.result
        told = for_a_file(self.fixed, self.result.compressed, exactly=output.suffix == ".nir")
        return replace(self.result, compressed=replace(self.fixed.measured, module=told))

    def account(self) -> dict[str, Any]:
        """What a summary says of whole numbers; JSON-able."""
        if self.fixed is None:
            return {}
        return {"floats": self.result.to_dict()["compressed"], "fixed_point": self.fixed.to_dict()}


def finished(result: Result, data: LightningDataModule, scheme: FixedPoint | None) -> Finished:
    """Make whole numbers of a compressed network, where these are asked for.

    Raises:
        FixedPointError: see :func:`benchmark.single_network.fixed.whole_numbers`.
    """
    return Finished(result, None if scheme is None else in_whole_numbers(result.compressed, data, scheme))


def open_for(source: Source, outputs: Sequence[Path]) -> Subject:
    """Open a network that is to be written compressed; what stands in the way is found before the work, not after it.

    Raises:
        OutputError, StoreError: the compressed network cannot be written under these names.
        NIRError: it is to be NIR, which cannot say it.
        CheckpointError, DataMissing, OptionError, CalibrationTooLarge: see there.
    """
    _check_outputs(outputs, source.checkpoint)
    subject = open_subject(source)
    subject.data.calibration_indices()  # too many are found before the work
    if any(output.suffix == ".nir" for output in outputs):
        to_nir(subject.module().network, subject.data.input_shape)
    return subject


def write(
    subject: Subject,
    named: Named,
    made: Finished,
    outputs: Sequence[Path],
    plain: bool,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a compressed network to files, and beside the first its map and its summary, which is returned.

    Args:
        subject: the dense network.
        named: the method.
        made: what was made of the network.
        outputs: see :func:`compress_checkpoint`.
        plain: see there.
        more: what else the summary says.
    """
    output, *others = outputs
    numbers, result = None if made.fixed is None else made.fixed.numbers, made.told_by(output)
    description = subject.description
    reset = stated_reset(result.module.network)
    told = description | {"compressed": result.compression.to_dict()}
    sizes = {path: _write(path, made.told_by(path), subject.data.input_shape, told, plain, numbers) for path in outputs}
    summary = {
        "checkpoint": str(subject.path),
        "sha256": subject.checkpoint.sha256,
        **result.to_dict(),
        "method": named.label,
        "data": description["data"],
        "output": str(output),
        "bytes": sizes[output],
        **({"also": {str(path): sizes[path]["file"] for path in others}} if others else {}),
        **({} if reset is None else {"reset": reset}),
        **made.account(),
        **(more or {}),
    }
    write_map(output.with_suffix(".map.json"), result.compression, reset, numbers)
    write_atomically(output.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
    return summary


def _refuse_idle(compressor: Compressor, name: str) -> None:
    """Refuse to work for long and leave every weight as it is.

    Raises:
        BudgetError: nothing is asked of the compressor; names the budgets that it can meet.
    """
    if compressor.idle:
        limits = dict.fromkeys(limit for kind in compressor.budgets for limit in kind.split("+"))
        wanted = " or ".join(f"--{limit}" for limit in limits)
        raise BudgetError(
            f"nothing is asked of {name!r}, and the network would stay as it is: give {wanted} (to write it as it is, "
            "take --method identity)"
        )


def _check_outputs(outputs: Sequence[Path], dense: Path) -> None:
    """Refuse to write over the dense network, over the summary and the map of another one, or over what is neither.

    Raises:
        OutputError, StoreError: see `compress_checkpoint`.
    """
    places = [output.resolve() for output in outputs]
    for output, place in zip(outputs, places, strict=True):
        if places.count(place) > 1:
            raise OutputError(f"cannot write {output} twice: give each --output a name of its own")
        require_writable(output, ".safetensors", ".nir")
        if output.exists() and dense.exists() and output.samefile(dense):
            raise OutputError(f"cannot write {output}: it is the dense network; give another --output")
    first = outputs[0]
    other = first.with_suffix(".nir" if first.suffix == ".safetensors" else ".safetensors")
    if other.exists() and other not in outputs and first.with_suffix(".map.json").exists():
        raise OutputError(f"cannot write {first}: its map would take the place of {other}'s; give another --output")
    summary = first.with_suffix(".json")
    if summary.exists() and not _is_summary(summary):
        raise OutputError(f"cannot write {first}: its summary would take the place of {summary}; give another --output")


def _is_summary(path: Path) -> bool:
    """Whether a file is what `compress_checkpoint` writes beside a network."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"method", "compression", "output"} <= content.keys()


def _write(
    output: Path,
    result: Result,
    input_shape: tuple[int, int, int],
    description: dict[str, Any],
    plain: bool,
    numbers: FixedNetwork | None,
) -> dict[str, int]:
    """Write the network; the bytes of the file, of a packed one by what they hold."""
    module = result.module
    description = description | {"timesteps": module.timesteps}  # which may be fewer than the data's
    if output.suffix != ".nir" and not plain:
        size = checkpoints.save_packed(output, module.network, description, result.compression)
        return {**asdict(size), "file": size.file}
    if output.suffix == ".nir":
        write_nir(output, module.network, input_shape, metadata=None if numbers is None else numbers.metadata())
    else:
        checkpoints.save(output, module.network, description)
    return {"file": output.stat().st_size}


def show(summary: dict[str, Any]) -> Table:
    """A summary for people."""
    title = f"{summary['method']} on {summary['data']['name']}, {summary['checkpoint']}"
    notes = [f"written: {', '.join([summary['output'], *summary.get('also', ())])}, .json, .map.json", _sizes(summary)]
    if "reset" in summary:
        notes.append(f"reset of the neurons: {summary['reset']}")
    notes = [*notes_on(summary["compression"]), *_words_on_numbers(summary), *notes]
    return table(title, summary["dense"], summary["compressed"], "\n".join(notes))


def _words_on_numbers(summary: Mapping[str, Any]) -> list[str]:
    """What whole numbers changed, and in which neurons most."""
    if "fixed_point" not in summary:
        return []
    numbers, change = summary["fixed_point"], summary["compressed"]["accuracy"] - summary["floats"]["accuracy"]
    most = max(numbers["neurons"], key=lambda neurons: float(neurons["mismatch"]))
    lines = [
        f"whole numbers: weights of {numbers['weight_bits']} bits, potentials of {numbers['potential_bits']}, which "
        f"{numbers['overflow']}; {points(change)} points beside {percent(summary['floats']['accuracy'])} % in floats",
        f"spikes that differ from those in floats: {percent(most['mismatch'])} % in {most['name']}, fewer elsewhere",
    ]
    beyond = [neurons["name"] for neurons in numbers["neurons"] if neurons["overflows"]]
    return lines + ([f"potentials left their range in {', '.join(beyond)}"] if beyond else [])


def _sizes(summary: dict[str, Any]) -> str:
    """The file's bytes against the bits that the compressed network is counted with."""
    size = dict(summary["bytes"])
    line = f"file: {size.pop('file'):,} bytes"
    if size:
        line += " = " + " + ".join(f"{name} {count:,}" for name, count in size.items())
    return f"{line}; stored bits: {summary['compressed']['stored_bits'] / 8:,.0f} bytes"
