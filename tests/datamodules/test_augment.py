"""Sparse augmentations beside the same thing done to dense frames, and what each may and may not change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.augment import AUGMENTATIONS, EventAugmentation, EventBatch

SHAPE = (6, 5, 2, 24, 20)


def batch_of(frames):
    cells = np.flatnonzero(frames)
    return EventBatch.from_flat(cells, frames.ravel()[cells].astype(np.int64), frames.shape)


def dense(batch):
    frames = np.zeros(batch.shape, dtype=np.int64)
    flat = batch.flat()
    assert len(np.unique(flat)) == len(flat)
    frames.ravel()[flat] = batch.count
    return frames


def some_frames(seed, most=4):
    random = np.random.default_rng(seed)
    return random.integers(0, most, SHAPE) * (random.random(SHAPE) < 0.2)


def augmented(name, frames, seed):
    return dense(AUGMENTATIONS[name](batch_of(frames), np.random.default_rng(seed)))


seeds = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_flip_mirrors_whole_samples(seed):
    frames = some_frames(seed)
    result = augmented("flip", frames, seed)
    for before, after in zip(frames, result, strict=True):
        assert np.array_equal(after, before) or np.array_equal(after, before[..., ::-1])


def test_flip_mirrors_half_of_the_samples():
    frames = np.zeros((1000, 1, 2, 2, 2), dtype=np.int64)
    frames[..., 0] = 1
    assert 430 < augmented("flip", frames, 0)[..., 1].any((1, 2, 3)).sum() < 570


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_roll_is_a_roll_of_at_most_two_pixels(seed):
    frames = some_frames(seed)
    result = augmented("roll", frames, seed)
    for before, after in zip(frames, result, strict=True):
        rolls = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]  # 5/48 of 24 and of 20
        assert any(np.array_equal(after, np.roll(before, shift, (2, 3))) for shift in rolls)


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_crop_is_a_cut_from_the_padded_frame(seed):
    frames = some_frames(seed)
    result = augmented("crop", frames, seed)
    for before, after in zip(frames, result, strict=True):
        padded = np.pad(before, ((0, 0), (0, 0), (3, 3), (2, 2)))  # 4/32 of 24 and of 20
        cuts = [padded[:, :, top : top + 24, left : left + 20] for top in range(7) for left in range(5)]
        assert any(np.array_equal(after, cut) for cut in cuts)


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_cutout_empties_one_square(seed):
    frames = np.ones(SHAPE, dtype=np.int64)
    for after in augmented("cutout", frames, seed):
        empty = after == 0
        assert (empty == empty[0, 0]).all()  # the same place at all times and polarities
        rows, columns = np.flatnonzero(empty[0, 0].any(1)), np.flatnonzero(empty[0, 0].any(0))
        assert len(rows) == len(columns)
        assert 1 <= len(rows) <= 3  # 8/48 of 20
        assert empty[0, 0].sum() == len(rows) ** 2


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_event_drop_only_drops(seed):
    frames = some_frames(seed)
    result = augmented("event_drop", frames, seed)
    assert ((result >= 0) & (result <= frames)).all()


def test_event_drop_takes_each_of_its_ways():
    frames = np.full((400, 10, 2, 10, 10), 3, dtype=np.int64)
    result = augmented("event_drop", frames, 0)
    untouched = (result == 3).all((1, 2, 3, 4))
    partly = ((result > 0) & (result < 3)).any((1, 2, 3, 4))
    whole_steps = ~untouched & ~partly & ((result == 0).all((2, 3, 4)) | (result == 3).all((2, 3, 4))).all(1)
    areas = ~untouched & ~partly & ~whole_steps
    for way in (untouched, whole_steps, areas, partly):
        assert 60 < way.sum() < 140
    thinned = result[partly].mean() / 3
    assert 0.4 < thinned < 0.6


def test_the_same_seed_gives_the_same_batch():
    augmentation = EventAugmentation(tuple(AUGMENTATIONS), classes=10)
    first, again, other = (dense(augmentation.sparse(batch_of(some_frames(1)), seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_mixup_mixes_frames_as_it_mixes_labels():
    frames = torch.eye(4)[:, :, None, None, None].expand(4, 4, 2, 3, 3)  # sample i is lit at step i alone
    labels = torch.tensor([0, 1, 2, 3])
    mixed, shares = EventAugmentation(("mixup",), classes=4).dense(frames, labels, seed=1)
    assert type(mixed) is torch.Tensor
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed[:, :, 0, 0, 0], shares)
    assert ((shares > 0).sum(1) == 2).all()
    unmixed, same = EventAugmentation(("flip",), classes=4).dense(frames, labels, seed=1)
    assert unmixed is frames
    assert same is labels


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown augmentation 'shear'; there are: flip, .*mixup"):
        EventAugmentation(("flip", "shear"), classes=4)
