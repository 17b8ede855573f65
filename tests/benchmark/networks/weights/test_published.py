"""Trained networks of others, fetched by name."""

import hashlib
import json
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from benchmark.catalog import MODELS
from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import checkpoints, published
from benchmark.networks.weights.published import PUBLISHED
from tests.benchmark.networks.weights.public_networks import former

NAME = "sew_resnet18_imagenet"


@pytest.fixture
def release(tmp_path):
    """A file like the released ones, of a tiny network, with what its training script kept."""
    path = tmp_path / PUBLISHED[NAME].filename
    network = MODELS["sew_resnet18"].load()((3, 12, 12), 5, width=4)
    state = {former(name): tensor for name, tensor in network.state_dict().items()}
    torch.save({"model": state, "epoch": 319, "args": Namespace(lr=0.1, model="sew_resnet18")}, path)
    return path


class Figshare(ThreadingHTTPServer):
    """Answers as figshare does: a list of an article's files, and their content."""

    content = b""
    md5 = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        filename = PUBLISHED[NAME].filename
        if self.path.endswith("/files"):
            entry = {
                "name": filename,
                "download_url": f"{self.server.address}/{filename}",
                "computed_md5": self.server.md5,
            }
            body = json.dumps([entry]).encode()
        else:
            body = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Tests need no log."""


@pytest.fixture
def figshare(release, tmp_path, monkeypatch):
    server = Figshare(("127.0.0.1", 0), Handler)
    server.content = release.read_bytes()
    server.md5 = hashlib.md5(server.content).hexdigest()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(published, "API", server.address)
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def test_a_published_checkpoint_is_fetched_once_and_says_what_it_is(figshare, release, tmp_path):
    loaded = checkpoints.load(Path(NAME))
    assert loaded.sha256 == hashlib.sha256(release.read_bytes()).hexdigest()
    assert loaded.description == {"model": {"name": "sew_resnet18"}, "data": {"name": "imagenet", "timesteps": 4}}
    figshare.content = b"gone"
    assert checkpoints.load(Path(NAME)).sha256 == loaded.sha256


def test_other_content_than_figshare_describes_is_removed(figshare, tmp_path):
    figshare.content = b"something else"
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(sew18_.* has md5 .* instead of .*; it was removed"):
        checkpoints.load(Path(NAME))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_other_content_than_a_known_checksum_is_refused(figshare, tmp_path, monkeypatch):
    known = published.Published("sew_resnet18", PUBLISHED[NAME].filename, 14752998, {}, sha256="0" * 64)
    monkeypatch.setitem(PUBLISHED, NAME, known)
    with pytest.raises(CheckpointError, match="is not what was published"):
        published.locate(NAME)


def test_without_a_network_the_message_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "API", "http://127.0.0.1:9")
    monkeypatch.setenv("SNNBENCH_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        published.locate(NAME)
    assert "sew18_checkpoint_319.pth cannot be fetched" in str(error.value)
    assert "get it from https://figshare.com/articles/software/_/14752998" in str(error.value)
    assert str(tmp_path / "published" / "sew18_checkpoint_319.pth") in str(error.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CheckpointError, match=f"no checkpoint at mine .*{NAME}"):
        checkpoints.load(Path("mine"))
