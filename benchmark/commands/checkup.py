"""Is this installation sound? Found out without importing what may be broken."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from benchmark.catalog import DATA
from benchmark.distribution import installed
from benchmark.wording import size
from datamodules.storage import cache_folder

IMPORTS = ("torch", "torchvision", "lightning", "torchmetrics", "spikingjelly.activation_based", "tonic", "wandb")
MIN_FREE_BYTES = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``bad`` breaks runs; ``note`` is worth knowing."""

    subject: str
    state: Literal["ok", "note", "bad"]
    message: str


def checkup() -> list[Finding]:
    """Look at everything; see the functions below. Data sets are only looked at by an installation that works."""
    findings = [*versions(), *wheel_index(), *imports(), folder("cache", cache_folder())]
    if any(finding.state == "bad" for finding in findings):
        return [*findings, Finding("data sets", "note", "not looked at: mend what is bad first")]
    return [*findings, *data_sets()]


def versions() -> Iterator[Finding]:
    """Whether the packages that snnbench requires are there in the versions it requires."""
    for text in installed().requires or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            yield Finding(wanted.name, "bad", "is not installed: install snnbench again")
            continue
        if wanted.specifier.contains(there, prereleases=True):
            yield Finding(wanted.name, "ok", there)
        else:
            yield Finding(wanted.name, "bad", f"{there} does not meet {wanted.specifier}: install snnbench again")


def wheel_index() -> Iterator[Finding]:
    """Whether torch and torchvision come from the same index: a CPU torch beside a CUDA torchvision does not import."""
    try:
        local = {name: version(name).partition("+")[2] for name in ("torch", "torchvision")}
    except PackageNotFoundError:
        return  # said by versions()
    yield build_match(local["torch"], local["torchvision"])


def build_match(torch_build: str, torchvision_build: str) -> Finding:
    """Compare the builds (``cpu``, ``cu130``, or empty for the package index's default, which is a CUDA build)."""
    subject = "torch and torchvision builds"
    if ("cpu" in torch_build) == ("cpu" in torchvision_build):
        return Finding(subject, "ok", f"{torch_build or 'default'} and {torchvision_build or 'default'}")
    return Finding(
        subject,
        "bad",
        f"{torch_build or 'default'} and {torchvision_build or 'default'} do not fit: install both from the same index",
    )


def imports() -> Iterator[Finding]:
    """Whether each package imports, tried in processes of their own so that one cannot take the others with it."""
    for name in IMPORTS:
        done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True)
        if done.returncode == 0:
            yield Finding(f"import {name}", "ok", "works")
        else:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            yield Finding(f"import {name}", "bad", f"fails: {last}")


def folder(subject: str, path: Path) -> Finding:
    """Whether a folder can be written to and has room."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            free = shutil.disk_usage(path).free
    except OSError as error:
        return Finding(
            subject, "bad", f"{path} cannot be written to ({error.strerror}): set SNNBENCH_CACHE to another folder"
        )
    state: Literal["ok", "note"] = "ok" if free > MIN_FREE_BYTES else "note"
    return Finding(subject, state, f"{path}, {size(8 * free)} free")


def data_sets() -> Iterator[Finding]:
    """Which data sets are there. A missing one breaks nothing but its own runs."""
    from compressors.registry import PluginError
    from datamodules.errors import DataMissing

    for name in DATA:
        if name == "digits_dvs":
            yield Finding(f"data {name}", "ok", "embedded")
            continue
        try:
            DATA[name].load()(timesteps=1).locate()
            yield Finding(f"data {name}", "ok", "found")
        except DataMissing as error:
            yield Finding(f"data {name}", "note", f"not found: {error}")
        except PluginError as error:
            yield Finding(f"data {name}", "note", str(error))
