"""What annotations admit, and how they say it."""

import re
from collections.abc import Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from torch.utils.data import DataLoader

from compressors.annotations import Admitted, described, shown

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "words"),
    [
        (bool, [True], [1, 0, "no", "maybe", None], "true or false"),
        (int, [1, -2], [True, 1.0, "1", None], "a whole number"),
        (float, [1, 0.5], [True, "abc", "1", float("nan"), float("inf"), None], "a number"),
        (str, ["1"], [1, ["a"], None], "a text"),
        (str | None, ["a", None], [1], "a text, or nothing"),
        (str | Path | None, ["a", Path("a")], [3], "a text, or a path, or nothing"),
        (Path, [Path("a"), "a"], [1], "a path"),
        (Sequence[str], [["a"], ("a",), []], ["a", [1], {"a"}], "a list of texts"),
        (tuple[int, ...], [[1, 2], (1,)], [[1.5], [True], 1], "a list of whole numbers"),
        (tuple[int, int], [[1, 2], (1, 2)], [[1], "ab"], "a list of 2 whole numbers"),
        (list[int], [[1]], [[True], 1], "a list of whole numbers"),
        (float | Sequence[float] | None, [0.8, [1, 0.5], None], [True, [True], "x"], None),
        (Mapping[str, float], [{"a": 1}], [{"a": "b"}, {"a": True}, ["a"]], "a mapping of texts to numbers"),
        (Literal["time", "count"], ["time"], ["times", 1], "'time' or 'count'"),
        (Annotated[int, Field(gt=0)], [1], [0, -1, True, 1.0], "a whole number above 0"),
        (Annotated[float, Field(ge=0, le=1)], [0, 1], [-0.1, 2], "a number of at least 0 and of at most 1"),
        (DataLoader[Any], [DataLoader([1])], [[1]], "a DataLoader"),
    ],
)
def test_values_of_the_type_and_no_others_are_admitted(annotation, good, bad, words):
    admitted = Admitted(annotation)
    assert [value for value in good if not admitted.admits(value)] == []
    assert [value for value in bad if admitted.admits(value)] == []
    assert words is None or admitted.words == words


UNKNOWN = [Parameter.empty, Any, "Unknown", list["Unknown"], re.Pattern[int]]  # noqa: F821  # so it is


@pytest.mark.parametrize("annotation", UNKNOWN)
def test_what_says_nothing_admits_everything(annotation):
    assert all(Admitted(annotation).admits(value) for value in (1, "x", None, [True], object()))


WHOLE, TRUTH = Admitted(int), Admitted(bool)


@settings(max_examples=50)
@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_value_is_shown_on_one_line_and_judged(value):
    assert len(shown(value).splitlines()) == 1
    assert len(shown(value)) < 70
    assert WHOLE.admits(value) == (type(value) is int)
    assert TRUTH.admits(value) == (type(value) is bool)


def test_words_of_several():
    assert described(Sequence[Annotated[int, Field(gt=0)]]) == "a list of whole numbers above 0"
    assert described(Sequence[Path]) == "a list of paths"
