"""Fetching from a server that breaks off, lies, or ignores ranges."""

import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile

import pytest

from datamodules import CIFAR10, NMNIST, DataCorrupt, DataMissing, ImageNet, TinyImageNet
from datamodules.download import Download, fetch_and_unpack
from datamodules.prepare import prepare
from tests.datamodules.formats import random_events, write_nmnist
from tests.datamodules.pictures import official, write_cifar10, write_tiny_imagenet


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under every path; `stop_after` bytes it hangs up; it may ignore ranges."""

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.stop_after = None
        self.ranges = True
        self.asked = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/archive"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        begin = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
        self.server.asked.append(begin)
        if not self.server.ranges:
            begin = 0
        if begin >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[begin:]
        self.send_response(206 if self.server.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.stop_after])

    def log_message(self, *_):
        pass


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


INNER = zipped({"cat/cifar10_cat_0.txt": "meow" * 1000})
CONTENT = zipped({"folder/a.txt": "first " * 1000, "cat.zip": INNER})


@pytest.fixture
def server():
    with Server(CONTENT) as running:
        yield running
        running.shutdown()


def archive(server, md5=None):
    return Download(server.url, "archive.zip", md5 or hashlib.md5(CONTENT).hexdigest(), holds=("cat.zip",))


def unpacked(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


WHOLE = ["archive.zip", "cat/cifar10_cat_0.txt", "folder/a.txt"]


def test_an_archive_is_fetched_once_checked_and_unpacked(server, tmp_path):
    for _ in range(2):
        fetch_and_unpack(archive(server), tmp_path)
        assert unpacked(tmp_path) == WHOLE
    assert server.asked == [0]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, ranges):
    server.ranges = ranges
    server.stop_after = 100
    with pytest.raises(DataMissing, match="closed early|cannot be fetched"):
        fetch_and_unpack(archive(server), tmp_path)
    assert unpacked(tmp_path) == ["archive.zip.part"]
    server.stop_after = None
    fetch_and_unpack(archive(server), tmp_path)
    assert unpacked(tmp_path) == WHOLE
    assert server.asked == [0, 100]


def test_a_part_that_is_whole_already_is_checked_and_used(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(CONTENT)
    fetch_and_unpack(archive(server), tmp_path)
    assert unpacked(tmp_path) == WHOLE


def test_what_is_not_as_published_is_removed(server, tmp_path):
    with pytest.raises(DataCorrupt, match=r"md5 .* instead of 0000"):
        fetch_and_unpack(archive(server, md5="0000"), tmp_path)
    assert unpacked(tmp_path) == []


def test_no_network_and_no_file_say_so(server, tmp_path):
    gone = Download("http://127.0.0.1:9/none", "a.zip", "0")
    with pytest.raises(DataMissing, match="cannot be fetched"):
        fetch_and_unpack(gone, tmp_path)
    server.content = b""
    with pytest.raises(DataMissing, match="answers 416"):
        fetch_and_unpack(archive(server), tmp_path)


def test_an_archive_that_breaks_while_unpacking_leaves_no_part_of_a_set(server, tmp_path):
    broken = zipped({"folder/a.txt": "first", "cat.zip": b"no archive"})
    server.content = broken
    download = Download(server.url, "archive.zip", hashlib.md5(broken).hexdigest(), holds=("cat.zip",))
    with pytest.raises(DataCorrupt, match=r"archive\.zip cannot be unpacked"):
        fetch_and_unpack(download, tmp_path)
    assert unpacked(tmp_path) == ["archive.zip"]


def test_prepare_fetches_a_set_and_binds_its_frames(server, tmp_path, monkeypatch):
    for part, seed in (("Train", 0), ("Test", 100)):
        for label in range(10):
            for index in range(2):
                events = random_events(50, size=34, seed=seed + 10 * index + label)
                write_nmnist(tmp_path / f"made/{part}/{label}/{index}.bin", events)
    files = {path.relative_to(tmp_path / "made").as_posix(): path for path in sorted(tmp_path.glob("made/**/*.bin"))}
    server.content = zipped({name: path.read_bytes() for name, path in files.items()})
    download = Download(server.url, "both.zip", hashlib.md5(server.content).hexdigest())
    monkeypatch.setattr(NMNIST, "downloads", (download,))
    data = NMNIST(tmp_path / "root", timesteps=2)
    prepare(data)
    assert len(data.cache) == 40
    prepare(NMNIST(tmp_path / "root", timesteps=2))
    assert server.asked == [0]


def tarred(folder):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(folder, folder.name)
    return stream.getvalue()


def test_prepare_fetches_image_sets_in_their_archives_layout(server, tmp_path, monkeypatch):
    made = tmp_path / "made"
    write_cifar10(made)
    write_tiny_imagenet(made / "tiny-imagenet-200")
    tiny = {path.relative_to(made).as_posix(): path.read_bytes() for path in made.glob("tiny*/**/*.*")}
    archives = [
        (official(CIFAR10, made), "cifar-10-python.tar.gz", tarred(made / "cifar-10-batches-py")),
        (TinyImageNet, "tiny-imagenet-200.zip", zipped(tiny)),
    ]
    for data_class, name, server.content in archives:
        assert data_class.downloads[0].filename == name
        download = Download(server.url, name, hashlib.md5(server.content).hexdigest())
        monkeypatch.setattr(data_class, "downloads", (download,))
        fetched = data_class(tmp_path / "root" / name)
        prepare(fetched)
        assert fetched.fingerprint() == data_class(made).fingerprint()


def test_prepare_completes_a_set_that_lacks_a_file_and_keeps_what_is_there(server, tmp_path, monkeypatch):
    write_cifar10(tmp_path / "made")
    data_class = official(CIFAR10, tmp_path / "made")
    server.content = tarred(tmp_path / "made/cifar-10-batches-py")
    download = Download(server.url, "cifar-10-python.tar.gz", hashlib.md5(server.content).hexdigest())
    monkeypatch.setattr(data_class, "downloads", (download,))
    root = write_cifar10(tmp_path / "root")
    folder = root / "cifar-10-batches-py"
    (folder / "data_batch_4").unlink()
    (folder / "notes").write_text("mine")
    kept = (folder / "data_batch_1").stat().st_ino
    prepare(data_class(root))
    assert (folder / "data_batch_1").stat().st_ino == kept
    assert (folder / "notes").read_text() == "mine"


def test_prepare_says_what_to_do_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(NMNIST, "downloads", (Download("http://127.0.0.1:9/none", "a.zip", "0"),))
    for data in (NMNIST(tmp_path), ImageNet(tmp_path)):
        with pytest.raises(DataMissing) as missing:
            prepare(data)
        assert data.instructions in str(missing.value)
        assert str(tmp_path) in str(missing.value)
