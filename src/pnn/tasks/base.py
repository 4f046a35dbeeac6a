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

    Validation samples come out of the training set by a seeded split (`split_seed`): `validation` is their number, or
    their fraction if below 1. `train_limit` keeps so many of the remaining training samples. `seed` orders the batches
    and draws the augmentation. With `symmetric` the batches hold 2x − 1 in [−1, 1]: signals without a mean. `setup` fills
    `train`, `val` and `test` (in [0, 1]). Raises UserError for a value out of its limits.
    """

    name: str
    features: int
    classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int] | None = None
    augment: Augment | None = None

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        split_seed: int,
        validation: int | float,
        train_limit: int | None = None,
        symmetric: bool = False,
    ):
        super().__init__()
        self.batch_size = whole("batch_size", batch_size, 1, "use 32")
        self.eval_batch_size = whole("eval_batch_size", eval_batch_size, 1, "use 1000")
        self.seed = whole("seed", seed, 0, "use 0")
        self.split_seed = whole("split_seed", split_seed, 0, "use 0")
        if isinstance(validation, bool) or not isinstance(validation, (int, float)) or not validation > 0:
            raise UserError(f"task.validation={validation} must be > 0; use a number of samples or a fraction below 1")
        self.validation = validation
        limit = None if train_limit is None else whole("train_limit", train_limit, 1, "use null for all of them")
        self.train_limit = limit
        if not isinstance(symmetric, bool):
            raise UserError(f"task.symmetric={symmetric} must be true or false")
        self.symmetric = symmetric
        self.train: Samples
        self.val: Samples
        self.test: Samples
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data, once."""
        if not self._ready:
            self.train, self.val, self.test = self.split()
            self._ready = True

    def split(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test samples."""
        raise TypeError(f"{type(self).__name__} does not define split()")

    def hold_out(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (training, validation) into the labels y (n,), both stratified, with `train_limit` applied."""
        count = held_out(self.validation, len(y))
        train, val = stratified(y, count, self.split_seed, "validation")
        if self.train_limit is not None and self.train_limit < len(train):
            train = train[stratified(y[train], self.train_limit, self.split_seed, "train_limit")[1]]
        return train, val

    def training_inputs(self) -> Tensor:
        """What the training batches, and the augmentation, are taken from: (n, ...)."""
        return self.train[0]

    def train_dataloader(self) -> BatchLoader:
        return self._loader(self.training_inputs(), self.train[1], self.batch_size, True, self.augment)

    def val_dataloader(self) -> BatchLoader:
        return self._loader(*self.val, self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        return self._loader(*self.test, self.eval_batch_size)

    def _loader(
        self, x: Tensor, y: Tensor, size: int, shuffle: bool = False, augment: Augment | None = None
    ) -> BatchLoader:
        place = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        return BatchLoader(
            x,
            y,
            batch_size=size,
            shuffle=shuffle,
            seed=self.seed,
            augment=augment,
            symmetric=self.symmetric,
            rank=place[0],
            ranks=place[1],
        )


def whole(name: str, value: object, low: int, remedy: str, high: int | None = None) -> int:
    """`value`, a whole number in [low, high]. Raises UserError otherwise."""
    limits = f">= {low}" if high is None else f">= {low} and <= {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"task.{name}={value} must be a whole number {limits}; {remedy}")
    if value < low or (high is not None and value > high):
        raise UserError(f"task.{name}={value} must be {limits}; {remedy}")
    return value


def held_out(validation: int | float, available: int) -> int:
    """The number of validation samples out of `available`. Raises UserError if none or all of them would be taken."""
    count = round(validation * available) if validation < 1 else round(validation)
    if not 1 <= count < available or (validation >= 1 and count != validation):
        raise UserError(
            f"task.validation={validation} must be a number of samples >= 1 and < {available}, or a fraction "
            f"that leaves some on both sides; use {max(1, available // 10)}"
        )
    return count


def stratified(y: Tensor, count: int, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """Indices (rest, picked): `count` samples picked with the class proportions of y, both in the original order.

    Raises UserError, about the option `name`, if a class would be missing on one side.
    """
    from sklearn.model_selection import train_test_split

    try:
        rest, picked = train_test_split(range(len(y)), test_size=count, random_state=seed, stratify=y.numpy())
    except ValueError as error:
        classes = len(y.unique())
        raise UserError(
            f"task.{name}={count} must leave at least one sample of each of the {classes} classes on both sides, "
            f"so >= {classes} and <= {len(y) - classes}; choose a number between"
        ) from error
    return torch.tensor(sorted(rest)), torch.tensor(sorted(picked))
