"""Spoken vowels of women as formants (Hillenbrand et al., JASA 97, 3099 (1995))."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from pnn.errors import UserError
from pnn.tasks.base import Samples, Task
from pnn.tasks.fetch import fetch

VOWELS = ("ae", "ah", "aw", "uw", "er", "iy", "ih")
#: Columns of vowdata.dat: F1-F3 at steady state, then at 20, 50 and 80 % of the duration (0 = filename).
FORMANTS = (3, 4, 5, *range(7, 16))
ROW = re.compile(r"^w(\d\d)([a-z]{2})\s")


class Vowels(Task):
    """12 formants (F1-F3 at steady state, 20, 50, 80 %) of 7 vowels {ae, ah, aw, uw, er, iy, ih} spoken by women.

    Women whose steady-state formants were measurable in all seven vowels: 37 speakers, 259 tokens. A formant that was
    not measurable at 20, 50 or 80 % takes its steady-state value (8 of 3,108 values). Split by speaker (`split_seed`):
    25 training, 6 validation, 6 test speakers. Each formant is scaled to [0, 1] with the training rows' extremes; other
    rows may exceed them slightly. `path`: a folder with vowdata.dat instead of the data folder.
    """

    name, features, classes, class_names = "vowels", len(FORMANTS), len(VOWELS), VOWELS

    def __init__(
        self,
        *,
        batch_size: int = 175,
        eval_batch_size: int = 1000,
        seed: int = 0,
        split_seed: int = 0,
        path: str | None = None,
    ):
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed, split_seed=split_seed)
        self.path = path

    def prepare_data(self) -> None:
        fetch(self.name, self.path)

    def split(self) -> tuple[Samples, Samples, Samples]:
        speakers, labels, formants = read(fetch(self.name, self.path) / "vowdata.dat")
        order = np.random.default_rng(self.split_seed).permutation(np.unique(speakers))
        parts = [np.isin(speakers, order[a:b]) for a, b in ((0, -12), (-12, -6), (-6, None))]
        low, high = formants[parts[0]].min(0), formants[parts[0]].max(0)
        x = torch.tensor((formants - low) / (high - low), dtype=torch.float32)
        y = torch.tensor(labels, dtype=torch.int64)
        train, val, test = ((x[part], y[part]) for part in map(torch.from_numpy, parts))
        return train, val, test


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """vowdata.dat → speaker (n,), vowel index (n,), formants in Hz (n, 12) of the women with seven complete vowels.

    Raises UserError for a damaged row and for a file that has too few speakers.
    """
    rows: dict[int, dict[str, list[float]]] = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = ROW.match(line)
        if match and match.group(2) in VOWELS:
            rows.setdefault(int(match.group(1)), {})[match.group(2)] = _formants(line, f"{path}, line {number}")
    complete = {
        speaker: vowels
        for speaker, vowels in sorted(rows.items())
        if len(vowels) == len(VOWELS) and all(all(v[:3]) for v in vowels.values())
    }
    if len(complete) < 13:
        raise UserError(f"{path} has {len(complete)} women with seven complete vowels, and 37 are expected; fetch it again")
    speakers = np.repeat(list(complete), len(VOWELS))
    labels = np.tile(np.arange(len(VOWELS)), len(complete))
    formants = np.array([vowels[v] for vowels in complete.values() for v in VOWELS])
    return speakers, labels, np.where(formants > 0, formants, np.tile(formants[:, :3], 4))


def _formants(line: str, where: str) -> list[float]:
    """The 12 formants of one row, Hz; 0 where not measurable."""
    values = line.split()
    try:
        return [float(values[column]) for column in FORMANTS]
    except (IndexError, ValueError) as error:
        raise UserError(f"{where}: {len(values)} columns of numbers, and 16 are expected; fetch the file again") from error
