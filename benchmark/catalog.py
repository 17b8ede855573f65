"""What can be named in a suite or on the command line, beside the compressors."""

from pathlib import Path

from compressors.registry import Entry, Registry, UnknownName, suggestion

DATA = Registry(
    "data set",
    "snnbench.data",
    {
        "digits_dvs": Entry(
            "datamodules.digits_dvs:DigitsDVS",
            "scikit-learn's digits before a simulated event camera; embedded",
        ),
        "nmnist": Entry("datamodules.nmnist:NMNIST", "N-MNIST: handwritten digits before a moving event camera"),
        "cifar10_dvs": Entry(
            "datamodules.cifar10_dvs:CIFAR10DVS", "CIFAR10-DVS: moved photographs before an event camera"
        ),
        "dvs_gesture": Entry(
            "datamodules.dvs_gesture:DVSGesture", "DVS128 Gesture: hand gestures before an event camera"
        ),
        "cifar100": Entry("datamodules.cifar100:CIFAR100", "CIFAR-100: small photographs, direct coding"),
        "imagenet": Entry("datamodules.imagenet:ImageNet", "ImageNet: photographs of 1,000 classes, direct coding"),
    },
)

MODELS = Registry(
    "model",
    "snnbench.models",
    {
        "mlp": Entry(
            "benchmark.models.mlp:mlp",
            "flatten, 256 LIF, classes LIF; no bias (the SBC paper's N-MNIST network)",
        ),
        "conv": Entry(
            "benchmark.models.conv:conv",
            "two strided convolutions with BatchNorm, pool, two linear layers; LIF",
        ),
        "nir": Entry(
            "benchmark.models.nir_import:nir_network", "the network in a NIR file, with its weights: path=FILE"
        ),
    },
)

SUITES = Path(__file__).parent / "suites"


def suite_path(name: str) -> Path:
    """The file of a shipped suite by name, or of any suite by path.

    Raises:
        UnknownName: there is neither.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise UnknownName(f"no suite file at {name}")
    shipped = {file.stem: file for file in sorted(SUITES.glob("*.yaml"))}
    if name not in shipped:
        raise UnknownName(f"unknown suite {name!r}: {suggestion(name, shipped)} (or give the path of a .yaml file)")
    return shipped[name]


def suites() -> dict[str, str]:
    """Name -> description of the shipped suites, read as text so that listing them costs nothing."""
    found = {}
    for file in sorted(SUITES.glob("*.yaml")):
        lines = (line.partition(":") for line in file.read_text(encoding="utf-8").splitlines())
        found[file.stem] = next((text.strip() for key, _, text in lines if key == "description"), "")
    return found
