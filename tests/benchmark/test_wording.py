"""Numbers for people: rounded to what is read, and never a unit too small or too large."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import wording
from hardware import units


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.1234, "0.123"),
        (999, "999"),
        (999.6, "1 k"),
        (1234, "1.23 k"),
        (999_499, "999 k"),
        (999_600, "1 M"),
        (1.234e9, "1.23 G"),
        (4.56e12, "4560 G"),
    ],
)
def test_counts_for_people(number: float, text: str) -> None:
    assert wording.count(number) == text


@pytest.mark.parametrize(
    ("bits", "text"),
    [(0, "0 B"), (8 * 1023, "1023 B"), (8 * 1024, "1 KiB"), (8 * 46694, "45.6 KiB"), (8 * 1010 * 1024, "1010 KiB"),
     (8 * 2**20, "1 MiB"), (8 * 3 * 2**30, "3 GiB")],
)  # fmt: skip
def test_sizes_for_people(bits: int, text: str) -> None:
    assert wording.size(bits) == text


def test_points_and_seconds_for_people() -> None:
    assert [wording.points(x) for x in (-0.012, 0.012, 0, -0.000001)] == ["−1.20", "+1.20", "+0.00", "+0.00"]
    assert [wording.seconds(x) for x in (0.123, 9.9, 12.3, 600, 36000)] == [
        "0.12 s", "9.9 s", "12 s", "10.0 min", "10.0 h",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 pJ"), (1.5e-13, "0.15 pJ"), (9.996e-10, "1 nJ"), (1.23e-5, "12.3 µJ"), (0.5, "500 mJ"), (1234, "1234 J")],
)
def test_joules_for_people(value: float, text: str) -> None:
    assert wording.joules(value) == text


def test_plain_numbers_for_people() -> None:
    assert [wording.rounded(x) for x in (0.123456, 32, 0)] == ["0.123", "32", "0"]
    assert [wording.precise(x) for x in (12345.678, 0.1234567, 3)] == ["12,345.7", "0.123457", "3"]
    assert wording.percent(0.934) == "93.40"


PREFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


@given(st.floats(1e-3, 1e15))
def test_what_is_shown_is_within_half_a_per_cent_of_what_is_meant(value: float) -> None:
    number, _, prefix = units.count(value).partition(" ")
    assert float(number) * PREFIXES[prefix] == pytest.approx(value, rel=0.0051)
    assert prefix == "G" or float(number) < 1000, "a larger unit would have been read more easily"


@pytest.mark.parametrize(
    ("dead_inputs", "text"),
    [
        ({}, ""),
        ({"conv1": 0}, ""),
        ({"conv1": 1, "fc": 0}, "1 input of layer conv1 was never active"),
        ({"conv1": 9, "fc": 1024}, "9 inputs of layer conv1, 1,024 inputs of layer fc were never active"),
    ],
)
def test_silent_inputs_are_named_on_one_line(dead_inputs: dict[str, int], text: str) -> None:
    assert wording.never_active(dead_inputs) == text
