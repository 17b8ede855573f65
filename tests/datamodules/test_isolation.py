"""A decoder that dies, hangs or fills the memory is a DataCorrupt; the next file is read all the same."""

import multiprocessing
import os

import numpy as np
import pytest
import scipy.io

from datamodules import DataCorrupt, isolation
from datamodules.isolation import decode
from tests.datamodules.formats import random_events


@pytest.fixture
def recording(tmp_path):
    events = random_events(20)
    columns = [events[name].astype(float) for name in ("t", "x", "y", "x", "y", "p")]
    scipy.io.savemat(tmp_path / "a.mat", {"out1": np.stack(columns, axis=1)})
    return tmp_path / "a.mat"


@pytest.fixture
def decoders(tmp_path, monkeypatch):
    """A script with decoders that do what damaged files make decoders do, beside the real ones."""
    source = isolation.SCRIPT.read_text()
    dangers = """
def die(path): os.kill(os.getpid(), signal.SIGSEGV)
def hang(path):
    resource.setrlimit(resource.RLIMIT_CPU, (int(sum(os.times()[:2])) + 1, -1))
    while True: pass
def fill(path): return [np.ones(1 << 30)]
def panic(path): raise BaseException("panicked at src/lib.rs")
def leave(path): sys.exit(0)
def chatter(path): os.write(1, b"decoding..."); return [np.arange(3)]
DECODERS |= {f.__name__: f for f in (die, hang, fill, panic, leave, chatter)}
"""
    script = tmp_path / "decoders.py"
    script.write_text(source.replace("\n\nif __name__", dangers + "\n\nif __name__"))
    monkeypatch.setattr(isolation, "SCRIPT", script)
    isolation._of_process.cache_clear()
    yield
    isolation._of_process.cache_clear()


@pytest.mark.parametrize(
    ("danger", "reason"),
    [
        ("die", "ends the decoder .SIGSEGV"),
        ("hang", "longer than a whole file"),
        ("fill", "allocate"),
        ("panic", "panicked"),
        ("leave", "0"),
    ],
)
def test_a_decoder_that_goes_wrong_is_named_and_replaced(decoders, recording, danger, reason):
    with pytest.raises(DataCorrupt, match=rf"{recording}: cannot be read as a test: .*{reason}"):
        decode(danger, recording, "a test")
    assert len(decode("dat2mat", recording, "a test")) == 4


def test_what_a_decoder_prints_is_no_answer(decoders, recording):
    assert decode("chatter", recording, "a test")[0].tolist() == [0, 1, 2]


def test_one_process_serves_many_files(recording):
    decode("dat2mat", recording, "a test")
    first = isolation._of_process(os.getpid())
    decode("dat2mat", recording, "a test")
    assert isolation._of_process(os.getpid()) is first


def test_a_forked_process_has_a_decoder_of_its_own(recording):
    decode("dat2mat", recording, "a test")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = pool.starmap(decode, [("dat2mat", recording, "a test")] * 20)
    expected = decode("dat2mat", recording, "a test")
    assert all(
        np.array_equal(ours, theirs) for result in results for ours, theirs in zip(result, expected, strict=True)
    )


def test_an_interrupted_question_leaves_no_answer_for_the_next(recording, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(isolation, "_array", interrupt)
        with pytest.raises(KeyboardInterrupt):
            decode("dat2mat", recording, "a test")
    assert decode("dat2mat", recording, "a test")[1].max() < 128


def test_the_decoder_ends_when_nobody_can_ask_any_more(recording):
    decode("dat2mat", recording, "a test")
    asked = isolation._of_process(os.getpid())
    isolation._of_process.cache_clear()
    assert asked.end() == 0, "it ended by itself, not by a signal"
