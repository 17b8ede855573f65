"""The simulated camera beside a pixel-by-pixel simulation, and the set that it fills."""

import hashlib
import math

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from datamodules import DigitsDVS
from datamodules.digits_dvs import CAMERA

DIGITS = load_digits().images.astype(np.int64)
ORIGIN = {"x": (34 - 24 - 7) / 2, "y": (34 - 24 - 7) / 2}


def position(step):
    """Displacement in pixels after `step` steps of 5 ms, floored to 1/32 pixel."""
    leg, part = divmod(step, 21)
    corners = [(0, 0), (112, 224), (224, 0), (0, 0)]
    if leg == 3:
        return 0.0, 0.0
    (x0, y0), (x1, y1) = corners[leg], corners[leg + 1]
    return tuple((start + (end - start) * part // 21) / 32 for start, end in ((x0, x1), (y0, y1)))


def level(image, x, y, step):
    """Log intensity at a pixel, in 1/1024, from plain bilinear interpolation."""
    dx, dy = position(step)
    column = (x + 0.5 - ORIGIN["x"] - dx) / 3 - 0.5
    row = (y + 0.5 - ORIGIN["y"] - dy) / 3 - 0.5
    total = 0.0
    for i in range(8):
        for j in range(8):
            total += image[i, j] * max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j))
    return round(1024 * math.log(0.15 + total / 16))


def test_a_recording_equals_a_simulation_pixel_by_pixel():
    image, seed = DIGITS[3], 5
    events = CAMERA.record(image, seed, 0)
    raw = np.random.PCG64([seed, 0]).random_raw(2 * 34 * 34).reshape(34 * 34, 2)
    for x, y in ((10, 10), (17, 17), (14, 22), (20, 8), (0, 0)):
        threshold = 384 + int(raw[y * 34 + x, 0] % 64)
        before = memory = level(image, x, y, 0)
        expected = []
        for step in range(63):
            now = level(image, x, y, step + 1)
            while abs(now - memory) >= threshold:
                memory += threshold if now > memory else -threshold
                time = step * 5000 + 5000 * (memory - before) // (now - before)
                expected.append((time, int(now > before)))
            before = now
        noise = [
            (int(bits >> 1 >> 16) % 315_000, int(bits >> 1) & 1)
            for bits in raw[:64, 1].tolist()
            if (bits >> 2) % 1156 == y * 34 + x
        ]
        here = events[(events["x"] == x) & (events["y"] == y)]
        assert sorted(here[["t", "p"]].tolist()) == sorted(expected + noise)


def test_a_dark_scene_gives_noise_alone():
    dark = np.zeros((8, 8), dtype=np.int64)
    assert [len(CAMERA.record(dark, 0, number)) for number in range(3)] == [CAMERA.noise_events] * 3


def test_a_recording_depends_on_image_seed_and_number_alone():
    first = CAMERA.record(DIGITS[7], 0, 7)
    CAMERA.record(DIGITS[8], 0, 8)
    np.testing.assert_array_equal(CAMERA.record(DIGITS[7], 0, 7), first)
    for other in (CAMERA.record(DIGITS[8], 0, 7), CAMERA.record(DIGITS[7], 1, 7), CAMERA.record(DIGITS[7], 0, 8)):
        assert not np.array_equal(other, first)


def test_recordings_are_like_nmnist_in_size_and_span():
    for number, image in enumerate(DIGITS[:50]):
        events = CAMERA.record(image, 0, number)
        assert 1000 < len(events) < 7000
        assert 300_000 < events["t"][-1] <= 315_000
        assert (np.diff(events["t"]) >= 0).all()
        assert 0.4 < events["p"].mean() < 0.6


def test_the_set_has_the_same_bits_on_every_machine():
    data = DigitsDVS(timesteps=4)
    together = hashlib.sha256()
    for file in data.samples.files:
        together.update(file.encode() + (data.root / file).read_bytes())
    assert together.hexdigest() == PINNED


PINNED = "8ebdab9c86f7f3d0df53bc14fcca71223df6ca11a5d388cde563459d4a6cd6d0"


def test_parts_are_fixed_disjoint_and_by_class():
    parts = DigitsDVS(timesteps=4).samples.parts
    sets = [set(where.tolist()) for where in (parts.train, parts.validation, parts.calibration_pool, parts.test)]
    assert [len(where) for where in sets] == [1080, 120, 200, 397]
    assert set.union(*sets) == set(range(1797))
    labels = DigitsDVS(timesteps=4).samples.labels
    for where in sets:
        assert np.ptp(np.bincount(labels[list(where)])) <= 0.06 * len(where)


def test_the_digits_can_be_told_apart():
    data = DigitsDVS(timesteps=3, frame_size=12, batch_size=2000)
    (train_x, train_y), (test_x, test_y) = (
        next(iter(loader)) for loader in (data.train_dataloader(), data.test_dataloader())
    )
    reader = RidgeClassifier(alpha=10).fit(train_x.flatten(1).numpy(), train_y.numpy())
    assert reader.score(test_x.flatten(1).numpy(), test_y.numpy()) > 0.93
