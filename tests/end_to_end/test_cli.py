"""The command line's manners: quick answers, suggestions, exit statuses."""

import io
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from click.testing import CliRunner

from benchmark.cli import _speak_to_every_terminal, main
from benchmark.commands import checkup as checks
from benchmark.commands.checkup import build_match, checkup, folder
from benchmark.records import RecordStore
from tests.benchmark.factory import make_suite_records
from tests.end_to_end.conftest import REPOSITORY

SMOKE = ["--checkpoint", str(REPOSITORY / "benchmark/smoke/dense.safetensors")]

HEAVY = {
    "torch",
    "lightning",
    "spikingjelly",
    "tonic",
    "torchvision",
    "wandb",
    "matplotlib",
    "numpy",
    "sklearn",
    "pydantic",
}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["list"], ["list", "--json"], ["run", "--help"], ["compress", "--help"], ["leaderboard", "--help"]],
)
def test_help_and_list_import_nothing_heavy(words):
    code = (
        "import sys; from click.testing import CliRunner; from benchmark.cli import main; "
        f"done = CliRunner().invoke(main, {words!r}); assert done.exit_code == 0, done.output; "
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["compress", "--checkpoint", "x.ckpt", "--method", "sbcc"],
        ["profile", "--checkpoint", "x.ckpt", "--energy", "seneka"],
        ["leaderboard", "--energy", "seneka"],
        ["data", "verify", "nmnst"],
        ["run", "smok"],
        ["plan", "smok"],
    ],
    ids=" ".join,
)
def test_a_misspelt_name_is_answered_before_anything_heavy_is_imported(words):
    code = (
        "import sys; from click.testing import CliRunner; from benchmark.cli import main; "
        f"done = CliRunner().invoke(main, {words!r}); assert done.exit_code == 2, done.output; "
        "assert 'did you mean' in done.output, done.output; "
        f"print(sorted({HEAVY - {'pydantic'}!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


MISTAKES = [
    ["profile"],
    ["profile", "--checkpoint", "x.ckpt"],
    ["profile", "--nir", "x.nir"],
    ["profile", *SMOKE, "--csv", "."],
    ["profile", *SMOKE, "--model", "convv"],
    ["profile", *SMOKE, "--model", "other_net:build"],
    ["profile", *SMOKE, "--model", "no_such_net:build"],
    ["profile", *SMOKE, "--data", "nmnst"],
    ["profile", *SMOKE, "--nir", "x.nir"],
    ["profile", *SMOKE, "--reset", "value"],
    ["profile", *SMOKE, "--model-option", "width=3"],
    ["sensitivity", "--checkpoint", "x.ckpt"],
    ["compress", *SMOKE],
    ["compress", *SMOKE, "--method", "sbc", "--density", "7"],
    ["compress", *SMOKE, "--method", "sbc", "--bits", "99"],
    ["compress", *SMOKE, "--method", "sbc", "--density", "0.5", "--synops", "0.5"],
    ["compress", *SMOKE, "--method", "sbc", "--density", "0.5", "--minimise", "memory"],
    ["compress", *SMOKE, "--method", "sbc", "--method", "obc", "--density", "0.5"],
    ["compress", *SMOKE, "--method", "sbc", "--max-drop", "1", "--synops", "0.5"],
    ["compress", "--checkpoint", "x.ckpt", "--method", "sbc", "--max-drop", "1"],
    ["compress", "--checkpoint", "x.ckpt", "--method", "sbc", "--density", "0.5"],
    ["compress", "--nir", "x.nir", "--method", "sbc", "--density", "0.5", "--plain"],
    ["run", "x.yaml"],
    ["run", "other.yaml"],
]


def test_mistakes_in_a_call_are_answered_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "other_net.py").write_text("import torch\n\ndef build(in_channels, num_classes=10): ...\n")
    (tmp_path / "other.yaml").write_text(
        "{name: other, data: [digits_dvs], models: ['other_net:build'], compressors: [magnitude], densities: [0.5]}"
    )
    code = (
        "import sys, time; from click.testing import CliRunner; from benchmark.cli import main\n"
        f"for words in {MISTAKES!r}:\n"
        "    start = time.perf_counter(); done = CliRunner().invoke(main, words)\n"
        "    assert done.exit_code == 2, (words, done.output); assert done.output, words\n"
        f"    assert not {HEAVY - {'pydantic', 'numpy'}!r} & set(sys.modules), words\n"
        "    print(time.perf_counter() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(MISTAKES)
    assert max(map(float, done.stdout.split())) < 3  # an import of torch alone takes as long


def test_list_names_everything_that_is_registered():
    from benchmark.catalog import DATA, MODELS
    from compressors.registry import COMPRESSORS

    listing = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)
    assert set(listing["compressors"]) == set(COMPRESSORS)
    assert set(listing["data"]) == set(DATA)
    assert set(listing["models"]) == set(MODELS)
    assert {"smoke", "nmnist"} <= set(listing["suites"])
    assert all(summary for entries in listing.values() for summary in entries.values())


TWICE = ("-o", "damping=0.1", "-o", "damping=0.2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "smok"], "unknown suite 'smok': did you mean 'smoke'?"),
        (["leaderboard", "--energy", "seneka"], "unknown energy profile 'seneka': did you mean 'seneca'?"),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbcc"], "unknown compressor 'sbcc': did you mean"),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbc"], "no checkpoint at x.ckpt"),
        (
            ["compress", *SMOKE, "--method", "rtn", "--density", "0.5"],
            "RTN does not prune: leave out",
        ),
        (
            ["compress", *SMOKE, "--method", "obc", "-o", "damping=true"],
            "damping is True: give a number",
        ),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbc", "--density", "1.5"], "density is 1.5"),
        (["run", "smoke", "--data-root", "nmnist"], "is not key=value"),
        (["compress", "--method", "sbc", "-o", "exclude=[*.10]"], """quote what is text, as in 'exclude=["*.10"]'"""),
        (["compress", "--method", "sbc", "-o", "exclude=*.10"], "what follows exclude= cannot be read as YAML"),
        (["compress", "--method", "sbc", "-o", "a={"], "what follows a= cannot be read as YAML"),
        (["compress", "--method", "sbc", "-o", "a=\x07"], "what follows a= cannot be read as YAML"),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbc", "--seed", "-1"], "-1 is not in the range"),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbc", "--max-memory", "nan"], "nan is no number of GiB"),
        (["compress", "--checkpoint", ".", "--method", "sbc"], ". is a folder: give the network's file"),
        (["compress", "--checkpoint", "x.ckpt", "--method", "sbc", *TWICE], "damping is given twice"),
    ],
)
def test_usage_errors_are_status_2_without_a_traceback(words, message):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_doctor_finds_this_installation_sound():
    bad = [finding for finding in checkup() if finding.state == "bad"]
    assert not bad


def test_doctor_speaks_of_a_broken_installation_instead_of_breaking(monkeypatch):
    monkeypatch.setattr(checks, "IMPORTS", ("json", "no_such_package"))

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(checks, "version", missing)
    findings = {finding.subject: finding for finding in checkup()}
    assert findings["torch"].state == "bad"
    assert "not installed" in findings["torch"].message
    assert findings["import json"].state == "ok"
    assert "No module named" in findings["import no_such_package"].message
    assert "not looked at" in findings["data sets"].message


@pytest.mark.parametrize(
    ("torch", "torchvision", "state"),
    [
        ("", "", "ok"),
        ("cpu", "cpu", "ok"),
        ("cpu", "", "bad"),
        ("", "cpu", "bad"),
        ("cu130", "", "ok"),
        ("cpu", "cu130", "bad"),
    ],
)
def test_doctor_knows_which_builds_fit(torch, torchvision, state):
    assert build_match(torch, torchvision).state == state


def test_doctor_names_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    finding = folder("cache", tmp_path / "file" / "below")
    assert finding.state == "bad"
    assert "SNNBENCH_CACHE" in finding.message


def test_a_calibration_set_larger_than_the_data_is_named_before_the_work(tiny, snnbench, monkeypatch):
    monkeypatch.setattr("benchmark.single_network.compress.compress", lambda *_, **__: pytest.fail("the work began"))
    monkeypatch.setattr("benchmark.runs.executors.local.answer", lambda *_, **__: pytest.fail("the work began"))
    said = "digits_dvs: 201 calibration samples are asked for, and"
    done = snnbench(*COMPRESS, "--calibration-samples", "201", "--output", "a.safetensors")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {said}")
    tiny.write_text(tiny.read_text().replace("calibration_samples: 20", "calibration_samples: 201"))
    done = snnbench("run", tiny, "--no-wandb")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


COMPRESS = ["compress", *SMOKE, "--method", "magnitude"]


@pytest.mark.parametrize(
    ("method", "options", "budgets"),
    [
        ("obc", ["-o", "allocation=loss"], "--density or --bits or --synops"),
        ("sbc", ["-o", "allocation=relative_loss", "--density", "1"], "--density or --bits or --synops"),
        ("magnitude", [], "--density or --bits or --synops"),
        ("rtn", [], "--bits"),
        ("qpsnn", ["-o", "criterion=sca"], "--density or --bits"),
        ("spatiotemporal", [], "--density or --bits"),
    ],
)
def test_to_ask_nothing_is_an_error_before_the_work(method, options, budgets, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.single_network.compress.compress", lambda *_, **__: pytest.fail("the work began"))
    output = ["--output", str(tmp_path / "a.safetensors")]
    done = CliRunner().invoke(main, ["compress", *SMOKE, "--method", method, *options, *output])
    said = f"error: nothing is asked of '{method}', and the network would stay as it is: give {budgets} (to write it as"
    assert (done.exit_code, done.output[: len(said)]) == (2, said)
    assert len(done.output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test that begins to read the network or the data before it has looked at where it has to write."""
    from benchmark.single_network import compress, profile

    for module in (compress, profile):
        monkeypatch.setattr(module, "open_subject", lambda _: pytest.fail("the work began"))
    monkeypatch.setattr("benchmark.commands.data._open", lambda *_: pytest.fail("the work began"))


@pytest.mark.parametrize(
    ("words", "output", "message"),
    [
        ([*COMPRESS, "--output"], "net-0.2", "let its name end in .safetensors or .nir"),
        ([*COMPRESS, "--output"], "pruned.pt", "let its name end in .safetensors or .nir"),
        ([*COMPRESS, "--output"], "pruned.SAFETENSORS", "let its name end in .safetensors or .nir"),
        ([*COMPRESS, "--output"], "folder.nir", "it is a folder"),
        ([*COMPRESS, "--output"], "link.safetensors", "it is the dense network"),
        ([*COMPRESS, "--output"], "pruned.nir", "its map would take the place of"),
        (["profile", *SMOKE, "--picture"], "bars.xyz", "let its name end in .png or .svg or .pdf"),
        (["profile", *SMOKE, "--csv"], "folder.nir", "it is a folder"),
        (["data", "show", "digits_dvs", "--picture"], "a.xyz", "let its name end in .png"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_the_work(words, output, message, tmp_path, no_work):
    (tmp_path / "folder.nir").mkdir()
    (tmp_path / "link.safetensors").symlink_to(SMOKE[1])
    for name in ("pruned.safetensors", "pruned.map.json"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(main, [*words, str(tmp_path / output)])
    assert done.exit_code == 2, done.output
    assert f"cannot write {tmp_path / output}: {message}" in done.output
    assert sorted(tmp_path.iterdir()) == before


def test_one_file_by_two_names_is_no_two_outputs(tmp_path, no_work):
    (tmp_path / "folder").mkdir()
    names = [tmp_path / "a.nir", tmp_path / "folder" / ".." / "a.nir"]
    done = CliRunner().invoke(main, [*COMPRESS, *(word for name in names for word in ("--output", str(name)))])
    assert done.exit_code == 2, done.output
    assert f"cannot write {names[0]} twice" in done.output


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([*COMPRESS, "--output"], "a.safetensors"),
        (["profile", *SMOKE, "--csv"], "a.csv"),
        (["profile", *SMOKE, "--picture"], "a.png"),
        (["data", "show", "digits_dvs", "--picture"], "a.png"),
        (["data", "verify", "digits_dvs", "--report"], "a.json"),
    ],
)
def test_a_folder_that_cannot_be_written_is_found_before_the_work(words, name, tmp_path, no_work):
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "below" / name
    done = CliRunner().invoke(main, [*words, str(target)])
    assert done.exit_code == 1, done.output
    assert f"cannot write {target}: Not a directory; free space, or choose another folder" in done.output


def test_a_results_folder_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.runs.job.OpenedData", lambda *_: pytest.fail("the work began"))
    (tmp_path / "file").touch()
    done = CliRunner().invoke(main, ["run", "smoke", "--no-wandb", "--results", str(tmp_path / "file" / "results")])
    assert done.exit_code == 1, done.output
    assert "Not a directory; free space, or choose another folder (of results: --results" in done.output


STARTS = {
    "console": ["-P", "-c", "import sys; from benchmark.cli import main; sys.path.remove(sys.argv.pop(1)); main()"],
    "-m": ["-m", "benchmark.cli"],
    "PYTHONPATH": ["-m", "benchmark.cli"],
}


@pytest.mark.parametrize("start", STARTS)
def test_modules_of_the_current_folder_do_not_take_the_place_of_the_projects(start, tmp_path):
    for name in ("hardware", "compressors", "datamodules"):
        (tmp_path / f"{name}.py").write_text(f"open('executed-{name}', 'w')")
    paths = [tmp_path, REPOSITORY] if start == "PYTHONPATH" else [REPOSITORY]
    words = [str(REPOSITORY)] if start == "console" else []  # what an editable installation finds without sys.path
    done = subprocess.run(
        [sys.executable, *STARTS[start], *words, "list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "magnitude" in done.stdout
    assert not list(tmp_path.glob("executed-*"))


def test_a_module_that_was_imported_under_a_packages_name_is_named(tmp_path):
    (tmp_path / "hardware.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", "import hardware, benchmark"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert f"the module 'hardware' ({tmp_path / 'hardware.py'}) hides the package of snnbench" in done.stderr


@pytest.mark.parametrize("words", [["list"], ["leaderboard", "--no-write"]], ids=" ".join)
def test_every_terminal_can_show_what_is_printed(words, tmp_path):
    """A leaderboard has a minus, a delta and a middle dot in it."""
    for record in make_suite_records(seeds=(0,)):
        RecordStore(tmp_path / "results").save(record)
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.cli", *words],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "LC_ALL": "C",
            "PYTHONIOENCODING": "ascii",
            "PYTHONUTF8": "0",
        },
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    assert done.stdout.isascii()
    assert b"?" not in done.stdout


def test_characters_that_a_terminal_has_not_are_near_ones(monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii"))
    _speak_to_every_terminal()
    print("Δ −5.94 · 8–9 µJ ± 2 … 網", flush=True)
    assert printed.getvalue() == b"d -5.94 * 8-9 uJ +/- 2 ... ?\n"
