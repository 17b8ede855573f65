"""CIFAR-10 (Krizhevsky, 2009), in the layout that torchvision uses."""

from typing import ClassVar

import torchvision

from datamodules.cifar import CIFAR
from datamodules.download import Download


class CIFAR10(CIFAR):
    """``cifar-10-batches-py/{data_batch_1,…,data_batch_5,test_batch,batches.meta}``; see `CIFAR` for the rest.

    Mean and deviation are those of all pixels of the 50,000 training images, computed at
    https://gist.github.com/weiaicunzai/e623931921efefd4c331622c344d8151. The deviations 0.2023, 0.1994 and 0.2010 that
    many programs have are averages of each image's own.
    """

    name = "cifar10"
    title = "CIFAR-10"
    num_classes = 10
    published = torchvision.datasets.CIFAR10
    decoders = ("cifar10_images", "cifar10_names")
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    downloads: ClassVar[tuple[Download, ...]] = (Download(published.url, published.filename, published.tgz_md5),)
    instructions = (
        "get cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it, so that the"
        " folder holds cifar-10-batches-py/data_batch_1 to data_batch_5, test_batch and batches.meta"
    )
