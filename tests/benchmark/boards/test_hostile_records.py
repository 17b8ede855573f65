"""Records that somebody else wrote, with whatever in them: named as unreadable, or shown beside the others."""

import copy
import io
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmark.boards import compare as comparing
from benchmark.boards import leaderboard, terminal
from benchmark.boards.standings import standings
from benchmark.boards.tabular import as_csv, as_json
from benchmark.questions.suite import Question
from benchmark.records import RecordError, RecordStore, read_record
from benchmark.runs.plan import plan, show
from tests.benchmark.factory import make_failed, make_record

MARK = "INJECTED"
HOSTILE: list[Any] = [
    None, True, -1, 0, 1.5, 10**20, 10**400, float("nan"), float("inf"), -1e308, 1e308, "", "99", [], {}, [None],
    {"a": 1}, [[[[]]]] * 3, f"x\n{MARK}", f"x\r{MARK}", f"x\u2028{MARK}", f"x\x85{MARK}", f"\x1b[2J{MARK}", "$x^$",
    "\\frac", "\ud800", "\x00", "../../../outside/pwn", "..", ".", "/etc/passwd", "a/b", "=HYPERLINK(1)", "@x", "-2+3",
    "$HOME", "~", "_x", "a" * 3000, "x" * 12, f"<script>{MARK}</script>", f"| {MARK} |", "[x](http://evil)",
    "os:system", "\u202e", "2026-01-01",
]  # fmt: skip


def leaves(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of everything in a record."""
    if place:
        yield place
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, child in children:
        yield from leaves(child, (*place, key))


def edited(content: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The record with another value at this place."""
    changed = copy.deepcopy(content)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return changed


def as_content(record: Any) -> dict[str, Any]:
    return json.loads(json.dumps(record.model_dump(mode="json")))


GOOD = [make_record(), make_record("obc", 0.1), make_record({"name": "sbc", "variant": "paper"}, 0.1)]
VICTIMS = [
    as_content(record)
    for record in (
        make_record("lamp", 0.2, model={"name": "nir", "checkpoint": "$NETS/a.nir"}, asked={"bits": 4}),
        make_record("obc", 0.5),
        make_failed("obc", 0.3),
    )
]
PLACES = [(victim, place) for victim in range(len(VICTIMS)) for place in leaves(VICTIMS[victim])]


def tell(folder: Path) -> str:
    """All that is told of the records of a folder: everything is written, and given back as one text."""
    store = RecordStore(folder / "results")
    board = leaderboard.build(store)
    leaderboard.write(board, folder / "results")
    console = Console(file=io.StringIO(), record=True, width=300)
    console.print(terminal.terminal(board))
    records, _ = store.read()
    questions = [record.question for record in records]
    console.print(show(plan("suite", questions, records, lambda name: 1)), markup=False)
    console.print_json(json.dumps(as_json(board)))
    for record in records:
        if record.status == "done":
            console.print(comparing.show(comparing.compare(records, GOOD[0].id, record.id)))
    texts = [(folder / "results" / f"leaderboard.{kind}").read_text() for kind in ("md", "csv", "html")]
    return "\n".join([console.export_text(), *texts])


def check(text: str) -> None:
    """Whatever stands in a record's file, the good ones are told of, in this folder, in lines of their own."""
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer, "inner")
        store = RecordStore(folder / "results")
        for record in GOOD:
            store.save(record)
        path = folder / "results" / "records" / "nmnist" / "conv" / "0123456789ab.json"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            read_record(path)
        except RecordError as error:
            message = str(error)
            assert message.isprintable()
            assert message.startswith(str(path))
            assert len(message) < 600 + len(str(path))
            board = leaderboard.build(store)
            assert [item.reason for item in board.apart] == [message]
            assert len(board.tables[0].rows) == len(GOOD)
            return
        told = tell(folder)
        assert not [line for line in told.splitlines() if line.strip().startswith((MARK, "=HYPER", "@x", "-2+3"))]
        assert f"<script>{MARK}" not in told
        assert {entry.name for entry in Path(outer).iterdir()} == {"inner"}
        assert {entry.name for entry in folder.iterdir()} == {"results"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.sampled_from(PLACES), value=st.sampled_from(HOSTILE))
@example(place=(1, ("question", "data", "name")), value="x/../../../outside/pwn")
@example(place=(1, ("compression", "density")), value=None)
@example(place=(1, ("id",)), value=f"0123456789ab\n{MARK}")
@example(place=(1, ("question", "compressor", "name")), value="$x^$")
@example(place=(0, ("question", "model", "checkpoint")), value="$x^$")
@example(place=(1, ("metrics", "accuracy")), value=float("nan"))
@example(place=(1, ("cost", "timesteps")), value=2**62)
@example(place=(1, ("schema_version",)), value="99")
def test_any_value_anywhere_is_shown_or_named(place: tuple[int, tuple[Any, ...]], value: Any) -> None:
    victim, steps = place
    check(json.dumps(edited(VICTIMS[victim], steps, value)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), victim=st.sampled_from(range(len(VICTIMS))), edits=st.integers(1, 4))
def test_any_damage_to_the_text_is_shown_or_named(seed: int, victim: int, edits: int) -> None:
    draw = random.Random(seed)
    text = json.dumps(VICTIMS[victim], indent=1)
    for _ in range(edits):
        start = draw.randrange(len(text))
        end = start + draw.choice([0, 1, 1, 5, 200])
        text = (
            text[:start]
            + draw.choice(["", "9", "-", "1e999", '"', "\\n", "\\ud800", "{", "]", "\x00", "é"])
            + text[end:]
        )
    check(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"data": ' * 10_000 + "1" + "}" * 10_000,
        "[" * 200_000,
        "",
        "null",
        "[]",
        "\ufeff{}",
        "\ud800",
        "{" + " " * 2**24,
    ],
    ids=["nested", "open", "empty", "null", "list", "mark", "surrogate", "large"],
)
def test_what_is_no_record_at_all_is_named(text: str) -> None:
    check(text)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    path = store.save(make_record())
    path.with_name("folder.json").mkdir()
    path.with_name("away.json").symlink_to(tmp_path / "nowhere")
    records, problems = store.read()
    assert len(records) == 1
    assert ["no file" in problem for problem in problems] == [True, True]


def test_commands_that_go_on_without_a_record_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RecordStore(tmp_path)
    store.save(make_record()).with_name("0.json").write_text("{}")
    assert len(list(store)) == 1
    assert "not a run record" in caplog.text


def test_texts_that_look_like_formulas_are_none_in_a_spreadsheet() -> None:
    record = make_record({"name": "-x", "a": "=1+1"}, 0.1, model={"name": "-conv"})
    lines = as_csv(standings([record])).splitlines()
    assert "'-x[=1+1]" in lines[1]
    assert "'-conv" in lines[1]
    assert all(not cell.startswith(("=", "+", "@")) for cell in lines[1].split(","))


def test_a_board_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaderboard.write(standings(GOOD), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def broken(board: Any) -> str:
        raise RuntimeError("no more")

    monkeypatch.setattr(leaderboard, "markdown", broken)
    with pytest.raises(RuntimeError):
        leaderboard.write(standings([*GOOD, make_record("obc", 0.2, data="digits_dvs")]), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_the_whole_board_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaderboard.write(standings(GOOD), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "leaderboard.md":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"leaderboard\.md: No space left"):
        leaderboard.write(standings([*GOOD, make_record("obc", 0.2)]), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_label_does_not_look_into_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    question = make_record("lamp", 0.2, model={"name": "nir", "checkpoint": "$SECRET"}).question
    assert isinstance(question, Question)
    assert "hunter2" not in question.label
