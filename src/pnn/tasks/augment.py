"""Random changes of training images, a whole batch at once: x (n, height, width) → the same shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def flip(x: Tensor, g: torch.Generator) -> Tensor:
    """Mirror every image left to right with probability ½."""
    mirrored = torch.rand(len(x), 1, 1, generator=g) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def shift(x: Tensor, g: torch.Generator, pixels: int = 1) -> Tensor:
    """Move every image by −pixels … pixels whole pixels along each axis, each shift equally likely; zeros come in."""
    n, height, width = x.shape
    moves = torch.randint(-pixels, pixels + 1, (2, n, 1), generator=g)
    rows = (torch.arange(height) + moves[0] + pixels).unsqueeze(2)  # of the padded image
    columns = (torch.arange(width) + moves[1] + pixels).unsqueeze(1)
    padded = functional.pad(x, (pixels,) * 4)
    return padded[torch.arange(n).reshape(-1, 1, 1), rows, columns]


def flip_shift(x: Tensor, g: torch.Generator) -> Tensor:
    """Mirror, then move by up to one pixel."""
    return shift(flip(x, g), g)


def affine(
    x: Tensor,
    g: torch.Generator,
    degrees: float = 15.0,
    shift: tuple[float, float] = (0.0, 0.05),
    scales: tuple[float, float] = (0.9, 1.1),
) -> Tensor:
    """out(s R p + t) = in(p): rotation R by ±degrees, then scale s, then shift t, each uniform, about the centre.

    `shift` is the largest (x, y) shift in units of the width and height, `scales` the range of s. Bilinear between
    pixels, zero outside the image.
    """
    u = torch.rand(4, len(x), generator=g)
    angle = math.radians(degrees) * (2 * u[0] - 1)
    scale = scales[0] + (scales[1] - scales[0]) * u[1]
    t = 2 * torch.stack([shift[0] * (2 * u[2] - 1), shift[1] * (2 * u[3] - 1)], -1)  # (n, 2); the grid is 2 wide
    return transform(x, angle, scale, t)


def transform(x: Tensor, angle: Tensor, scale: Tensor, t: Tensor) -> Tensor:
    """The images (n, height, width) turned by `angle` (n,), radians, scaled by `scale` (n,), moved by t (n, 2)."""
    cos, sin = angle.cos() / scale, angle.sin() / scale
    inverse = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)  # (n, 2, 2): output → input
    matrix = torch.cat([inverse, -(inverse @ t.unsqueeze(-1))], -1)  # (n, 2, 3)
    grid = functional.affine_grid(matrix, [len(x), 1, *x.shape[-2:]], align_corners=False)
    return functional.grid_sample(x.unsqueeze(1), grid, align_corners=False).squeeze(1)


AUGMENTATIONS = {"none": None, "flip": flip, "flip_shift": flip_shift, "affine": affine}
