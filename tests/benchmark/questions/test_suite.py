"""Suite files: expansion, stable ids, and errors that name line and remedy."""

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from benchmark.catalog import SUITES, suite_path
from benchmark.cli import main
from benchmark.networks.errors import CheckpointError
from benchmark.questions.build import check_suite, questions_of
from benchmark.questions.reading import line_of, read_yaml
from benchmark.questions.suite import Question, Suite, SuiteError, digest, load_suite
from compressors.budget import OptionError
from compressors.registry import UnknownName
from tests.conftest import REAL_DATA

GOOD = """\
name: tiny
data: [{name: digits_dvs, timesteps: 3}]
models: [mlp, {name: conv, width: 4, compressors: [magnitude]}]
compressors: [identity, magnitude]
densities: [0.5, 0.1]
seeds: [0, 1]
"""


def write(tmp_path, text):
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    return path


def test_expansion_is_the_product_less_what_models_leave_out(tmp_path):
    questions = questions_of(load_suite(write(tmp_path, GOOD)))
    assert len(questions) == 2 * (1 + 2) + 2 * 2
    labels = [question.label for question in questions]
    assert len(set(labels)) == len(labels)
    assert "digits_dvs conv[width=4] magnitude density 0.1 seed 1" in labels
    assert not any("conv" in label and "identity" in label for label in labels)


def test_ids_depend_on_the_question_and_on_nothing_else(tmp_path):
    first, second = (questions_of(load_suite(write(tmp_path, GOOD))) for _ in range(2))
    assert [q.id("f", 1) for q in first] == [q.id("f", 1) for q in second]
    ids = {q.id(fingerprint, version) for q in first for fingerprint in "fg" for version in (1, 2)}
    assert len(ids) == 4 * len(first)
    assert len({q.dense_id("f") for q in first}) == 4  # two models, two seeds


def test_ids_stay_what_they_are_across_versions_of_the_code():
    question = Question.model_validate(
        {
            "data": {"name": "digits_dvs", "timesteps": 3},
            "model": {"name": "mlp"},
            "training": {},
            "compressor": {"name": "magnitude", "allocation": "lamp"},
            "density": 0.1,
            "calibration_samples": 10,
            "seed": 0,
        }
    )
    assert question.id("fingerprint", 1) == "162a05a25c02"
    assert question.dense_id("fingerprint") == "a899082442af"


def test_digest_ignores_the_order_of_keys_and_the_kind_of_sequence():
    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("seeds:", "sedes:"), 6, "unknown key 'sedes': did you mean 'seeds'?"),
        (("densities: [0.5, 0.1]", "densities: [0.5, 1.1]"), 5, "densities.1: density is 1.1: give a number above 0"),
        (("densities: [0.5, 0.1]", "joint: [{density: 0.5, bit: 4}]"), 5, "unknown key 'bit': did you mean 'bits'?"),
        (("densities: [0.5, 0.1]", "joint: [{density: 0.5, bits: 9}]"), 5, "joint.0: bits is 9: give a whole number"),
        (("timesteps: 3", "timesteps: 0"), 2, "timesteps"),
        (("densities: [0.5, 0.1]\n", ""), 1, "densities"),
        (("seeds: [0, 1]", "seeds: [0, x]"), 6, "seeds.1"),
        (("seeds: [0, 1]", "training: {epoch: 3}"), 6, "unknown key 'epoch': did you mean 'epochs'?"),
        (("name: tiny", "name: a/b"), 1, "name"),
        (("name: tiny", "name: .."), 1, "name"),
        (("[0.5, 0.1]", "[0.5, 0.5]"), 5, "densities: 0.5 is there twice"),
        (("[0.5, 0.1]", "[0.5]\ndensities: [0.1]"), 6, "the key 'densities' is there twice"),
        (("[0.5, 0.1]", "[.nan]"), 5, ".nan is no finite number"),
        (("seeds: [0, 1]", "seeds: [0, -1]"), 6, "seeds.1"),
        (("seeds: [0, 1]", "seeds: [0, 4294967296]"), 6, "seeds.1"),
        (("seeds: [0, 1]", "seeds: [1, 1]"), 6, "seeds: 1 is there twice"),
        (("seeds: [0, 1]", "training: {learning_rate: .inf}"), 6, ".inf is no finite number"),
        (("seeds: [0, 1]", "training: {learning_rate: 1.0e+999}"), 6, "1.0e+999 is no finite number"),
        (("seeds: [0, 1]", "training: {learning_rate: '1e999'}"), 6, "training.learning_rate"),
        (("mlp,", "mlp, mlp,"), 3, "models: mlp is there twice"),
        (("width: 4", "width: -4"), 3, "models.1.width: -4 is below 0"),
        (("width: 4", "width: 4, width: 5"), 3, "the key 'width' is there twice"),
        (("width: 4", "width: 2020-01-01"), 3, "'2020-01-01' is a date"),
        (("width: 4", "width: &a [*a]"), 3, "holds itself"),
        (("width: 4", "width: &a {b: *a}"), 3, "holds itself"),
        (("width: 4", "width: !!binary aGVs"), 3, "is a binary"),
        (("width: 4", "width: !!bool 4"), 3, "no value that can be read"),
        (("width: 4", "width: " + 5000 * "9"), 3, "no value that can be read"),
        (("width: 4", "width: " + 30 * "9"), 3, "more than 64 bits"),
        (("width: 4", "width: " + 30 * "[" + 30 * "]"), 3, "more than 16 deep"),
        (("width: 4", "width: " + 99 * "[" + 99 * "]"), 3, "more than 50 deep"),
        (("width: 4", 'width: "4\\n"'), 3, "models.1.width: a text holds the character"),
        (("width: 4", "width: *nobody"), 3, "undefined alias"),
        (("width: 4", "? [a]\n : 4"), 3, "a key is a list"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_mistakes_name_file_line_and_remedy(tmp_path, change, line, message):
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(SuiteError) as error:
        load_suite(path)
    assert f"{path}:{line}: " in str(error.value)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_aliases_are_counted_as_if_they_were_written_out(tmp_path):
    """Each list holds the one before it nine times: 9 ** 10 values in less than a kilobyte."""
    nested = "".join(f", {b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    text = GOOD.replace("width: 4", f"width: {{a: &a [x, x, x, x, x, x, x, x, x]{nested}}}")
    with pytest.raises(SuiteError, match=r"suite\.yaml:3: with its aliases written out it has more than 100000 values"):
        load_suite(write(tmp_path, text))
    shared = GOOD.replace("width: 4", "width: &a [1, 2], other: *a")
    assert load_suite(write(tmp_path, shared)).models[1].options == {"width": [1, 2], "other": [1, 2]}


@pytest.mark.parametrize("text", ["[" * 100_000, "? " * 100_000, "#" * 300_000, "\x07"], ids=["[", "?", "#", "bell"])
def test_what_is_too_deep_too_large_or_no_text_is_refused_at_once(tmp_path, text):
    with pytest.raises(SuiteError, match=r"suite\.yaml:1: (it|lists|a)"):
        load_suite(write(tmp_path, text))


def test_a_suite_says_which_code_it_runs(tmp_path):
    text = GOOD.replace("[identity,", "[identity, 'my_code:Mine',").replace("[mlp,", "['my_nets:net', mlp,")
    path = write(tmp_path, text)
    assert load_suite(path).modules == ["my_nets:net", "my_code:Mine"]
    result = CliRunner().invoke(main, ["plan", str(path), "--results", str(tmp_path)])
    assert f"{path} runs code that it names: my_nets:net, my_code:Mine" in result.stderr
    assert result.exit_code == 2  # there is no such code
    assert load_suite(write(tmp_path, GOOD)).modules == []


@pytest.mark.parametrize("option", ["exclude=[*.10]", "a={b: 1, b: 2}", "a=2020-01-01", "a=[", "a=.inf"])
def test_an_option_of_the_command_line_is_read_with_the_same_care(option):
    result = CliRunner().invoke(main, ["check", "magnitude", "-o", option])
    assert result.exit_code == 2
    assert "cannot be read as YAML" in result.stderr


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [unclosed\n", "!!python/object/apply:os.getcwd []\n"])
def test_what_is_no_suite_is_refused(tmp_path, text):
    with pytest.raises(SuiteError, match=r"suite\.yaml"):
        load_suite(write(tmp_path, text))


def test_line_of_what_is_not_there_is_that_of_what_encloses_it():
    assert line_of(None, ["a"]) == 1


def test_names_and_paths_of_suites(tmp_path):
    assert suite_path("smoke").name == "smoke.yaml"
    path = write(tmp_path, GOOD)
    assert suite_path(str(path)) == path
    with pytest.raises(UnknownName, match="'smok'.*did you mean 'smoke'"):
        suite_path("smok")
    with pytest.raises(UnknownName, match="no suite file"):
        suite_path("absent.yaml")


def test_several_calibration_sizes_are_as_many_runs_but_for_the_dense_network(tmp_path):
    text = GOOD.replace("densities:", "calibration_samples: [10, 50]\ndensities:")
    questions = questions_of(load_suite(write(tmp_path, text)))
    sizes = {name: [q.calibration_samples for q in questions if q.compressor.name == name and q.seed == 0] for name in
             {q.compressor.name for q in questions}}  # fmt: skip
    assert sizes.pop("identity") == [10]
    assert all(sorted(found) == [10] * (len(found) // 2) + [50] * (len(found) // 2) for found in sizes.values())


FROM_SCRATCH = """\
name: tiny
data: [{name: digits_dvs, timesteps: 3}]
models: [mlp, {name: conv, compressors: [identity, magnitude]}]
compressors: [identity, magnitude, dst]
densities: [1.0, 0.1]
aftercare: [means]
training: {epochs: 7}
"""


@pytest.mark.parametrize(
    ("more", "epochs"),
    [("", 7), ("finetuning: {epochs: 5}\n", 12), ("from_scratch: {epochs: 3}\nfinetuning: {epochs: 5}\n", 3)],
)
def test_from_scratch_means_as_many_epochs_as_the_others_have_in_all_and_a_dense_control(tmp_path, more, epochs):
    questions = questions_of(load_suite(write(tmp_path, FROM_SCRATCH + more)))
    anew = [question for question in questions if question.from_scratch is not None]
    of_mlp = [(q.compressor.name, q.budget.density) for q in anew if q.model.name == "mlp"]
    assert of_mlp == [("identity", 1.0), ("dst", 1.0), ("dst", 0.1)]
    assert {q.course.epochs for q in anew} == {epochs}
    assert {(q.division, q.condition) for q in anew} == {("trained sparse", f"from scratch, {epochs} epochs")}
    assert all(q.finetuning is None and not q.aftercare for q in anew)
    assert all("from scratch" in q.label and q.label not in {r.label for r in questions if r is not q} for q in anew)
    # a network without such a method has the control only where the suite asks for it
    assert [q.compressor.name for q in anew if q.model.name == "conv"] == (
        ["identity"] if "from_scratch" in more else []
    )
    others = [q for q in questions if q.from_scratch is None]
    assert {q.compressor.name for q in others} == {"identity", "magnitude"}
    assert len(others) == 2 * (1 + 2)
    assert len({q.id("f", 1) for q in questions}) == len(questions)
    assert len({q.dense_id("f") for q in questions}) == 2  # what they are compared with is the same dense network


def test_a_question_says_that_it_starts_from_scratch_and_others_read_as_before(tmp_path):
    for question in questions_of(load_suite(write(tmp_path, FROM_SCRATCH))):
        content = question.model_dump(mode="json")
        assert Question.model_validate(content) == question
        assert ("from_scratch" in content) == (question.from_scratch is not None)


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_suites_are_sound(path, monkeypatch):
    monkeypatch.setenv("SNNBENCH_DATA", str(REAL_DATA))
    suite = load_suite(path)
    assert isinstance(suite, Suite)
    assert suite.name == path.stem
    assert suite.description
    for model in suite.models:
        if model.weights is not None and not model.weights.is_file():
            pytest.skip(f"the checkpoint of {model.label} is not at {model.weights}")
    check_suite(suite)
    assert questions_of(suite)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width: 4", "width: 0", "the model conv: width is 0: give a whole number above 0"),
        ("width: 4", "width: true", "the model conv: width is True: give a whole number above 0"),
        ("width: 4", "tau: 0.5", "the model conv: tau is 0.5: give a number above 1"),
        ("timesteps: 3", "frame_size: 2", "the model conv.width=4.: "),
        ("name: conv, width: 4", "name: qkformer, heads: 5", "the model qkformer.heads=5.: .*divi"),
        ("name: conv, width: 4", "name: sew_resnet18, connect: NOR", "connect is 'NOR': give 'ADD' or 'AND' or 'IAND'"),
        ("timesteps: 3", "frame_size: 99", "frame size .99, 99. does not fit"),
        ("timesteps: 3", "binarize: 1", "the data set digits_dvs: binarize is 1: give true or false"),
        ("timesteps: 3", "augment: [flop]", "unknown augmentation 'flop'"),
        (
            "seeds: [0, 1]",
            "training: {loss: cross_entrpy}",
            "unknown loss 'cross_entrpy': did you mean 'cross_entropy'",
        ),
        (
            "[identity, magnitude]",
            "[identity, {name: magnitude, search: 1}]",
            "magnitude: search is 1: give true or fa",
        ),
        ("[identity, magnitude]", "[identity, {name: magnitude, schedule: 2}]", "schedule is 2: give a factor between"),
    ],
)
def test_mistakes_of_a_suite_are_found_before_any_work(tmp_path, monkeypatch, old, new, message):
    monkeypatch.setenv("SNNBENCH_DATA", str(tmp_path / "nowhere"))
    suite = load_suite(write(tmp_path, GOOD.replace(old, new)))
    with pytest.raises(OptionError, match=message) as error:
        check_suite(suite)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seeds: [0, 1]", "seeds: [true]"),
        ("timesteps: 3", "timesteps: true"),
        ("[0.5, 0.1]", "[true]"),
        ("densities: [0.5, 0.1]", "bits: [4.0]"),
        ("densities: [0.5, 0.1]", "joint: [{density: true, bits: 4}]"),
        ("seeds: [0, 1]", "calibration_samples: [true]"),
        ("seeds: [0, 1]", "training: {epochs: 5.0}"),
        ("seeds: [0, 1]", "training: {learning_rate: '0.1'}"),
        ("seeds: [0, 1]", "finetuning: {learning_rate: true}"),
    ],
)
def test_true_is_no_number_and_no_text_is(tmp_path, old, new):
    with pytest.raises(SuiteError, match=r"suite.yaml:\d: .*Input should be a valid (integer|number)"):
        load_suite(write(tmp_path, GOOD.replace(old, new)))


def test_weights_that_do_not_fit_are_found_before_any_work(tmp_path):
    save_file({"1.weight": torch.zeros(3, 3)}, tmp_path / "net.safetensors")
    weights = f"{{name: mlp, hidden: 4, checkpoint: {tmp_path / 'net.safetensors'}}}"
    suite = load_suite(write(tmp_path, GOOD.replace("models: [mlp", f"models: [{weights}")))
    with pytest.raises(CheckpointError, match="net.safetensors does not fit the network: "):
        check_suite(suite)


def test_the_commands_find_them_too(tmp_path):
    path = write(tmp_path, GOOD.replace("width: 4", "width: 0"))
    for words in (["plan", str(path)], ["run", str(path)]):
        result = CliRunner().invoke(main, [*words, "--results", str(tmp_path / "results")])
        assert (result.exit_code, result.output) == (
            2,
            "error: the model conv: width is 0: give a whole number above 0\n",
        )
    assert not (tmp_path / "results").exists()
    result = CliRunner().invoke(main, ["check", "obc", "-o", "damping=true"])
    assert (result.exit_code, "damping is True: give a number of at least 0" in result.output) == (2, True)
    result = CliRunner().invoke(main, ["check", "obc", "-o", "solver=slow"])
    assert (result.exit_code, "solver is 'slow': known: " in result.output) == (2, True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:4", "2:4"), ("4:8", "4:8"), ("1e-3", 1e-3), ("1E3", 1e3), ("-2.5e+1", -25.0), (".5", 0.5), ("3.", 3.0),
        ("12", 12), ("-7", -7), ("0x1f", 31), ("1_000", 1000), ("010", "010"), ("e3", "e3"), ("1.2.3", "1.2.3"),
        ("yes", True), ("null", None), ("[1, 2e1, 2:4]", [1, 20.0, "2:4"]),
    ],
)  # fmt: skip
def test_numbers_are_those_that_people_write(text, value):
    """YAML 1.1 takes 2:4 for a number to the base of 60, and 1e-3 for a text."""
    read = read_yaml(text)[1]
    assert (read, type(read)) == (value, type(value))
