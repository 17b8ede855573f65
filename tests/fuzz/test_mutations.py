"""The mutations reach what they are meant to reach, and the check refuses what readers must not do."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import check_reader, fuzz, mutated


class Refused(ValueError):
    exit_status = 2


def read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: no JSON: {str(error).splitlines()[0]}") from error


def test_a_careful_reader_passes(tmp_path):
    fuzz(read_json, Refused, tmp_path / "a.json", b'{"n": 3, "name": "x"}', b"[1, 2]")


@pytest.mark.parametrize(
    ("hasty", "finding"),
    [
        (lambda path: json.loads(path.read_bytes()), ValueError),
        (lambda path: _refuse("no name in it"), AssertionError),
        (lambda path: _refuse(f"{path}: two\nlines"), AssertionError),
        (lambda path: bytearray(1 << 33), MemoryError),
    ],
    ids=["another error", "no name", "two lines", "memory"],
)
def test_a_hasty_reader_is_found(tmp_path, hasty, finding):
    path = tmp_path / "a.json"
    path.write_bytes(b"{")
    with pytest.raises(finding):
        check_reader(hasty, Refused, path)


def _refuse(message):
    raise Refused(message)


@settings(max_examples=100, derandomize=True, database=None)
@given(st.data())
def test_mutations_are_other_files_of_about_the_size(data):
    content = data.draw(mutated(b"shape: 12, 13" * 10))
    assert len(content) < 130 + 4 * 2000


def test_every_byte_of_a_small_file_is_reached():
    original, reached = bytes(range(48, 78)), set()

    @settings(max_examples=300, derandomize=True, database=None)
    @given(mutated(original))
    def collect(content):
        reached.update(i for i, (a, b) in enumerate(zip(original, content, strict=False)) if a != b)

    collect()
    assert reached == set(range(len(original)))
