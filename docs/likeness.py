"""How near the simulated recordings of `mnist_dvs` come to N-MNIST's: numbers, a picture, and a transfer of networks.

Real recordings are compared with simulated ones of the same images: N-MNIST names a recording by its image's number in
MNIST, from 1. Each command keeps its figures in ``docs/likeness.json``, from which the page is rendered.
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from benchmark.networks.zoo.conv import conv
from datamodules import MNISTDVS, NMNIST
from datamodules.batches import Batch
from datamodules.event_set import EventDataModule
from datamodules.events import Events
from datamodules.mnist_dvs import CAMERA, SEEDS, read_digits

FIGURES = Path(__file__).with_name("likeness.json")
PICTURE = Path(__file__).with_name("pictures") / "likeness.png"
WINDOW_MS = 5
TIMESTEPS = 20
WIDTH, HIDDEN, LEARNING_RATE = 16, 64, 5e-3
LOGITS_PER_RATE = 10
DIGITS_SHOWN = 10
BACKGROUND_EVENTS = 2
"""Most events of a pixel in one recording that no digit has passed."""

SETS = {"real": "N-MNIST", "simulated": "mnist_dvs"}
COLOURS = {"real": "#444444", "simulated": "#d1495b"}
FOLDERS = {
    "real": click.option("--nmnist", type=click.Path(path_type=Path), required=True, help="N-MNIST, in part or whole."),
    "mnist": click.option("--mnist", type=click.Path(path_type=Path), help="MNIST [default: where the set has it]."),
}


@click.group()
def main() -> None:
    """Compare mnist_dvs with N-MNIST."""


@main.command()
@FOLDERS["real"]
@FOLDERS["mnist"]
def rates(nmnist: Path, mnist: Path | None) -> None:
    """Compare all real recordings with simulated ones of the same images; draw rates, spectra and digits."""
    real, simulated = paired(NMNIST(nmnist), MNISTDVS(mnist))
    figures = {"recordings": len(real), "real": measured(real), "simulated": measured(simulated)}
    keep("rates", figures | {"alike": alike(real, simulated)})
    draw(real, simulated, PICTURE)


@main.command()
@FOLDERS["real"]
@FOLDERS["mnist"]
@click.option("--samples", default=6000, help="Simulated training recordings.")
@click.option("--epochs", default=6, help="Passes over the simulated recordings; the real ones get as many batches.")
@click.option("--seeds", default=1, help="Networks of each kind.")
def transfer(nmnist: Path, mnist: Path | None, samples: int, epochs: int, seeds: int) -> None:
    """Train on one set and test on both, each way round."""
    real, simulated = NMNIST(nmnist, timesteps=TIMESTEPS), MNISTDVS(mnist, samples=samples, timesteps=TIMESTEPS)
    batches = epochs * len(simulated.train_dataloader())
    unseen = of_other_images(real, simulated)
    accuracies: dict[str, list[float]] = {}
    for seed in range(seeds):
        network = trained(simulated, batches, seed)
        note(accuracies, "simulated on simulated", accuracy(network, simulated, simulated.samples.parts.test))
        note(accuracies, "simulated on real", accuracy(network, real, unseen))
        network = trained(real, batches, seed)
        note(accuracies, "real on real", accuracy(network, real, real.samples.parts.test))
        note(accuracies, "real on simulated", accuracy(network, simulated, simulated.samples.parts.test))
    counts = {
        f"{name} {part}": count
        for name, data in (("real", real), ("simulated", simulated))
        for part, count in data.describe()["counts"].items()
    }
    keep("transfer", {"epochs": epochs, "seeds": seeds, "unseen": len(unseen), **counts, "accuracy": accuracies})


def of_other_images(real: NMNIST, simulated: MNISTDVS) -> NDArray[np.int64]:
    """The real recordings of images whose simulated recordings are not trained on."""
    trained_on = {simulated.samples.keys[sample] for sample in simulated.samples.parts.train}
    keys = [f"{part}/{number:05d}" for part, number in map(image_of, real.samples.keys)]
    return np.flatnonzero([key not in trained_on for key in keys])


def note(accuracies: dict[str, list[float]], name: str, value: float) -> None:
    """Add a network's accuracy, and say it."""
    accuracies.setdefault(name, []).append(value)
    click.echo(f"trained and tested, {name}: {value:.4f}")


def keep(name: str, figures: dict[str, Any]) -> None:
    """Put figures into the file beside the page."""
    known = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    FIGURES.write_text(json.dumps(known | {name: figures}, indent=1) + "\n")


# Rates ---------------------------------------------------------------------------------------------------------------


def paired(real: NMNIST, simulated: MNISTDVS) -> tuple[list[Events], list[Events]]:
    """All real recordings, and the simulated ones of their images."""
    images = read_digits(simulated.root)
    recordings = []
    for part, number in map(image_of, real.samples.keys):
        recordings.append(CAMERA.record(images[part][0][number], SEEDS[part], number))
    return [real.read(sample) for sample in range(len(real.samples.keys))], recordings


def image_of(key: str) -> tuple[str, int]:
    """Part and number of the image that a recording of N-MNIST, ``Train/5/00001.bin``, shows."""
    return key.split("/")[0], int(Path(key).stem) - 1


def measured(recordings: list[Events]) -> dict[str, Any]:
    """The figures of the table."""
    events = np.array([len(recording) for recording in recordings])
    pixels = per_pixel(recordings)
    background = pixels <= BACKGROUND_EVENTS
    power = spectrum(recordings)
    return {
        "events": events.mean(),
        "events_sd": events.std(),
        "on": np.mean([recording["p"].mean() for recording in recordings]),
        "background": (pixels * background).sum() / pixels.sum(),
        "pixels": (~background).sum(1).mean(),
        "events_per_pixel": pixels[~background].mean(),
        "slow": power[:10].sum() / power.sum(),
    }


def alike(real: list[Events], simulated: list[Events]) -> dict[str, float]:
    """Correlations of the recordings of an image, which two sets of the same sizes could lack altogether."""
    pairs = list(zip(per_pixel(real), per_pixel(simulated), strict=True))
    in_time = zip(rate(real, None), rate(simulated, None), strict=True)
    return {
        "events": float(np.corrcoef([[one.sum(), other.sum()] for one, other in pairs], rowvar=False)[0, 1]),
        "pixels": float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs])),
        "rate": float(np.corrcoef(list(in_time), rowvar=False)[0, 1]),
    }


def per_pixel(recordings: list[Events]) -> NDArray[np.int64]:
    """Events of each pixel, [recordings, pixels]."""
    where = [34 * recording["y"].astype(np.int64) + recording["x"] for recording in recordings]
    return np.stack([np.bincount(place, minlength=34 * 34) for place in where])


def rate(recordings: list[Events], polarity: int | None) -> NDArray[np.float64]:
    """Events per millisecond of a recording, in windows of 5 ms."""
    times = np.concatenate([r["t"] if polarity is None else r["t"][r["p"] == polarity] for r in recordings])
    counts, _ = np.histogram(times, np.arange(0, 320, WINDOW_MS) * 1000)
    return counts / len(recordings) / WINDOW_MS


def spectrum(recordings: list[Events]) -> NDArray[np.float64]:
    """Power of a recording's rate at multiples of 1/315 ms (3.17 Hz), the mean of all, without the constant."""
    rates = np.stack([np.bincount(np.minimum(r["t"] // 1000, 314), minlength=315) for r in recordings])
    return (np.abs(np.fft.rfft(rates - rates.mean(1, keepdims=True))) ** 2).mean(0)[1:]


def draw(real: list[Events], simulated: list[Events], picture: Path) -> None:
    """Rates, spectra, and the first saccade of some digits, real above simulated."""
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    in_time, in_frequency = upper.subplots(1, 2)
    for (name, title), recordings in zip(SETS.items(), (real, simulated), strict=True):
        for polarity, style, sign in ((1, "-", 1), (0, "-", -1)):
            label = title if polarity else None
            values = sign * rate(recordings, polarity)
            in_time.plot(
                WINDOW_MS * (np.arange(len(values)) + 0.5), values, style, color=COLOURS[name], label=label, lw=1.4
            )
        power = spectrum(recordings)
        in_frequency.loglog((np.arange(len(power)) + 1) / 0.315, power, color=COLOURS[name], label=title, lw=1.2)
    in_time.axhline(0, color="#bbbbbb", lw=0.8)
    in_time.set(xlabel="time in ms", ylabel="events per ms: off below, on above 0", title="Rate")
    in_frequency.set(xlabel="frequency in Hz", ylabel="power, events²", title="Spectrum of the rate")
    in_time.set_ylim(-19, 22)
    in_time.legend(frameon=False, loc="upper right", ncols=2)
    in_frequency.legend(frameon=False)
    tiles = lower.subplots(2, DIGITS_SHOWN)
    step = len(real) // DIGITS_SHOWN
    for row, (title, recordings) in zip(tiles, zip(SETS.values(), (real, simulated), strict=True), strict=True):
        row[0].set_ylabel(title)
        for axes, recording in zip(row, recordings[step // 2 :: step], strict=False):
            axes.imshow(balance(recording), cmap="RdBu_r", vmin=-4, vmax=4, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
    lower.suptitle("Events between 30 and 60 ms: on red, off blue")
    for axes in (in_time, in_frequency):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


def balance(recording: Events) -> NDArray[np.int64]:
    """On events less off events of each pixel while the image moves down, [34, 34]."""
    early = recording[(recording["t"] >= 30_000) & (recording["t"] < 60_000)]
    sums = np.zeros((34, 34), dtype=np.int64)
    np.add.at(sums, (early["y"], early["x"]), 2 * early["p"].astype(np.int64) - 1)
    return sums


# Transfer ------------------------------------------------------------------------------------------------------------


def trained(data: EventDataModule, batches: int, seed: int) -> nn.Module:
    """A small network of the zoo after so many batches: Adam, one cycle of the learning rate, cross-entropy."""
    torch.manual_seed(seed)
    network = conv(data.input_shape, data.num_classes, width=WIDTH, hidden=HIDDEN)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=batches)
    loader = data.train_dataloader()
    endless = (batch for _ in iter(int, 1) for batch in loader)
    for x, y in track(islice(endless, batches), f"training on {data.name}", batches, console=Console(stderr=True)):
        optimizer.zero_grad()
        F.cross_entropy(LOGITS_PER_RATE * rates_of(network, x), y).backward()
        optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def accuracy(network: nn.Module, data: EventDataModule, samples: NDArray[np.int64]) -> float:
    """Share of the samples whose class sends most spikes."""
    network.eval()
    frames = data.dataset(samples, augment=False)
    right = 0
    for begin in range(0, len(samples), 100):
        x, y = frames[Batch(np.arange(begin, min(begin + 100, len(samples))), seed=0)]
        right += int((rates_of(network, x).argmax(1) == y).sum())
    return right / len(samples)


def rates_of(network: nn.Module, x: Tensor) -> Tensor:
    """Spikes per time step of each class, [B, classes], for frames [B, T, C, H, W]."""
    functional.reset_net(network)
    return network(x.float().transpose(0, 1)).mean(0)


if __name__ == "__main__":
    main()
