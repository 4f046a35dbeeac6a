"""MNIST-like image sets: 28 × 28 grey pixels in IDX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pnn.errors import UserError
from pnn.tasks.augment import AUGMENTATIONS
from pnn.tasks.base import Samples, Task, whole
from pnn.tasks.fetch import fetch
from pnn.tasks.idx import read_idx

SIDE = 28


class IdxImages(Task):
    """28 × 28 grey images in [0, 1], every `stride`-th pixel of each row and column; 60,000 for training, 10,000 for test.

    With `pool` the mean of each square of `stride` pixels instead of its first one (at the edge: of what is there).
    `validation` images come out of the training set (seeded, stratified); `train_limit` keeps so many of the rest.
    `augment`: none, flip (left-right), flip_shift (and by up to a pixel along each axis) or affine (±15°, shift (0, 0.05),
    scale 0.9-1.1), drawn on the full image, before the stride. `path`: a folder with the four IDX files, instead of the data
    folder. Raises UserError for a value out of its limits and for missing or damaged files.
    """

    classes = 10
    class_names = tuple("0123456789")

    def __init__(
        self,
        *,
        batch_size: int = 64,
        eval_batch_size: int = 1000,
        seed: int = 0,
        split_seed: int = 0,
        validation: int | float = 5000,
        stride: int = 1,
        augment: str = "none",
        train_limit: int | None = None,
        path: str | None = None,
        symmetric: bool = False,
        pool: bool = False,
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
        if augment not in AUGMENTATIONS:
            raise UserError(f"task.augment={augment} must be one of {', '.join(AUGMENTATIONS)}; use none for no change")
        self.stride = whole("stride", stride, 1, "use 1 for every pixel, 2 for every second one", SIDE)
        if not isinstance(pool, bool):
            raise UserError(f"task.pool={pool} must be true or false")
        self.path, self.pool = path, pool
        side = -(-SIDE // stride)
        self.image_shape, self.features = (side, side), side * side
        self._move = AUGMENTATIONS[augment]
        self.augment = self._moved if self._move else None
        self._pixels: Tensor

    def encode(self, images: Tensor) -> Tensor:
        """Grey images (n, 28, 28) → what a network sees (n, features)."""
        if not self.pool:
            return images[:, :: self.stride, :: self.stride].flatten(1)
        return functional.avg_pool2d(images.float().unsqueeze(1), self.stride, ceil_mode=True).flatten(1)

    def _moved(self, pixels: Tensor, g: torch.Generator) -> Tensor:
        assert self._move is not None
        return self.encode(self._move(scaled(pixels), g))

    def prepare_data(self) -> None:
        """Fetch the files if they are not there."""
        fetch(self.name, self.path)

    def split(self) -> tuple[Samples, Samples, Samples]:
        folder = fetch(self.name, self.path)
        pixels, y = read_pair(folder, "train")
        train, val = self.hold_out(y)
        test_pixels, test_y = read_pair(folder, "t10k")
        self._pixels = pixels[train]

        def samples(images: Tensor, labels: Tensor) -> Samples:
            return scaled(self.encode(images)), labels

        return samples(self._pixels, y[train]), samples(pixels[val], y[val]), samples(test_pixels, test_y)

    def training_inputs(self) -> Tensor:
        """Bytes of the full images (n, 28, 28) under augmentation, else the encoded samples (n, features)."""
        return self.train[0] if self.augment is None else self._pixels


def read_pair(folder: Path, part: str) -> Samples:
    """Images uint8 (n, 28, 28) and labels int64 (n,) of `train` or `t10k`. Raises UserError if they do not fit."""
    images, labels = (read_idx(folder / f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    if images.shape[1:] != (SIDE, SIDE) or labels.shape != images.shape[:1] or labels.max(initial=0) > 9:
        raise UserError(
            f"{folder}: {part} has images {images.shape} and labels {labels.shape} up to {labels.max(initial=0)}; "
            f"they must be (n, {SIDE}, {SIDE}) and (n,) up to 9: fetch them again with pnn-data"
        )
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def scaled(pixels: Tensor) -> Tensor:
    """Bytes → float32 in [0, 1]."""
    return pixels.float() / 255


class MNIST(IdxImages):
    """Handwritten digits (LeCun, Cortes & Burges)."""

    name = "mnist"


class FashionMNIST(IdxImages):
    """Articles of clothing (Xiao, Rasul & Vollgraf, arXiv:1708.07747)."""

    name = "fashion_mnist"
    class_names = (
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
