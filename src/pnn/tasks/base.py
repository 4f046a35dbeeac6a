"""What every task is: a data set with its split, in memory."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from pnn.errors import UserError
from pnn.tasks.loader import Augment, BatchLoader

Samples = tuple[Tensor, Tensor]


class Task(pl.LightningDataModule):
    """A data set with its split and encoding: x float32 (n, features) in [0, 1], y int64 (n,).

    Validation samples come out of the training set by a seeded split (`split_seed`); `seed` orders the batches and
    draws the augmentation. `setup` fills `train`, `val` and `test`. Raises UserError for a value out of its limits.
    """

    name: str
    features: int
    classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int] | None = None
    augment: Augment | None = None

    def __init__(self, *, batch_size: int, eval_batch_size: int, seed: int, split_seed: int):
        super().__init__()
        for key, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise UserError(f"task.{key}={value} must be >= 1; use 32")
        self.batch_size, self.eval_batch_size, self.seed, self.split_seed = batch_size, eval_batch_size, seed, split_seed
        self.train: Samples
        self.val: Samples
        self.test: Samples
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        if not self._ready:
            self.train, self.val, self.test = self.split()
            self._ready = True

    def split(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test samples."""
        raise TypeError(f"{type(self).__name__} does not define split()")

    def encode(self, x: Tensor) -> Tensor:
        """What a network sees of stored samples."""
        return x

    def train_dataloader(self) -> BatchLoader:
        return BatchLoader(
            *self.train, batch_size=self.batch_size, shuffle=True, seed=self.seed, augment=self.augment
        )

    def val_dataloader(self) -> BatchLoader:
        return BatchLoader(*self.val, batch_size=self.eval_batch_size, shuffle=False, seed=self.seed)

    def test_dataloader(self) -> BatchLoader:
        return BatchLoader(*self.test, batch_size=self.eval_batch_size, shuffle=False, seed=self.seed)


def stratified(y: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (rest, picked): `count` samples picked with the class proportions of y, both in the original order."""
    from sklearn.model_selection import train_test_split

    rest, picked = train_test_split(range(len(y)), test_size=count, random_state=seed, stratify=y.numpy())
    return torch.tensor(sorted(rest)), torch.tensor(sorted(picked))
