"""Mini-batches from memory, by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from pnn.errors import UserError

#: The label of a sample that counts for nothing: the one `cross_entropy` ignores.
NOBODY = -100

Augment = Callable[[Tensor, torch.Generator], Tensor]


def generator(*parts: int) -> torch.Generator:
    """A torch generator seeded from several numbers, so that neighbouring numbers are unrelated."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))


class BatchLoader:
    """Batches (x, y); order and augmentation are pure functions of (seed, epoch, batch).

    x (n, ...), y (n,) → ceil(n / batch_size) batches an epoch, the last one may be smaller. The state is the epoch and
    the number of batches handed out in it, so a run stopped anywhere continues with the very next batch. An epoch whose
    last batch was handed out is over, whether or not anyone asked for one more; an iteration broken off earlier and
    begun afresh starts its epoch again. `symmetric` hands out 2x − 1 instead of x, after augmentation. Raises UserError
    for a batch size or a state that does not fit.

    Of every batch the process `rank` of `ranks` gets its own part, so together they see what one process would see. If
    there are fewer samples than processes, one without a sample gets the batch's first, labelled NOBODY.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        augment: Augment | None = None,
        symmetric: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ):
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be >= 1; use 32")
        if len(x) != len(y):
            raise UserError(f"{len(x)} inputs and {len(y)} labels do not belong together; give as many of both")
        self.x, self.y, self.batch_size, self.shuffle = x, y, batch_size, shuffle
        self.seed, self.augment, self.symmetric = seed, augment, symmetric
        self.rank, self.ranks = rank, ranks
        self.epoch, self.batch, self._resumed = 0, 0, False

    def __len__(self) -> int:
        return -(-len(self.y) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # a generator: nothing happens before the first batch is asked for, so an unused iterator changes nothing
        if self.batch >= len(self):
            self._next_epoch()
        elif not self._resumed:
            self.batch = 0
        self._resumed = False
        order = torch.randperm(len(self.y), generator=generator(self.seed, self.epoch)) if self.shuffle else None
        while self.batch < len(self):
            yield self._take(order)
        self._next_epoch()

    def _take(self, order: Tensor | None) -> tuple[Tensor, Tensor]:
        picked = slice(self.batch * self.batch_size, (self.batch + 1) * self.batch_size)
        index = picked if order is None else order[picked]
        x, y = self.x[index], self.y[index]
        if self.augment is not None:
            x = self.augment(x, generator(self.seed, self.epoch, self.batch))
        self.batch += 1
        if self.ranks > 1:
            x, y = self._part(x, y)
        return (2 * x - 1 if self.symmetric else x), y

    def _part(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (len(y) * rank // self.ranks for rank in (self.rank, self.rank + 1))
        return (x[low:high], y[low:high]) if low < high else (x[:1], torch.full_like(y[:1], NOBODY))

    def _next_epoch(self) -> None:
        self.epoch, self.batch = self.epoch + 1, 0

    batch_sampler = None  # Lightning asks for it where it finds a sampler

    @property
    def sampler(self) -> BatchLoader:
        """Lightning calls `set_epoch(epoch)` of this before every epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the current one; keeps the position if it already is (a resumed run)."""
        if epoch != self.epoch:
            self.epoch, self.batch, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        epoch, batch = state["epoch"], state["batch"]
        if epoch < 0 or not 0 <= batch <= len(self):
            raise UserError(
                f"epoch={epoch}, batch={batch} is not a state of a loader with {len(self)} batches an epoch; "
                "resume with the batch size and the data of the stopped run"
            )
        self.epoch, self.batch, self._resumed = epoch, batch, True
