"""What can be named in a suite or on the command line, beside compressors and energy profiles."""

from pathlib import Path

from hardware.registry import Entry, Registry, Requirement, UnknownName, says, suggestion

DATA = Registry(
    "data set",
    "snnbench.data",
    {
        "digits_dvs": Entry(
            "datamodules.digits_dvs:DigitsDVS",
            "scikit-learn's digits before a simulated event camera; embedded",
        ),
        "mnist_dvs": Entry(
            "datamodules.mnist_dvs:MNISTDVS", "all of MNIST before a simulated event camera: N-MNIST, made at home"
        ),
        "nmnist": Entry("datamodules.nmnist:NMNIST", "N-MNIST: handwritten digits before a moving event camera"),
        "cifar10_dvs": Entry(
            "datamodules.cifar10_dvs:CIFAR10DVS", "CIFAR10-DVS: moved photographs before an event camera"
        ),
        "dvs_gesture": Entry(
            "datamodules.dvs_gesture:DVSGesture", "DVS128 Gesture: hand gestures before an event camera"
        ),
        "cifar10": Entry("datamodules.cifar10:CIFAR10", "CIFAR-10: small photographs of 10 classes, direct coding"),
        "cifar100": Entry("datamodules.cifar100:CIFAR100", "CIFAR-100: small photographs, direct coding"),
        "tiny_imagenet": Entry(
            "datamodules.tiny_imagenet:TinyImageNet",
            "Tiny ImageNet: photographs of 200 classes at 64x64 pixels, direct coding",
        ),
        "imagenet": Entry("datamodules.imagenet:ImageNet", "ImageNet: photographs of 1,000 classes, direct coding"),
    },
    Requirement("datamodules.base:BenchmarkDataModule"),
)

MODELS = Registry(
    "model",
    "snnbench.models",
    {
        "mlp": Entry(
            "benchmark.networks.zoo.mlp:mlp",
            "flatten, 256 LIF, classes LIF; no bias (the SBC paper's N-MNIST network)",
        ),
        "conv": Entry(
            "benchmark.networks.zoo.conv:conv",
            "two strided convolutions with BatchNorm, pool, two linear layers; LIF",
        ),
        "dvs_gesture_net": Entry(
            "benchmark.networks.zoo.event_nets:dvs_gesture_net",
            "5Conv2FC: five convolutions, two linear layers, voting",
        ),
        "cifar10_dvs_net": Entry(
            "benchmark.networks.zoo.event_nets:cifar10_dvs_net",
            "4Conv2FC: four convolutions, two linear layers, voting",
        ),
        "vgg9": Entry("benchmark.networks.zoo.vgg:vgg9", "eight convolutions, one linear layer, average pooling"),
        "vgg16": Entry(
            "benchmark.networks.zoo.vgg:vgg16", "VGG-16 with BatchNorm (norm=false: without), one linear layer"
        ),
        "vggsnn": Entry("benchmark.networks.zoo.vgg:vggsnn", "VGGSNN for events at 48 pixels"),
        "resnet19": Entry(
            "benchmark.networks.zoo.resnet:resnet19", "ResNet-19: 3, 3, 2 blocks of 128, 256, 512 channels"
        ),
        "resnet20": Entry(
            "benchmark.networks.zoo.resnet:resnet20", "ResNet-20: three blocks each of 128, 256, 512 channels"
        ),
        **{
            f"sew_resnet{depth}": Entry(
                f"benchmark.networks.zoo.resnet:sew_resnet{depth}", f"SEW-ResNet-{depth}: spikes added in shortcuts"
            )
            for depth in (18, 34, 50, 101, 152)
        },
        "spiking_resnet": Entry(
            "benchmark.networks.zoo.resnet:spiking_resnet", "ResNet with IF in place of ReLU; depth=18"
        ),
        "ms_resnet": Entry(
            "benchmark.networks.zoo.resnet:ms_resnet", "MS-ResNet: potentials added in shortcuts; depth=18"
        ),
        "spikformer": Entry(
            "benchmark.networks.zoo.transformers:spikformer", "Spikformer-8-384: spiking self-attention"
        ),
        "spike_driven_transformer": Entry(
            "benchmark.networks.zoo.transformers:spike_driven_transformer",
            "Spike-driven Transformer-8-384: masks and sums",
        ),
        "qkformer": Entry(
            "benchmark.networks.zoo.transformers:qkformer", "QKFormer-10-384: Q-K attention in three stages"
        ),
        "nir": Entry(
            "benchmark.networks.nir.reading:nir_network",
            "the network in a NIR file, with its weights: path=FILE",
            reads_files=True,
        ),
    },
    Requirement("collections.abc:Callable", instances=True),
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
    """Name -> description of the shipped suites."""
    return {file.stem: says(file, "description") for file in sorted(SUITES.glob("*.yaml"))}
