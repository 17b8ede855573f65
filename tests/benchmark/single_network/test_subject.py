"""What a checkpoint says of itself is believed where it names what is registered, and nowhere else."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmark.catalog import DATA, MODELS
from benchmark.networks.weights import checkpoints
from benchmark.questions import build
from benchmark.questions.names import Named, Told
from benchmark.single_network.subject import Source, open_subject
from hardware.registry import UnknownName

DIGITS = {"name": "digits_dvs", "timesteps": 2}


def written(folder: Path, **description: Any) -> Path:
    """A sound checkpoint of a small network that says this of itself."""
    network = MODELS["mlp"].load()((2, 34, 34), 10, hidden=4)
    path = folder / "network.safetensors"
    header = {"snnbench": json.dumps({"model": {"name": "mlp", "hidden": 4}, "data": DIGITS, **description})}
    save_file(network.state_dict(), path, metadata=header)
    return path


def opened(path: Path, model: dict[str, Any] | None = None, data: dict[str, Any] | None = None) -> Any:
    subject = open_subject(Source(path, model, data, None, 10, 0))
    return subject, subject.module()


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A module that leaves a trace when it is imported."""
    (tmp_path / "own_code.py").write_text(
        "import builtins\nbuiltins.imported_own_code = True\nfrom benchmark.networks.zoo.mlp import mlp as net\n"
        "from datamodules.digits_dvs import DigitsDVS as Digits\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import builtins

    yield lambda: getattr(builtins, "imported_own_code", False)
    sys.modules.pop("own_code", None)
    if hasattr(builtins, "imported_own_code"):
        del builtins.imported_own_code


@pytest.mark.parametrize(
    "description",
    [{"model": {"name": "own_code:net", "hidden": 4}}, {"data": {**DIGITS, "name": "own_code:Digits"}}],
    ids=["model", "data"],
)
def test_a_header_runs_no_code_and_its_user_may(tmp_path, own_code, description):
    path = written(tmp_path, **description)
    with pytest.raises(
        UnknownName, match=r"own_code:.*not registered and is not run.*name it yourself with --"
    ) as error:
        opened(path)
    assert error.value.exit_status == 2
    assert not own_code()
    opened(path, **description)
    assert own_code()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"model": {"name": "nir", "path": "/etc/hostname"}}, "'nir', which reads another file"),
        ({"model": {"name": "mlp", "checkpoint": "/etc/hostname"}}, "has no option 'checkpoint'"),
        ({"model": {"name": "mlp", "width": 4}}, "has no option 'width'"),
        ({"model": {"name": "mlp", "hidden": -4}}, "hidden: -4 is below 0"),
        ({"model": {"name": "mlp", "hidden": "many"}}, "the model mlp"),
        ({"model": {"name": "mlp", "hidden": 10**15}}, "the model mlp"),
        ({"model": {"name": "../mlp"}}, "model's name"),
        ({"model": {}}, "model's name: Field required"),
        ({"model": "mlp"}, "its model is no mapping"),
        ({"data": []}, "its data is no mapping"),
        ({"data": {"name": "digits_dvs", "timesteps": 0}}, "data set's timesteps"),
        ({"training": {"learning_rate": "fast"}}, "training's learning_rate"),
        ({"training": 3}, "the training"),
        ({"timesteps": 10**12}, "time steps are 1000000000000"),
        ({"timesteps": "2"}, "time steps are '2'"),
    ],
)
def test_what_a_header_says_is_checked(tmp_path, description, message):
    with pytest.raises(Exception, match=message) as error:
        opened(written(tmp_path, **description))
    assert error.value.exit_status in (1, 2)
    assert len(str(error.value).splitlines()) == 1


def test_a_sound_header_is_believed(tmp_path):
    subject, module = opened(written(tmp_path, timesteps=1))
    assert isinstance(subject.model, Told)
    assert subject.model.label == "mlp[hidden=4]"
    assert module.timesteps == 1


def test_what_we_say_of_a_nir_file_is_no_word_of_the_file(tmp_path):
    path = tmp_path / "network.nir"
    path.write_bytes(b"\x89HDF")
    checkpoint = checkpoints.load(path)
    assert checkpoint.described_by_us
    assert Named.model_validate(checkpoint.description["model"]).found_in(MODELS) is MODELS["nir"]


def test_a_user_and_a_file_are_asked_differently():
    assert Named(name="os:system").found_in(DATA).target == "os:system"
    with pytest.raises(UnknownName):
        Told(name="os:system").found_in(DATA)
    with pytest.raises(UnknownName, match="'os:system'"):
        build.network(Told(name="os:system"), (2, 4, 4), 2)


def test_a_missing_checkpoint_of_torch_says_to_name_the_model(tmp_path):
    path = tmp_path / "plain.pt"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(Exception, match="does not say which model it belongs to: give --model"):
        opened(path)
