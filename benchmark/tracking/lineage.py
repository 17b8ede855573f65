"""What ``snnbench compress`` did, in Weights & Biases: dense network, what was made of it and its NIR file in one line.

A network is named by the hash of its file, whoever logs it: what one run leaves is what the next one uses, so that the
line from the dense network over the compressed one to its NIR file is there without anybody naming it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.files import sha256
from benchmark.questions.suite import digest
from benchmark.tracking.artifacts import kind_of, network_artifact
from benchmark.tracking.runs import Mode, open_run, warn

if TYPE_CHECKING:
    import wandb


def log_compression(summary: Mapping[str, Any], *, mode: Mode | None = None) -> bool:
    """Log what ``snnbench compress`` did: figures before and after, its layers, and the networks.

    A fault is a warning, as in :func:`benchmark.tracking.runs.log_run`.

    Args:
        summary: of the compression (:func:`benchmark.single_network.compress.compress_checkpoint`); its files are
            there.
        mode: as for :func:`benchmark.tracking.runs.log_run`.

    Returns:
        Whether it was logged.
    """
    after = Path(summary["output"])
    name = f"{summary['method']} on {summary['data']['name']}"
    config = {key: summary[key] for key in ("method", "data", "checkpoint", "sha256", "output")}
    try:
        import wandb

        run_id = f"compress-{digest([summary['sha256'], sha256(after)])}"
        with open_run(after.absolute().parent, mode, id=run_id, name=name, job_type="compress", config=config) as run:
            layers = summary["compression"]["layers"]
            columns = ["name", "weights", "kept", "density", "loss"]
            table = wandb.Table(columns=[*columns], data=[[layer[name] for name in columns] for layer in layers])
            run.log({**_figures(summary), "layers": table})
            log_networks(run, summary)
    except Exception as error:  # whatever W&B raises must not cost the network, which is written
        warn(name, error)
        return False
    return True


def _figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of the compressed network, and those of the dense one beside them."""
    after, before = summary["compressed"], summary["dense"]
    numbers = {key: value for key, value in after.items() if isinstance(value, int | float)}
    return numbers | {f"dense/{key}": before[key] for key in numbers if key in before}


def log_networks(run: "wandb.Run", summary: Mapping[str, Any]) -> None:
    """What ``snnbench compress`` started from and what it wrote: used by a run, and logged by it.

    A network's artifact holds the network alone, so that whoever has the file has the artifact.

    Offline the network that it started from is named in the configuration alone: W&B refuses to link it there.

    Args:
        run: an open run.
        summary: of the compression (:func:`benchmark.single_network.compress.compress_checkpoint`).
    """
    import wandb

    before, after = Path(summary["checkpoint"]), Path(summary["output"])
    if not run.offline:
        run.use_artifact(network_artifact(before, summary["sha256"], kind=kind_of(before)))
    account = wandb.Artifact(f"compression-{sha256(after)[:12]}", type="compression")
    for suffix in (".json", ".map.json"):
        account.add_file(str(after.with_suffix(suffix)), name=f"compression{suffix}")
    run.log_artifact(account)
    for file in (after, *map(Path, summary.get("also", ()))):
        run.log_artifact(
            network_artifact(file, sha256(file), kind=kind_of(file, compressed=True), method=summary["method"])
        )
