"""Spoken vowels as formant frequencies (Hillenbrand et al., J. Acoust. Soc. Am. 97, 3099 (1995))."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnn.errors import UserError
from pnn.tasks.base import Samples, Task, whole
from pnn.tasks.fetch import fetch

VOWELS = ("ae", "ah", "aw", "uw", "er", "iy", "ih")
COLUMNS = 16
TOKEN = re.compile(r"[mwbg]\d\d[a-z]{2}")
STEADY, COURSE = slice(3, 6), slice(7, 16)  # F1-F3 at steady state; F1-F3 at 20, 50 and 80 % of the duration


class Vowels(Task):
    """Seven vowels of women, 12 formants each: F1, F2, F3 at steady state and at 20, 50, 80 % of the duration.

    A woman takes part if F1-F3 at steady state could be measured in all seven of her vowels: 37 of 48, hence 259 tokens.
    In 6 of these, 8 of the later formants could not be measured; they take the token's steady-state value. Whole
    speakers are held out: `validation` and `test` count women; 6 and 6 leave 25, hence 175/42/42 tokens.
    x = (f − min)/(max − min) with the training tokens' minimum and maximum per formant, so that held-out tokens may lie
    slightly outside [0, 1]. `path`: a folder with vowdata.dat, instead of the data folder.
    Raises UserError for a value out of its limits and for a missing or damaged file.
    """

    name, features, classes, class_names = "vowels", 12, len(VOWELS), VOWELS

    def __init__(
        self,
        *,
        batch_size: int = 175,
        eval_batch_size: int = 1000,
        seed: int = 0,
        split_seed: int = 0,
        validation: int = 6,
        test: int = 6,
        path: str | None = None,
        symmetric: bool = False,
    ):
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            split_seed=split_seed,
            validation=whole("validation", validation, 1, "use 6 speakers"),
            symmetric=symmetric,
        )
        self.test_speakers = whole("test", test, 1, "use 6 speakers")
        self.path = path
        self.speakers: dict[str, list[str]] = {}

    def prepare_data(self) -> None:
        """Fetch the table if it is not there."""
        fetch(self.name, self.path)

    def split(self) -> tuple[Samples, Samples, Samples]:
        formants = complete_speakers(read_table(fetch(self.name, self.path) / "vowdata.dat"))
        self.speakers = self._deal(sorted(formants))
        train, val, test = (np.concatenate([formants[s] for s in group]) for group in self.speakers.values())
        low, high = train.min(0), train.max(0)
        return tuple(as_samples((f - low) / (high - low)) for f in (train, val, test))  # type: ignore[return-value]

    def _deal(self, speakers: list[str]) -> dict[str, list[str]]:
        """Speakers of each part, drawn with `split_seed`."""
        held = self.test_speakers + int(self.validation)
        if held >= len(speakers):
            raise UserError(
                f"task.validation={self.validation} and task.test={self.test_speakers} must leave speakers for training: "
                f"their sum must be < {len(speakers)}; use 6 and 6"
            )
        drawn = [speakers[i] for i in np.random.default_rng(self.split_seed).permutation(len(speakers))]
        return {
            "train": drawn[held:],
            "val": drawn[self.test_speakers : held],
            "test": drawn[: self.test_speakers],
        }


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Token name, e.g. w01ae → its 12 formants in Hz, 0 where one could not be measured. Raises UserError."""
    try:
        rows = [line.split() for line in path.read_text(encoding="latin-1").splitlines()]
        tokens = [row for row in rows if row and TOKEN.fullmatch(row[0])]
        table = {row[0]: np.array([float(f) for f in row[STEADY] + row[COURSE]]) for row in tokens}
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); fetch it with pnn-data or give task.path="
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again with pnn-data") from error
    short = [name for name, formants in table.items() if len(formants) != 12]
    if short or not table:
        what = f"{short[0]} has not {COLUMNS} columns" if short else "it holds no token such as w01ae"
        raise UserError(f"{path} is damaged ({what}); fetch it again with pnn-data")
    return table


def complete_speakers(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Woman → formants (7, 12) in the order of VOWELS, for those whose steady states are all measured."""
    women = sorted({token[:3] for token in table if token.startswith("w")})
    spoken = {s: [table[s + v] for v in VOWELS if s + v in table] for s in women}
    whole_sets = {s: np.stack(rows) for s, rows in spoken.items() if len(rows) == len(VOWELS)}
    return {s: filled(f) for s, f in whole_sets.items() if f[:, :3].all()}


def filled(formants: np.ndarray) -> np.ndarray:
    """Later formants that could not be measured (0) replaced by the token's steady-state ones; (n, 12)."""
    return np.where(formants > 0, formants, np.tile(formants[:, :3], 4))


def as_samples(x: np.ndarray) -> Samples:
    """x (7 n, 12), speaker after speaker → samples."""
    y: Tensor = torch.arange(len(VOWELS)).repeat(len(x) // len(VOWELS))
    return torch.tensor(x, dtype=torch.float32), y
