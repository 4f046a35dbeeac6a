"""Getting data files (local folder)."""

from __future__ import annotations

import os
from pathlib import Path


def fetch(name: str, path: str | None = None) -> Path:
    """The folder with the verified files of a data set."""
    return Path(path) if path else Path(os.environ.get("PNN_DATA_DIR", "data")) / name
