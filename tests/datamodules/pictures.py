"""Tiny image sets in the layouts that their authors publish."""

import hashlib
import io
import pickle
import struct
from typing import ClassVar

import numpy as np
from PIL import Image

from datamodules import CIFAR10, CIFAR100

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 did, which made the published files: both are strings of bytes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, string):
        content = string.encode("latin1") if isinstance(string, str) else string
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(string)

    dispatch[str] = dispatch[bytes] = save_string


def pickled(content, protocol):
    """Bytes of a pickle; `protocol` is a number, or "python 2" with the names that NumPy's functions had then."""
    if protocol != "python 2":
        return pickle.dumps(content, protocol)
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def write_cifar(data_class, root, content, names, protocol=2):
    """The files of a set: name -> (pixels [n, 3072], labels), and the names of its classes."""
    published = data_class.published
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    names_key = published.meta["key"]
    labels_key = names_key.removesuffix("_names") + "s"
    for file, (pixels, labels) in content.items():
        batch = {"batch_label": file, labels_key: labels, "data": pixels, "filenames": [f"{file}.png"] * len(labels)}
        (folder / file).write_bytes(pickled(batch, protocol))
    meta = {"num_cases_per_batch": 10_000, names_key: names, "num_vis": 3072}
    (folder / published.meta["filename"]).write_bytes(pickled(meta, protocol))
    return root


def random_pixels(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar10(root, each=20, protocol=2):
    files = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    content = {
        file: (random_pixels(each, seed), [(3 * index + seed) % 10 for index in range(each)])
        for seed, file in enumerate(files)
    }
    return write_cifar(CIFAR10, root, content, CIFAR10_NAMES, protocol)


def write_cifar100(root, train=200, test=100, protocol=2):
    content = {
        file: (random_pixels(count, seed), [index % 100 for index in range(count)])
        for seed, (file, count) in enumerate((("train", train), ("test", test)))
    }
    return write_cifar(CIFAR100, root, content, [f"c{index}" for index in range(100)], protocol)


def write_idx(path, array):
    """Bytes in MNIST's format: type and number of dimensions, their lengths, big-endian, then the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def digit_like(label, number):
    """A stroke of ink, 28x28; its place and slope depend on label and number."""
    rows, columns = np.mgrid[:28, :28]
    distance = np.abs(columns - 14 + (label - 4.5) / 3 * (rows - 14) / 5 + number % 3)
    return (np.clip(3 - distance, 0, 1) * 255 * ((rows > 4) & (rows < 23))).astype(np.uint8)


def write_mnist(root, train=60, test=20):
    """MNIST's four files as torchvision keeps them."""
    for part, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) * 7 % 10).astype(np.uint8)
        images = np.stack([digit_like(int(label), number) for number, label in enumerate(labels)])
        write_idx(root / f"MNIST/raw/{part}-images-idx3-ubyte", images)
        write_idx(root / f"MNIST/raw/{part}-labels-idx1-ubyte", labels)
    return root


def official(data_class, root):
    """The set, as if the files in a folder were the published ones."""
    folder = root / data_class.published.base_folder

    def listed(files):
        return [[file, hashlib.md5((folder / file).read_bytes()).hexdigest()] for file, _ in files]

    ((meta_file, meta_md5),) = listed([[data_class.published.meta["filename"], ""]])

    class Published(data_class.published):
        train_list = listed(data_class.published.train_list)
        test_list = listed(data_class.published.test_list)
        meta = data_class.published.meta | {"filename": meta_file, "md5": meta_md5}

    return type(data_class.__name__, (data_class,), {"published": Published})


def write_image(path, mode="RGB", size=(40, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": (3,), "L": (), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path, "JPEG")


TINY_WNIDS = [f"n{10_000_000 + 7 * number:08d}" for number in range(200)]


def write_tiny_imagenet(root, labels=(0, 3, 199), train=4, val=2):
    """Stanford's tree with images of some of the classes; one training image of each class is grayscale."""
    shuffled = [TINY_WNIDS[position] for position in np.random.default_rng(0).permutation(200)]
    root.mkdir(parents=True, exist_ok=True)
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in shuffled))
    (root / "words.txt").write_text("".join(f"{wnid}\ta thing, an object\n" for wnid in TINY_WNIDS))
    for label in labels:
        wnid = TINY_WNIDS[label]
        for index in range(train):
            file = root / f"train/{wnid}/images/{wnid}_{index}.JPEG"
            write_image(file, "L" if index == 1 else "RGB", (64, 64), seed=10 * label + index)
        boxes = "".join(f"{wnid}_{index}.JPEG\t0\t0\t62\t62\n" for index in range(train))
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text(boxes)
    shown = [label for _ in range(val) for label in labels]
    for index, _ in enumerate(shown):
        write_image(root / f"val/images/val_{index}.JPEG", size=(64, 64), seed=9000 + index)
        write_image(root / f"test/images/test_{index}.JPEG", size=(64, 64), seed=9500 + index)
    lines = (f"val_{index}.JPEG\t{TINY_WNIDS[label]}\t0\t32\t44\t62\n" for index, label in enumerate(shown))
    (root / "val/val_annotations.txt").write_text("".join(lines))
    return root
