"""Names of other packages: by entry point, by module, and broken ones."""

import json
import sys

import pytest
from click.testing import CliRunner

from benchmark.catalog import DATA, MODELS
from benchmark.cli import main
from compressors.registry import COMPRESSORS
from hardware.catalog import energy_profiles
from hardware.registry import Entry, PluginError, Registry, UnknownName

GROUP = "snnbench.compressors"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts packages, each a module and its entry points, where Python finds them."""

    def install(package: str, entries: dict[str, str], module: str = "", group: str = GROUP) -> None:
        (tmp_path / f"{package}.py").write_text(module)
        meta = tmp_path / f"{package}-1.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {target}" for name, target in entries.items()]
        (meta / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))

    monkeypatch.syspath_prepend(tmp_path)
    energy_profiles.cache_clear()
    yield install
    energy_profiles.cache_clear()
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def registry() -> Registry:
    return Registry("compressor", GROUP, {"identity": Entry("compressors.methods.identity:Identity", "the control")})


def test_a_plug_in_is_found_by_its_name(installed):
    installed("sound_plugin", {"answer": "sound_plugin:ANSWER"}, "ANSWER = 42")
    names = registry()
    assert list(names) == ["identity", "answer"]
    assert names["answer"].origin == "sound_plugin"
    assert names["answer"].load() == 42
    assert names.problems() == {}


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise RuntimeError('bad day')", "RuntimeError: bad day"),
        ("def (", "SyntaxError"),
        ("other = 1", "AttributeError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("class Panic(BaseException): pass\nraise Panic('index out of bounds')", "Panic: index out of bounds"),
    ],
)
def test_a_broken_plug_in_is_named_with_its_error_and_breaks_nothing_else(installed, module, message):
    installed("broken_plugin", {"broken": "broken_plugin:Broken"}, module)
    installed("sound_plugin", {"answer": "sound_plugin:ANSWER"}, "ANSWER = 42")
    names = registry()
    assert names["answer"].load() == 42
    assert list(names.problems()) == ["broken"]
    assert message in names.problems()["broken"]
    with pytest.raises(PluginError, match="mend or uninstall the package 'broken_plugin'") as caught:
        names["broken"].load()
    assert caught.value.exit_status == 2


def test_ctrl_c_while_a_plug_in_loads_is_nobodys_fault(installed):
    installed("slow_plugin", {"slow": "slow_plugin:Slow"}, "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry().problems()


def test_a_name_that_is_taken_stays_with_its_owner(installed):
    installed("grabbing_plugin", {"identity": "grabbing_plugin:ANSWER"}, "ANSWER = 42")
    installed("a_plugin", {"answer": "a_plugin:ANSWER"}, "ANSWER = 1")
    installed("b_plugin", {"answer": "b_plugin:ANSWER"}, "ANSWER = 2")
    names = registry()
    assert names["identity"].origin == "snnbench"
    assert names["answer"].load() == 1
    problems = names.problems()
    assert "'identity', a name that 'snnbench' uses already: rename its entry point" in problems["identity"]
    assert "the package 'b_plugin' registers the compressor 'answer', a name that 'a_plugin' uses" in problems["answer"]


def test_anything_can_be_named_by_its_module_by_a_user_and_by_nobody_else(installed):
    installed("loose", {}, "class Mine:\n    pass")
    assert registry().by_user("loose:Mine").load().__name__ == "Mine"
    assert "loose:Mine" not in list(registry())
    with pytest.raises(UnknownName, match="unknown compressor 'loose:Mine'"):
        registry()["loose:Mine"]
    with pytest.raises(PluginError, match="loose:Yours cannot be loaded .*mend the module or its name"):
        registry().by_user("loose:Yours").load()
    with pytest.raises(UnknownName, match="unknown compressor 'identiy': did you mean 'identity'"):
        registry()["identiy"]


@pytest.mark.parametrize(
    ("names", "module", "message"),
    [
        (COMPRESSORS, "def thing(): pass", "of type function, but must be a class derived from compressors.base.Compr"),
        (COMPRESSORS, "class thing: pass", "the class thing, but must be a class derived from compressors.base.Compr"),
        (COMPRESSORS, "from compressors import Identity\nthing = Identity()", "of type Identity, but must be a class"),
        (DATA, "class thing: pass", "the class thing, but must be a class derived from datamodules.base.Benchmark"),
        (MODELS, "thing = 3", "of type int, but must be an object of collections.abc.Callable"),
        (energy_profiles(), "thing = 3", "of type int, but must be an object of collections.abc.Mapping"),
    ],
)
def test_what_is_of_another_kind_is_refused(installed, names, module, message):
    installed("odd_plugin", {"odd": "odd_plugin:thing"}, module, names.group)
    with pytest.raises(PluginError, match=f"odd_plugin:thing is {message}.*mend the module or its name") as caught:
        names.by_user("odd_plugin:thing").load()
    assert caught.value.exit_status == 2
    fresh = Registry(names.kind, names.group, {}, names.requirement)
    assert "uninstall the package 'odd_plugin'" in fresh.problems()["odd"]


MODULE = """
from compressors import Identity
from datamodules import DigitsDVS

class Mine(Identity):
    pass

class Digits(DigitsDVS):
    pass

def network(input_shape, classes):
    pass
"""


def test_what_is_of_its_kind_is_let_through(installed):
    installed("even_plugin", {}, MODULE)
    for names, attribute in ((COMPRESSORS, "Mine"), (DATA, "Digits"), (MODELS, "network"), (MODELS, "Digits")):
        assert names.by_user(f"even_plugin:{attribute}").load().__name__ == attribute


def test_list_shows_broken_plug_ins_apart(installed, monkeypatch):
    installed("broken_plugin", {"broken": "broken_plugin:Broken"}, "import no_such_module")
    monkeypatch.setattr("compressors.registry.COMPRESSORS", registry())
    listing = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)
    assert "no_such_module" in listing["problems"]["broken"]
    assert "identity" in listing["compressors"]
    text = CliRunner().invoke(main, ["list"])
    assert text.exit_code == 0
    assert "no_such_module" in text.stdout


PROFILE = """
MINE = {
    "title": "my chip", "uncertainty": "made up", "state_bits": 16,
    "terms": {"operation": {"count": "ac", "points": [{"pj": 2.0, "source": "none", "status": "guess"}]}},
}
WRONG = {"title": "half of one"}
"""


def test_energy_profiles_of_other_packages(installed):
    from hardware.energy import load_profile

    installed("chip_plugin", {"my-chip": "chip_plugin:MINE"}, PROFILE, group="snnbench.energy")
    installed("lost_plugin", {"lost-chip": "no_such_module:MINE"}, group="snnbench.energy")
    assert load_profile("my-chip") == load_profile("chip_plugin:MINE")
    assert load_profile("my-chip").terms["operation"].points[0].pj == 2.0
    for name, error, message in (
        (
            "lost-chip",
            PluginError,
            "no_such_module:MINE cannot be loaded .*uninstall the package 'lost_plugin'",
        ),
        ("chip_plugin:THEIRS", PluginError, "AttributeError"),
        ("chip_plugin:WRONG", ValueError, "uncertainty"),
        ("my-chap", UnknownName, "unknown energy profile 'my-chap': did you mean 'my-chip'"),
    ):
        with pytest.raises(error, match=message):
            load_profile(name)


def test_energy_profiles_are_listed_with_their_problems(installed):
    from hardware.energy import profile_names

    installed("chip_plugin", {"my-chip": "chip_plugin:MINE"}, PROFILE, group="snnbench.energy")
    installed("lost_plugin", {"lost-chip": "no_such_module:MINE"}, group="snnbench.energy")
    listing = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)
    assert set(listing["energy"]) == {*profile_names(), "my-chip", "lost-chip"}
    assert "ModuleNotFoundError" in listing["problems"]["lost-chip"]
    assert "my-chip" not in listing["problems"]
