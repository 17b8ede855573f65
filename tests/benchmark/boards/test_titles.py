"""Real names of what is compared, whatever stands in a record."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.boards.styles import FAMILIES, MARKS, style
from benchmark.boards.titles import DATA, NETWORKS, data_title, network_title
from benchmark.catalog import DATA as SETS
from benchmark.catalog import MODELS
from benchmark.questions.names import Data, NamedNetwork
from compressors.registry import COMPRESSORS


@pytest.mark.parametrize(
    ("data", "split", "title"),
    [
        ({"name": "cifar100", "official_checksums": False}, "official", "CIFAR-100"),
        (
            {"name": "nmnist", "split": "pooled", "window_us": 1000},
            "pooled",
            "N-MNIST, pooled split, windows of 1000 µs",
        ),
        ({"name": "digits_dvs"}, "fixed", "Digits-DVS"),
        ({"name": "my_package:Set", "size": 3}, "official", "my_package:Set, size 3"),
    ],
)
def test_data_sets(data, split, title):
    assert data_title(Data.model_validate(data), split) == title


@pytest.mark.parametrize(
    ("model", "title"),
    [
        ({"name": "vgg9", "width": 16, "norm": True}, "VGG9, a quarter of the width, BatchNorm"),
        ({"name": "vgg9", "width": 64, "norm": False}, "VGG9"),
        ({"name": "vgg9", "width": 48}, "VGG9, width 48"),
        ({"name": "conv", "hidden": 64, "width": 16}, "small CNN, half the width, 64 hidden neurons"),
        ({"name": "vgg16", "norm": False}, "VGG16, no BatchNorm"),
        ({"name": "nir", "checkpoint": "$SNNBENCH_DATA/nir/nmnist_cnn.nir"}, "nmnist_cnn (NIR)"),
        ({"name": "sew_resnet18", "checkpoint": "sew.pth"}, "SEW-ResNet-18, weights of sew"),
        ({"name": "my_net:build", "depth": 3}, "my_net:build, depth 3"),
    ],
)
def test_networks(model, title):
    assert network_title(NamedNetwork.model_validate(model)) == title


def test_everything_that_is_registered_has_a_name():
    own = {name for name, entry in MODELS.items() if entry.origin == "snnbench"} - {"nir"}
    assert own == set(NETWORKS)
    assert set(DATA) == {name for name, entry in SETS.items() if entry.origin == "snnbench"}


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1), st.one_of(st.booleans(), st.integers(0, 2**40), st.text()))
def test_names_out_of_records_are_no_formats(name, value):
    from benchmark.boards.titles import _WORDS, _said

    said = _said(name, value)
    if name not in _WORDS:
        assert name.replace("_", " ") in said


def test_a_name_that_looks_like_a_format_is_shown_as_it_is():
    data = Data.model_validate({"name": "nmnist", "{}{0.__class__}": 1})
    assert data_title(data, "official") == "N-MNIST, {}{0.  class  } 1"


def test_methods_of_a_family_share_a_mark_and_have_colours_of_their_own():
    for family, methods in FAMILIES.items():
        looks = [style(method) for method in methods]
        assert {(look.mark, look.symbol, look.glyph) for look in looks} == {MARKS[family]}
        assert len({look.colour for look in looks}) == len(methods)
    assert len(set(MARKS.values())) == len(MARKS)
    assert style("somebody_elses").family == "other"
    known = {method for methods in FAMILIES.values() for method in methods} | {"identity"}
    assert {name for name, entry in COMPRESSORS.items() if entry.origin == "snnbench"} <= known
