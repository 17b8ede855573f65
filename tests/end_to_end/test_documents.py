"""What README and CONTRIBUTING tell people to do works."""

import re
import shlex

import pytest

from benchmark.cli import main
from tests.end_to_end.conftest import REPOSITORY


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (REPOSITORY / document).read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("README.md", "python"))
def test_python_of_the_readme_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert re.search(r"[\d,]+ synaptic operations a sample, [\d,]+ bytes", capsys.readouterr().out)


def commands() -> list[str]:
    lines = "\n".join(blocks("README.md", "sh")).splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.startswith("snnbench ")]


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_readme_parse(command):
    context = main.make_context("snnbench", shlex.split(command)[1:], resilient_parsing=False)
    name, subcommand, words = main.resolve_command(context, [*context.protected_args, *context.args])
    assert subcommand is not None
    subcommand.make_context(name, words, parent=context)


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make (demo|test|lint|perf)\b", (REPOSITORY / "README.md").read_text()))
    assert {"demo", "test"} <= named <= targets


def test_compressor_of_the_guide_meets_its_budget():
    from tests.compressors.networks import fit

    namespace: dict = {}
    exec(compile(blocks("CONTRIBUTING.md", "python")[0], "CONTRIBUTING.md", "exec"), namespace)
    compressor = namespace["FanOutMagnitude"](0.3)
    fit(compressor)
    assert compressor.compression.density == pytest.approx(0.3, abs=0.01)


def test_tables_name_every_compressor_and_data_set():
    from benchmark.catalog import DATA
    from compressors.registry import COMPRESSORS

    text = (REPOSITORY / "README.md").read_text()
    assert [name for name in (*COMPRESSORS, *DATA) if f"| `{name}` |" not in text] == []
