"""What a checkpoint says of itself is believed where it names what is registered, and nowhere else."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmark.catalog import DATA, MODELS
from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import checkpoints
from benchmark.questions import build
from benchmark.questions.names import Named, Told
from benchmark.single_network.subject import Source, open_subject
from hardware.registry import UnknownName, parameters_of

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
        (
            {"model": {"name": "mlp", "hidden": "many"}},
            "the model mlp: hidden is 'many': give a whole number above 0",
        ),
        ({"model": {"name": "mlp", "tau": True}}, "the model mlp: tau is True: give a number above 1"),
        ({"model": {"name": "mlp", "hidden": 0}}, "the model mlp: hidden is 0: give a whole number above 0"),
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


@pytest.fixture
def devices(monkeypatch):
    """The devices on which networks are built."""
    seen: list[str] = []
    build_network = build.network

    def spied(*arguments: Any) -> Any:
        seen.append(torch.empty(0).device.type)
        return build_network(*arguments)

    monkeypatch.setattr(build, "network", spied)
    return seen


@pytest.mark.parametrize(
    ("model", "beside", "message"),
    [
        (
            {"name": "mlp", "hidden": 10**6},
            {},
            "1.weight is .4, 2312. instead of .1000000, 2312.",
        ),
        (
            {"name": "mlp", "hidden": 10**15},
            {},
            "cannot be built: the model mlp",
        ),
        (
            {"name": "mlp", "hidden": 10**6},
            {"compressed": {}},
            "names a network of 2,322,000,000 values .* yourself",
        ),
        ({"name": "spikformer", "depth": 10**9}, {}, "cannot be built: .*it has more than 104 parameters"),
        ({"name": "qkformer", "depths": [1, 1, 10**9]}, {}, "cannot be built: .*it has more than 104 parameters"),
        ({"name": "vgg16", "width": 2**40}, {}, "network.safetensors"),
        ({"name": "mlp", "hidden": 10**18}, {"compressed": {}}, "network.safetensors"),
    ],
)
def test_a_header_costs_no_more_memory_than_its_file(tmp_path, devices, model, beside, message):
    with pytest.raises(CheckpointError, match=message) as error:
        opened(written(tmp_path, model=model, **beside))
    assert set(devices) == {"meta"}
    assert len(str(error.value).splitlines()) == 1


def test_a_users_own_words_are_compared_before_memory_is_spent_too(tmp_path, devices):
    with pytest.raises(CheckpointError, match="does not fit the network: 1.weight is"):
        opened(written(tmp_path), model={"name": "mlp", "hidden": 10**6})
    assert set(devices) == {"meta"}


def test_a_header_names_no_samples_that_fill_the_memory(tmp_path):
    with pytest.raises(CheckpointError, match="names samples of 50,000 steps of .2, 34, 34., .* yourself with"):
        opened(written(tmp_path, data={"name": "digits_dvs", "timesteps": 50_000}))


@pytest.mark.parametrize("name", [name for name in MODELS if not MODELS[name].reads_files])
def test_every_network_has_an_outline_that_is_its_own(name):
    builder = MODELS[name].load()
    shape, classes = builder.card.shape, builder.card.classes
    options = {"width": 32} if "width" in parameters_of(builder) else {}
    options |= {"heads": 4} if "heads" in parameters_of(builder) else {}
    outline = build.outline(Named(name=name, **options), shape, classes)
    network = build.network(Named(name=name, **options), shape, classes)
    assert {tensor.device.type for tensor in outline.state_dict().values()} == {"meta"}
    assert {n: (t.shape, t.dtype) for n, t in outline.state_dict().items()} == {
        n: (t.shape, t.dtype) for n, t in network.state_dict().items()
    }


def test_a_builder_of_ones_own_may_need_values(tmp_path, monkeypatch):
    (tmp_path / "valued.py").write_text(
        "import torch\nfrom benchmark.networks.zoo.mlp import mlp\n\n\ndef net(input_shape, classes):\n"
        "    return mlp(input_shape, classes, hidden=int(torch.tensor(4)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    _, module = opened(written(tmp_path), model={"name": "valued:net"})
    assert module.network[1].weight.shape == (4, 2312)
