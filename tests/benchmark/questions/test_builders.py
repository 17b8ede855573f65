"""What a builder of networks takes is told from its source, and one that takes something else is answered at once."""

import inspect

import pytest
from torch import nn

from benchmark.questions import build
from benchmark.questions.builders import BuilderError, check_builder, signature_of
from benchmark.questions.names import Named
from compressors.budget import OptionError

SOURCE = """
import sys
from os.path import join
from functools import partial
raise SystemExit("run, and not only read")

def positional(input_shape, classes): ...
def keywords(*, input_shape, classes, width=8, norm: "bool" = True): ...
def anything(**options): ...
def spread(input_shape, *more, classes=10, **options): ...
def other(in_channels, num_classes=10): ...
def nothing(): ...
def only(input_shape, classes, /): ...
def needs(input_shape, classes, width): ...
@partial
def decorated(x): ...
class Net:
    def __init__(self, input_shape, classes, width=(1, 2)): ...
class Derived(Net): ...
made = partial(other)
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(SOURCE)
    (tmp_path / "plain_nets.py").write_text("import os\nfrom os.path import join\n\ndef build(classes): ...\n")
    package = tmp_path / "in_package" / "deeper"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("raise SystemExit('run')")
    (package / "nets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", ["positional", "keywords", "anything", "spread", "Net"])
@pytest.mark.parametrize("module", ["nets", "in_package.deeper.nets"])
def test_builders_that_can_be_called_are_taken_unread_and_unrun(nets, module, name):
    signature = signature_of(f"{module}:{name}")
    assert signature is not None
    check_builder(f"{module}:{name}", signature, {})


@pytest.mark.parametrize("name", ["decorated", "Derived", "made", "join"])
def test_what_the_source_does_not_tell_is_left_to_the_import(nets, name):
    assert signature_of(f"nets:{name}") is None
    assert signature_of(f"plain_nets:{'join' if name == 'join' else 'os'}") is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("other", {}, r"takes \(in_channels, num_classes=10\), and is called with input_shape=\(C, H, W\)"),
        ("nothing", {}, "takes no arguments, and is called with"),
        ("only", {}, r"takes \(input_shape, classes, /\)"),
        ("needs", {}, "needs width: give --model-option width=..., or the arguments a default"),
        ("keywords", {"widht": 8}, "has no option 'widht': did you mean 'width'"),
        ("positional", {"width": 8}, "has no option 'width': it has no options"),
    ],
)
def test_other_builders_are_answered_with_what_they_take(nets, name, options, message):
    signature = signature_of(f"nets:{name}")
    assert signature is not None
    with pytest.raises(BuilderError, match=message) as error:
        check_builder(f"nets:{name}", signature, options)
    assert error.value.exit_status == 2


def test_the_example_in_the_answer_is_a_builder(nets):
    with pytest.raises(BuilderError) as error:
        check_builder("nets:other", inspect.signature(lambda x: x), {})
    example = str(error.value).partition("\n\n")[2]
    assert len(example.splitlines()) == 3
    space = {"nn": nn}
    exec(example, space)
    check_builder("nets:other", inspect.signature(space["other"]), {"width": 4})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_nets:build", "there is no module 'no_such_nets'; it is looked for in the current folder"),
        ("in_package.nowhere:build", "there is no module 'in_package.nowhere'"),
        ("plain_nets:bild", "its module has no 'bild': did you mean 'build'"),
    ],
)
def test_names_of_nothing_are_answered(nets, target, message):
    with pytest.raises(BuilderError, match=message):
        signature_of(target)


def test_a_builder_that_only_its_import_shows_is_looked_at_then():
    with pytest.raises(BuilderError, match=r"takes \(size\)"):
        build.network(Named(name=f"{__name__}:built_elsewhere"), (2, 4, 4), 10)
    with pytest.raises(OptionError, match="its builder returns a str: return a nn.Module"):
        build.network(Named(name=f"{__name__}:wrong"), (2, 4, 4), 10)


def built_elsewhere(size): ...


def wrong(input_shape, classes):
    return "network"
