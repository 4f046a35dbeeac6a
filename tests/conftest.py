"""What the tests share: one thread, an empty data folder, small synthetic image files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pnn.tasks.vowels import VOWELS

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in an empty folder: outputs/ and data/ of the checkout are never touched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PNN_DATA_DIR", raising=False)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four IDX files: 200 training and 40 test images whose brightest rows tell the class."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 40)):
        labels = np.arange(count) % 10
        pixels = random.integers(0, 60, (count, 28, 28))
        for row in range(count):
            pixels[row, 2 * labels[row] : 2 * labels[row] + 6] += 180
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return folder


@pytest.fixture(scope="session")
def vowels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a synthetic formant table of 20 women and 20 men."""
    folder = tmp_path_factory.mktemp("vowels")
    write_vowels(folder / "vowdata.dat", 20)
    return folder


def write_vowels(path: Path, women: int, spoil: dict[str, dict[int, int]] | None = None) -> None:
    """A table like Hillenbrand's: 15 numbers a token; `spoil` sets columns of a token."""
    random = np.random.default_rng(0)
    lines = ["(c) a header", ""]
    for talker in (f"{kind}{n:02d}" for kind in "mw" for n in range(1, women + 1)):
        for vowel in (*VOWELS, "eh"):
            numbers = [str(n) for n in random.integers(300, 3000, 15)]
            for column, value in (spoil or {}).get(talker + vowel, {}).items():
                numbers[column - 2] = str(value)
            lines.append(" ".join([talker + vowel, *numbers]))
    path.write_text("\r\n".join(lines) + "\r\n")
