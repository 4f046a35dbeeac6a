"""Mini-batches from memory, by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator], Tensor]


def generator(*parts: int) -> torch.Generator:
    """A torch generator seeded from several numbers, so that neighbouring numbers are unrelated."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))


class BatchLoader:
    """Batches (x, y); order and augmentation are pure functions of (seed, epoch, batch).

    x (n, features), y (n,). `state_dict` holds the epoch and the number of batches handed out in it, so that a run
    stopped anywhere continues with the very next batch.
    """

    def __init__(
        self, x: Tensor, y: Tensor, *, batch_size: int, shuffle: bool, seed: int, augment: Augment | None = None
    ):
        self.x, self.y, self.batch_size, self.shuffle, self.seed, self.augment = x, y, batch_size, shuffle, seed, augment
        self.epoch, self.batch, self._resumed = 0, 0, False

    def __len__(self) -> int:
        return -(-len(self.y) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self._resumed:
            self.batch = 0
        self._resumed = False
        if self.batch >= len(self):
            self.epoch, self.batch = self.epoch + 1, 0
        order = torch.randperm(len(self.y), generator=generator(self.seed, self.epoch)) if self.shuffle else None
        while self.batch < len(self):
            picked = slice(self.batch * self.batch_size, (self.batch + 1) * self.batch_size)
            index = picked if order is None else order[picked]
            x, y = self.x[index], self.y[index]
            if self.augment is not None:
                x = self.augment(x, generator(self.seed, self.epoch, self.batch))
            self.batch += 1
            yield x, y
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.batch, self._resumed = state["epoch"], state["batch"], True
