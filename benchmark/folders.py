"""Where things that can be made again are kept."""

import os
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """``$SNNBENCH_CACHE``, or the user's cache folder: dense checkpoints and finished eliminations."""
    return Path(os.environ.get("SNNBENCH_CACHE") or user_cache_dir("snnbench"))
