"""CIFAR-100 (Krizhevsky, 2009), in the layout that torchvision uses."""

from typing import ClassVar

import torchvision

from datamodules.cifar import CIFAR
from datamodules.download import Download


class CIFAR100(CIFAR):
    """``cifar-100-python/{train,test,meta}``, with the 100 fine labels; see `CIFAR` for the rest."""

    name = "cifar100"
    title = "CIFAR-100"
    num_classes = 100
    published = torchvision.datasets.CIFAR100
    decoders = ("cifar100_images", "cifar100_names")
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    downloads: ClassVar[tuple[Download, ...]] = (Download(published.url, published.filename, published.tgz_md5),)
    instructions = (
        "get cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it, so that the"
        " folder holds cifar-100-python/train, test and meta"
    )
