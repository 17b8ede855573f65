"""Which samples make up each batch: every sample once per epoch, over all processes together."""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

import numpy as np
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

from datamodules.splits import Indices


class Batch(NamedTuple):
    """What a dataset is asked for: positions of samples, shape [B], and a seed for their augmentation."""

    positions: Indices
    seed: int


class Batches(DistributedSampler[Batch]):
    """A sampler of whole batches, for a DataLoader with ``batch_size=None``.

    Lightning leaves a DistributedSampler in place and tells it the epoch. Torch's own repeats samples until all
    processes have equally many, which would count some test samples twice. Here the samples are cut into nearly
    equal batches, as one process would, and every process gets its share of each: the same samples make up each
    optimizer step whatever the number of processes, no process waits for a gradient that never comes, and no
    batch is a leftover of one or two samples.

    The order and each batch's seed come from `seed`, the epoch and the process alone, whatever the number of
    workers.

    Args:
        dataset: what is sampled; only its length matters.
        batch_size: most samples in a batch of all processes together; a batch has at least one for each of them.
        shuffle: draw a new order each epoch.
        seed: of the order and of the batches' seeds.
        shared: give each process its share; else all samples to every process.

    Raises:
        ValueError: the dataset is empty, or has fewer samples than there are processes.
    """

    def __init__(self, dataset: Dataset, batch_size: int, *, shuffle: bool, seed: int, shared: bool = True) -> None:
        running = shared and dist.is_available() and dist.is_initialized()
        processes = dist.get_world_size() if running else 1
        rank = dist.get_rank() if running else 0
        super().__init__(dataset, processes, rank, shuffle=shuffle, seed=seed)
        self.samples = len(dataset)  # type: ignore[arg-type]
        self.batch_size = batch_size
        if self.samples < processes:
            raise ValueError(f"{self.samples} samples cannot be shared out to {processes} process(es)")

    def __iter__(self) -> Iterator[Batch]:
        owners = np.arange(self.samples) % self.num_replicas
        cut = zip(np.array_split(self._order(), len(self)), np.array_split(owners, len(self)), strict=True)
        seeds = np.random.SeedSequence([self.seed, self.epoch, self.rank]).generate_state(len(self), np.uint32)
        for (positions, owner), seed in zip(cut, seeds.tolist(), strict=True):
            yield Batch(positions[owner == self.rank], seed)

    def __len__(self) -> int:
        return min(ceil(self.samples / self.batch_size), self.samples // self.num_replicas)

    def _order(self) -> Indices:
        if not self.shuffle:
            return np.arange(self.samples)
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.samples)
