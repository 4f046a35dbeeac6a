"""MNIST-like image sets in IDX files: reader, augmentations, and the two tasks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pnn.errors import UserError
from pnn.tasks.base import Samples, Task, stratified
from pnn.tasks.fetch import fetch

SIDE = 28


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes → array. Raises UserError for a wrong magic number or size."""
    content = path.read_bytes()
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise UserError(f"{path} is not an IDX file of bytes (it starts with {content[:4].hex()}); fetch it again with pnn-data")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, 4)
    expected, found = math.prod(int(n) for n in shape), len(content) - 4 - 4 * rank
    if found != expected:
        raise UserError(f"{path} holds {found} bytes of data, and its header says {expected}; fetch it again with pnn-data")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def flip(x: Tensor, g: torch.Generator) -> Tensor:
    """Mirror every image (..., 28, 28) left to right with probability ½."""
    mirrored = torch.rand(len(x), 1, 1, generator=g) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def affine(
    x: Tensor,
    g: torch.Generator,
    degrees: float = 15.0,
    shift: tuple[float, float] = (0.0, 0.05),
    scales: tuple[float, float] = (0.9, 1.1),
) -> Tensor:
    """Rotate by ±degrees, shift by up to `shift` (x, y) of the width, scale by `scales`, each uniform; (n, 28, 28)."""
    u = torch.rand(4, len(x), generator=g)
    angle = math.radians(degrees) * (2 * u[0] - 1)
    scale = scales[0] + (scales[1] - scales[0]) * u[1]
    dx, dy = 2 * shift[0] * (2 * u[2] - 1), 2 * shift[1] * (2 * u[3] - 1)  # affine_grid's width is 2
    cos, sin = angle.cos() / scale, angle.sin() / scale
    matrix = torch.stack([torch.stack([cos, -sin, dx], -1), torch.stack([sin, cos, dy], -1)], -2)  # (n, 2, 3)
    grid = functional.affine_grid(matrix, [len(x), 1, SIDE, SIDE], align_corners=False)
    return functional.grid_sample(x.unsqueeze(1), grid, align_corners=False).squeeze(1)


AUGMENTATIONS = {"none": None, "flip": flip, "affine": affine}


class IdxImages(Task):
    """28 × 28 grey images in [0, 1], every `stride`-th pixel of each row and column; 60,000 training and 10,000 test images.

    `validation` images come out of the training set (seeded, stratified); `train_limit` keeps so many of the rest.
    `augment`: none, flip (left-right) or affine (15°, 0.05, 0.9-1.1), drawn on the full image. `path`: a folder with the
    four IDX files instead of the data folder. Raises UserError for a value out of its limits and for damaged files.
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
        validation: int = 5000,
        stride: int = 1,
        augment: str = "none",
        train_limit: int | None = None,
        path: str | None = None,
    ):
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed, split_seed=split_seed)
        if augment not in AUGMENTATIONS:
            raise UserError(f"task.augment={augment} must be one of {', '.join(AUGMENTATIONS)}")
        if not 1 <= stride <= SIDE:
            raise UserError(f"task.stride={stride} must be >= 1 and <= {SIDE}; use 1 for every pixel")
        self.stride, self.validation, self.train_limit, self.path = stride, validation, train_limit, path
        side = -(-SIDE // stride)
        self.image_shape, self.features = (side, side), side * side
        move = AUGMENTATIONS[augment]
        self.augment = None if move is None else lambda x, g: self.encode(move(x, g))

    def encode(self, x: Tensor) -> Tensor:
        """(n, 28, 28) → (n, features)."""
        return x[:, :: self.stride, :: self.stride].flatten(1)

    def prepare_data(self) -> None:
        fetch(self.name, self.path)

    def split(self) -> tuple[Samples, Samples, Samples]:
        folder = fetch(self.name, self.path)
        images = {part: read_idx(folder / f"{part}-images-idx3-ubyte") for part in ("train", "t10k")}
        labels = {part: read_idx(folder / f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}
        x, y = scaled(images["train"]), torch.from_numpy(labels["train"].astype(np.int64))
        if not 1 <= self.validation < len(y):
            raise UserError(f"task.validation={self.validation} must be >= 1 and < {len(y)}; use 5000")
        train, val = stratified(y, self.validation, self.split_seed)
        if self.train_limit is not None and self.train_limit < len(train):
            train = train[stratified(y[train], self.train_limit, self.split_seed)[1]]
        stored = x[train] if self.augment else self.encode(x[train])
        test = self.encode(scaled(images["t10k"])), torch.from_numpy(labels["t10k"].astype(np.int64))
        return (stored, y[train]), (self.encode(x[val]), y[val]), test


def scaled(images: np.ndarray) -> Tensor:
    """Bytes → float32 in [0, 1]."""
    return torch.from_numpy(images.astype(np.float32) / 255)


class MNIST(IdxImages):
    """Handwritten digits (LeCun, Cortes & Burges)."""

    name = "mnist"


class FashionMNIST(IdxImages):
    """Articles of clothing (Xiao, Rasul & Vollgraf, arXiv:1708.07747)."""

    name = "fashion_mnist"
    class_names = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
