"""Published ways of training, by name: ``training: {recipe: kim2022}`` in a suite.

They hold what a paper or its code says of optimizer, epochs and loss. Time steps and augmentation belong to the data
set of a suite: :attr:`Recipe.data` says what the paper has there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressors.registry import suggestion


@dataclass(frozen=True)
class Recipe:
    """Settings of :class:`benchmark.questions.suite.Training`.

    Args:
        settings: those that differ from the defaults.
        data: what the source does to the data, for people.
        source: where it was read.
        differs: what this project does otherwise.
    """

    settings: Mapping[str, Any]
    data: str
    source: str
    differs: str = ""


RECIPES = {
    "kim2022": Recipe(
        {
            "epochs": 300,
            "patience": 300,
            "batch_size": 128,
            "loss": "cross_entropy",
            "optimizer": "sgd",
            "learning_rate": 0.3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
        },
        data="CIFAR-10 and CIFAR-100 at 5 time steps; its augmentation is not known to us",
        source="Kim et al., Exploring Lottery Ticket Hypothesis in Spiking Neural Networks, ECCV 2022, and its code",
    ),
    "sbc": Recipe(
        {
            "epochs": 200,
            "patience": 200,
            "batch_size": 64,
            "loss": "rate_mse",
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "weight_decay": 1e-5,
            "precision": "bf16-mixed",
        },
        data="N-MNIST at 100 time steps, no augmentation",
        source="code of Spiking Brain Compression, arXiv 2506.03996: its N-MNIST perceptron",
        differs="the cosine falls once over all epochs; the code's falls and rises with a period of 64 epochs",
    ),
    "sbc-resnet19": Recipe(
        {
            "epochs": 300,
            "patience": 300,
            "batch_size": 128,
            "loss": "cross_entropy",
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "milestones": [150, 225],
        },
        data="CIFAR-100 at 5 time steps, augment: [crop, flip, cutout]",
        source="code of Spiking Brain Compression, arXiv 2506.03996: its CIFAR-100 ResNet-19",
    ),
}


def published(name: Any) -> Mapping[str, Any]:
    """The settings of a recipe.

    Raises:
        ValueError: there is none of this name.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: {suggestion(str(name), RECIPES)}")
    return RECIPES[name].settings
