"""The simulated camera beside a pixel-by-pixel simulation, and the set that it fills."""

import hashlib
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from datamodules import DigitsDVS
from datamodules.digits_dvs import CAMERA
from datamodules.mnist_dvs import CAMERA as MNIST_CAMERA
from tests.datamodules.pictures import digit_like

DIGITS = load_digits().images.astype(np.int64)


def position(camera, step):
    """Upper left corner after `step` steps of 5 ms in pixels, floored to 1/32 pixel."""
    now = step * camera.step_us
    for (start, *corner), (end, *following) in pairwise(camera.path):
        if start <= now <= end:
            return [(a + (b - a) * (now - start) // (end - start)) / 32 for a, b in zip(corner, following, strict=True)]
    raise AssertionError(now)


def blurred(camera, image):
    """Light spread to neighbours along rows, then columns, in whole grey values; none leaves the image."""
    image = image.astype(int)
    for axis in (0, 1) if camera.blur else ():
        result = np.zeros_like(image)
        for place in np.ndindex(image.shape):
            total = 128
            for step, share in ((-1, camera.blur), (0, 256 - 2 * camera.blur), (1, camera.blur)):
                at = list(place)
                at[axis] = min(max(at[axis] + step, 0), len(image) - 1)
                total += share * image[tuple(at)]
            result[place] = total // 256
        image = result
    return image


def level(camera, image, x, y, step):
    """Log intensity at a pixel, in 1/1024, from plain bilinear interpolation."""
    left, top = position(camera, step)
    column = (x + 0.5 - left) / (camera.pitch / 32) - 0.5
    row = (y + 0.5 - top) / (camera.pitch / 32) - 0.5
    total = 0.0
    for i, j in np.ndindex(image.shape):
        total += image[i, j] * max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j))
    return round(1024 * math.log(camera.dark + (camera.lit - camera.dark) * total / camera.max_grey))


def simulated(camera, image, x, y, raw):
    """Times and polarities of the events that a pixel's light causes."""
    brighter = camera.threshold + raw % camera.threshold_spread
    darker = brighter + (raw >> 20) % (camera.mismatch + 1)
    late = (raw >> 48) % (camera.latency_us + 1)
    before = level(camera, image, x, y, 0)
    memory = before + (raw >> 40) % (2 * camera.unrest + 1) - camera.unrest
    for step in range(camera.duration_us // camera.step_us):
        now = level(camera, image, x, y, step + 1)
        while now - memory >= brighter or memory - now >= darker:
            memory += brighter if now > memory else -darker
            time = camera.step_us * (step * (now - before) + memory - before) // (now - before)
            yield time + late, int(now > before)
        before = now


@pytest.mark.parametrize(
    ("camera", "image"), [(CAMERA, DIGITS[3]), (MNIST_CAMERA, digit_like(7, 0)), (MNIST_CAMERA, digit_like(2, 1))]
)
def test_a_recording_equals_a_simulation_pixel_by_pixel(camera, image):
    seed = 5
    events = camera.record(image, seed, 0)
    raw = np.random.PCG64([seed, 0]).random_raw(2 * 34 * 34).reshape(34 * 34, 2)
    seen = blurred(camera, image)
    for x, y in ((10, 10), (17, 17), (14, 22), (20, 8), (0, 0), (33, 33)):
        expected = list(simulated(camera, seen, x, y, int(raw[y * 34 + x, 0])))
        noise = [
            (int(bits >> 1 >> 16) % camera.duration_us, int(bits >> 1) & 1)
            for bits in raw[: camera.noise_events, 1].tolist()
            if (bits >> 2) % 1156 == y * 34 + x
        ]
        here = events[(events["x"] == x) & (events["y"] == y)]
        assert sorted(here[["t", "p"]].tolist()) == sorted(expected + noise)
    assert len(events) > 500


@pytest.mark.parametrize("shift", [(0, 3), (2, 0), (1, 4)])
def test_an_image_that_stands_elsewhere_gives_the_same_events_there(shift):
    alike = replace(MNIST_CAMERA, threshold_spread=1, mismatch=0, unrest=0, latency_us=0, noise_events=0)
    image = digit_like(3, 1)
    there = np.roll(image, shift, axis=(0, 1))
    assert there[: shift[0]].max(initial=0) == there[:, : shift[1]].max(initial=0) == 0
    events = alike.record(image, 0, 0)
    events["y"], events["x"] = events["y"] + shift[0], events["x"] + shift[1]
    np.testing.assert_array_equal(np.sort(alike.record(there, 9, 9)), np.sort(events))


def test_bright_digits_on_a_dark_ground_send_the_other_polarity():
    quiet = replace(MNIST_CAMERA, dark=1.0, lit=1.0 + 1e-9, noise_events=0)
    assert len(quiet.record(digit_like(3, 1), 0, 0)) == 0
    first = {}
    for name, lit in (("bright", 1.5), ("ink", 0.5)):
        events = replace(quiet, lit=lit, latency_us=0, unrest=0).record(digit_like(3, 1), 0, 0)
        first[name] = {(x, y): p for x, y, _, p in events[::-1].tolist()}  # each pixel's first
    both = first["bright"].keys() & first["ink"].keys()
    assert len(both) > 100
    assert np.mean([first["bright"][place] != first["ink"][place] for place in both]) > 0.95


@pytest.mark.parametrize("grey", [-1, 17])
def test_grey_values_that_the_camera_has_not_are_refused(grey):
    image = DIGITS[0].copy()
    image[3, 4] = grey
    with pytest.raises(ValueError, match=r"grey values go from .* expected 0 to 16"):
        CAMERA.record(image, 0, 0)


def test_more_events_than_expected_find_room():
    sensitive = replace(CAMERA, threshold=8, threshold_spread=1, noise_events=0)
    few = replace(sensitive, threshold=16)
    many, half = (len(camera.record(DIGITS[0], 0, 0)) for camera in (sensitive, few))
    assert many > 100_000
    assert half == pytest.approx(many / 2, rel=0.05)


def test_a_later_pixel_sends_the_same_events_later():
    prompt = replace(MNIST_CAMERA, latency_us=0)
    late = MNIST_CAMERA.record(digit_like(5, 0), 1, 2)
    caused = replace(prompt, noise_events=0)
    of_pixel = {}
    for name, camera in (("late", replace(MNIST_CAMERA, noise_events=0)), ("prompt", caused)):
        events = camera.record(digit_like(5, 0), 1, 2)
        of_pixel[name] = np.sort(events, order=["y", "x", "t"])
    delay = of_pixel["late"]["t"] - of_pixel["prompt"]["t"]
    assert delay.min() >= 0
    assert delay.max() <= MNIST_CAMERA.latency_us
    assert delay.mean() == pytest.approx(MNIST_CAMERA.latency_us / 2, rel=0.2)
    assert (np.diff(late["t"]) >= 0).all()


@pytest.mark.parametrize(("camera", "size"), [(CAMERA, 8), (MNIST_CAMERA, 28)])
def test_a_blank_image_gives_noise_alone(camera, size):
    blank = np.zeros((size, size), dtype=np.uint8)
    assert [len(camera.record(blank, 0, number)) for number in range(3)] == [camera.noise_events] * 3


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
