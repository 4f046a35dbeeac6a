"""Handwritten digits, 8 × 8: embedded in scikit-learn, no download."""

from __future__ import annotations

import torch
from torch import Tensor

from pnn.tasks.base import Samples, Task, stratified


class Digits(Task):
    """The test part of the UCI optical digits: 1,797 images of 8 × 8 pixels, x = pixel/16 in [0, 1].

    Split by `split_seed`, stratified: 1,100 training, 297 validation and 400 test images. `noise` is the standard
    deviation of normal noise added to the training inputs.
    """

    name, features, classes, image_shape = "digits", 64, 10, (8, 8)
    class_names = tuple("0123456789")

    def __init__(
        self, *, batch_size: int = 32, eval_batch_size: int = 1000, seed: int = 0, split_seed: int = 0, noise: float = 0.0
    ):
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed, split_seed=split_seed)
        self.augment = (lambda x, g: x + noise * torch.randn(x.shape, generator=g)) if noise else None

    def split(self) -> tuple[Samples, Samples, Samples]:
        from sklearn.datasets import load_digits

        data = load_digits()
        x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target, dtype=torch.int64)
        rest, test = stratified(y, 400, self.split_seed)
        train, val = stratified(y[rest], 297, self.split_seed)

        def pick(index: Tensor) -> Samples:
            return x[index], y[index]

        return pick(rest[train]), pick(rest[val]), pick(test)
