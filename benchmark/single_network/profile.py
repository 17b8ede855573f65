"""What ``snnbench profile`` does: the cost of one network, layer by layer, as it stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

from lightning.pytorch import Trainer

from benchmark.networks.nir.reading import stated_reset
from benchmark.networks.soundness import SoundNetwork
from benchmark.runs import memory
from benchmark.runs.dense import quiet, trainer_settings
from benchmark.runs.run import finite_metrics
from benchmark.single_network.subject import Source, open_subject
from benchmark.wording import count, joules, percent
from hardware import CostReport, HardwareCost
from hardware.chips import Check, ChipFit, chip_fit, chips
from hardware.energy import EnergyReport, energy
from hardware.latency import latency
from hardware.table import table_rows


@dataclass(frozen=True)
class Profile:
    """Counts, their price under one energy profile, accuracy on the test part, and the chips' limits.

    ``reset`` says how the neurons of a NIR file's network were taken to be reset.
    """

    report: CostReport
    energy: EnergyReport
    accuracy: float
    chips: tuple[ChipFit, ...]
    reset: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the counts, the energy, the table's rows, accuracy and chips."""
        least = latency(self.report)
        return {
            "accuracy": self.accuracy,
            "joules_per_correct": self.energy.joules_per_correct(self.accuracy) if self.accuracy else None,
            "report": self.report.to_dict(),
            "energy": self.energy.to_dict(),
            "rows": table_rows(self.report, self.energy),
            "latency": None if least is None else least.to_dict(),
            "chips": [fit.to_dict() for fit in self.chips],
        } | ({} if self.reset is None else {"reset": self.reset})


def profile_checkpoint(source: Source, energy_profile: str, seconds_per_step: float | None = None) -> Profile:
    """Test a network and count what it costs; static power costs where a time step's seconds are known.

    Raises:
        CheckpointError, DataMissing, OptionError: see :func:`benchmark.single_network.subject.open_subject`.
        UnknownName: there is no such energy profile.
        NetworkError: the network is not what it is taken for (:mod:`benchmark.networks.soundness`).
        ScoreError: its weights or scores are not finite.
    """
    memory.keep_freed()
    subject = open_subject(source)
    module, counter = subject.module(), HardwareCost()
    with quiet():
        trainer = Trainer(callbacks=[SoundNetwork(), counter], **trainer_settings())
        results = trainer.test(module, datamodule=subject.data, verbose=False)
    metrics = finite_metrics(module, results[0])
    report = counter.report
    if report is None:
        raise RuntimeError(f"nothing was counted of {source.checkpoint}: the test ended before its last batch")
    priced = energy(report, energy_profile, seconds_per_step)
    fits = tuple(chip_fit(report, name) for name in chips())
    return Profile(report, priced, metrics.accuracy, fits, stated_reset(module.network))


def summary_lines(profile: Profile) -> list[str]:
    """What the table of layers does not tell: accuracy, latency, spikes, and what could not be counted."""
    report = profile.report
    lines = [
        f"accuracy {percent(profile.accuracy)} % on {report.samples} test samples",
        f"{report.timesteps} time steps and {count(report.spikes_per_sample)} spikes an inference",
    ]
    weights = sum(layer.memory_bits[layer.best_format] for layer in report.layers)
    lines.append(f"weights: {count(weights)} bits with index, {count(report.bound_bits)} by their entropy")
    if profile.accuracy:
        lines.append(f"{joules(profile.energy.joules_per_correct(profile.accuracy))} per correct classification")
    if profile.reset is not None:
        lines.append(f"reset of the neurons: {profile.reset}")
    lines += [f"never called, so not counted: {name}" for name in report.uncalled]
    lines += [f"not counted: {call}" for call in report.uncounted]
    lines += [f"counted as floats, because changed since it was quantised: {name}" for name in report.off_grid]
    return [*lines, *latency_lines(report), *(chip_line(fit) for fit in profile.chips)]


def latency_lines(report: CostReport) -> list[str]:
    """How long a chip of Loihi's kind takes at least."""
    least = latency(report)
    if least is None:
        return []
    low, high = (f"{1e6 * end:,.4g}" for end in (least.low_s, least.high_s))
    cores = f"{least.cores} core{'s' if least.cores > 1 else ''}"
    return [f"least time on {cores} of Loihi's kind: {low} to {high} us, {least.heaviest} being slowest"]


SEARCHED = ("synapses", "mean_fan_out", "cores", "neurons", "hidden_neurons", "channels", "fan_in")
"""Limits that a smaller network keeps, though no one option says how small."""


def chip_line(fit: ChipFit) -> str:
    """Whether a network fits a chip, in one line: if not, by how much, and what would."""
    broken = [check for check in fit.checks if check.ok is False]
    if broken:
        needs = ", ".join(f"{_worded(check.name)} {check.needed:,} of at most {check.limit:,}" for check in broken)
        return f"{fit.chip}: does not fit: {needs}; {_mended(fit.chip, broken)}"
    cores = "" if fit.cores is None else f", at least {fit.cores} cores"
    share = max((check.use for check in fit.checks if check.use is not None), default=0.0)
    binding = "" if fit.binding is None else f"; nearest to its limit: {_worded(fit.binding)}, {percent(share)} %"
    unknown = [_worded(check.name) for check in fit.checks if check.ok is None]
    open_points = f"; unknown: {', '.join(unknown)}" if unknown else ""
    return f"{fit.chip}: fits every known limit{cores}{binding}{open_points}"


def _worded(limit: str) -> str:
    return limit.replace("_", " ")


def _mended(chip: str, broken: Sequence[Check]) -> str:
    """What would bring a network within limits that it breaks."""
    remedies = {check.name: _remedy(check) for check in broken}
    hopeless = [_worded(name) for name, remedy in remedies.items() if remedy is None]
    if hopeless:
        return f"weights alone do not mend {', '.join(hopeless)}"
    options = [*dict.fromkeys(filter(None, remedies.values()))]
    if "" in remedies.values():
        return f"`compress --fit {chip}` searches what would"
    return f"would fit with {' '.join(options)}"


def _remedy(check: Check) -> str | None:
    """Options of ``snnbench compress`` that mend a limit; empty where they have to be searched, None if none do."""
    if check.needed is None or not check.limit:
        return None
    if check.name == "weight_bits":
        return f"--bits {check.limit}"
    density = floor(100 * check.limit / check.needed) / 100
    if check.name in ("synapses", "mean_fan_out") and density:
        return f"--density {density:g}"
    return (
        ""
        if check.name in ("synapses", "mean_fan_out", "cores", "neurons", "hidden_neurons", "channels", "fan_in")
        else None
    )
