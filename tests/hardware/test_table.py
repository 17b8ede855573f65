"""The cost report in a terminal: whole names, and as many columns as have room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hardware.energy import energy
from hardware.table import DISPENSABLE, WIDE, columns_that_fit, to_table
from tests.hardware.networks import deep_report


def printed(report, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as shown:
        console.print(to_table(report, energy(report), width))
    return shown.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, WIDE])
def test_no_name_is_broken_or_cut_at_any_width(width):
    report = deep_report()
    lines = printed(report, width)
    for layer in report.layers:
        assert sum(line.split()[:1] == [layer.name] for line in lines) == 1
    assert all(len(line) <= width for line in lines)
    assert "…" not in "\n".join(lines)


def test_the_note_on_the_energy_is_shorter_than_the_table():
    report = deep_report()
    lines = printed(report, 80)
    end = next(place for place, line in enumerate(lines) if line.startswith("total"))
    assert len(lines) - 1 - end <= 4
    assert "under horowitz_sram_45nm" in lines[end + 1]


widths = st.dictionaries(st.sampled_from(["layer", "ac", *DISPENSABLE]), st.integers(1, 30), min_size=1)


@given(widths, st.integers(1, 200), st.integers(0, 3))
def test_columns_go_in_their_order_and_none_more_than_has_to(widths, room, gap):
    kept = columns_that_fit(widths, DISPENSABLE, room, gap)
    gone = [name for name in DISPENSABLE if name in widths and name not in kept]
    assert gone == [name for name in DISPENSABLE if name in widths][: len(gone)]
    assert set(widths) - set(kept) == set(gone)

    def needed(names):
        return sum(widths[name] for name in names) + gap * (len(names) - 1)

    if gone:
        assert needed([*kept, gone[-1]]) > room
    assert needed(kept) <= room or not set(kept) & set(DISPENSABLE)
