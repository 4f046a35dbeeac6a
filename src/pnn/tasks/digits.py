"""Handwritten digits, 8 × 8: embedded in scikit-learn, no download."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pnn.errors import UserError
from pnn.tasks.base import Samples, Task, stratified

TEST = 400


class Digits(Task):
    """The test part of the UCI optical digits: 1,797 images of 8 × 8 pixels, x = pixel/16 in [0, 1].

    Split by `split_seed`, stratified: 400 test images, `validation` of the other 1,397 (297 leave 1,100 for training).
    `noise` is the standard deviation of normal noise added to the training inputs.
    """

    name, features, classes, image_shape = "digits", 64, 10, (8, 8)
    class_names = tuple("0123456789")

    def __init__(
        self,
        *,
        batch_size: int = 32,
        eval_batch_size: int = 1000,
        seed: int = 0,
        split_seed: int = 0,
        validation: int | float = 297,
        train_limit: int | None = None,
        noise: float = 0.0,
        symmetric: bool = False,
    ):
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            split_seed=split_seed,
            validation=validation,
            train_limit=train_limit,
            symmetric=symmetric,
        )
        if not 0 <= noise < math.inf:
            raise UserError(f"task.noise={noise} must be finite and >= 0; use 0 for none")
        self.noise = noise
        self.augment = self._noisy if noise else None

    def _noisy(self, x: Tensor, g: torch.Generator) -> Tensor:
        return x + self.noise * torch.randn(x.shape, generator=g)

    def split(self) -> tuple[Samples, Samples, Samples]:
        from sklearn.datasets import load_digits

        data = load_digits()
        x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target, dtype=torch.int64)
        rest, test = stratified(y, TEST, self.split_seed, "test")
        train, val = self.hold_out(y[rest])
        train, val = rest[train], rest[val]
        return (x[train], y[train]), (x[val], y[val]), (x[test], y[test])
