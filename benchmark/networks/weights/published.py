"""Trained networks that others have published, by name."""

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.files import sha256
from benchmark.networks.errors import CheckpointError
from datamodules.download import Download, fetch
from datamodules.storage import cache_folder


@dataclass(frozen=True)
class Published:
    """A published checkpoint.

    Args:
        model: the network it belongs to.
        filename: its name there, and in the cache.
        article: number of the figshare article that holds it.
        data: data set and time steps it was trained with.
        sha256: of its content; None where nobody has told us: then the checksum that figshare gives is checked.
    """

    model: str
    filename: str
    article: int
    data: Mapping[str, Any]
    sha256: str | None = None

    @property
    def page(self) -> str:
        """Where a person gets the file."""
        return f"https://figshare.com/articles/software/_/{self.article}"

    @property
    def description(self) -> dict[str, Any]:
        """What a checkpoint of ours would say about itself."""
        return {"model": {"name": self.model}, "data": dict(self.data)}


PUBLISHED = {
    f"sew_resnet{depth}_imagenet": Published(
        f"sew_resnet{depth}", f"sew{depth}_checkpoint_319.pth", 14752998, {"name": "imagenet", "timesteps": 4}
    )
    for depth in (18, 34, 50, 101, 152)
}
"""Name -> checkpoint: SEW-ResNet's on ImageNet (arXiv 2102.04159; ADD, IF neurons)."""

API = "https://api.figshare.com/v2/articles"
TIMEOUT_S = 30


def require_file(path: Path) -> None:
    """Refuse a checkpoint that is neither a file nor the name of a published one.

    Raises:
        CheckpointError: it is neither.
    """
    if not path.is_file() and str(path) not in PUBLISHED:
        raise CheckpointError(f"no checkpoint at {path} (names of published ones: {', '.join(PUBLISHED)})")


def locate(name: str) -> Path:
    """The file of a published checkpoint in the cache, fetched if it is not there yet, and checked.

    Args:
        name: among :data:`PUBLISHED`.

    Raises:
        CheckpointError: it cannot be fetched, and which file to put where; or its content is another.
    """
    published = PUBLISHED[name]
    folder = cache_folder() / "published"
    target = folder / published.filename
    if not target.is_file():
        try:
            fetch(_download(published), folder)
        except (OSError, LookupError, ValueError) as error:
            raise CheckpointError(
                f"{published.filename} cannot be fetched ({error}): get it from {published.page} and put it at {target}"
            ) from error
    if published.sha256 is not None and sha256(target) != published.sha256:
        raise CheckpointError(f"{target} is not what was published (SHA-256 {published.sha256}): remove it")
    return target


def _download(published: Published) -> Download:
    """What figshare says about the file: its address and checksum."""
    with urllib.request.urlopen(f"{API}/{published.article}/files", timeout=TIMEOUT_S) as response:
        entries = {entry["name"]: entry for entry in json.load(response)}
    if published.filename not in entries:
        raise LookupError(f"the article has only {', '.join(entries)}")
    entry = entries[published.filename]
    return Download(entry["download_url"], published.filename, entry["computed_md5"])
