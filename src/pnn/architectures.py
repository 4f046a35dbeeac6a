"""How physical layers are wired. Wiring only: no physics, no training."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from pnn.layers import Laboratory, Via


class Shape(Protocol):
    """What a network must know of its task: flat inputs per sample, classes, and the image's shape if it is one."""

    features: int
    classes: int
    image_shape: tuple[int, int] | None


class Multilayer(nn.Module):
    """x → f(·, θ¹) → … → f(·, θ^depth), the last layer read out on `classes` outputs; logits = scale · readout.

    x (*lead, ..., features) → logits (*lead, ..., classes). Every hidden layer keeps the width `features`. `scale` is a
    trainable output gain. `lead` runs independent copies (seeds) of the network in one call.

    Raises ValueError for depth < 1.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        depth: int = 2,
        scale: float = 1.0,
        lead: tuple[int, ...] = (),
    ):
        super().__init__()
        if depth < 1:
            raise ValueError(f"architecture.depth={depth} must be >= 1; use 2 for the paper's MNIST network")
        widths = [task.features] * depth + [task.classes]
        self.layers = nn.ModuleList(laboratory.layer(widths[i], widths[i + 1], lead) for i in range(depth))
        self.scale = nn.Parameter(torch.full((*lead, *(1,) * (2 if lead else 1)), scale))

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        for layer in self.layers:
            x = layer(x, via)
        return self.scale * x


class Mixer(nn.Module):
    """Patches that share one physical network, then a large one over all of their outputs (paper, Fig. 3).

    x (..., features), an image of `image_shape`, is cut into square patches of `patch` pixels a side; each patch goes
    through the same `width`-output physical system (..., patches, width); all amplitudes together drive the last
    system, read out on `classes` outputs; logits = scale · readout.

    Raises ValueError for a task without images and for a patch that does not divide the image.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        patch: int = 7,
        width: int = 100,
        scale: float = 1.0,
    ):
        super().__init__()
        height, across = check_patch(task.image_shape, patch)
        self.patch, self.rows, self.columns = patch, height // patch, across // patch
        self.shared = laboratory.layer(patch * patch, width)
        self.last = laboratory.layer(self.rows * self.columns * width, task.classes)
        self.scale = nn.Parameter(torch.tensor([scale]))

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        x = self.patches(x)  # (..., patch, pixel)
        x = self.shared(x, via)  # (..., patch, width)
        return self.scale * self.last(x.flatten(-2), via)  # (..., class)

    def patches(self, x: Tensor) -> Tensor:
        """(..., features) → (..., patches, pixels per patch)."""
        p = self.patch
        x = x.unflatten(-1, (self.rows, p, self.columns, p))  # (..., row, y, column, x)
        return x.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def check_patch(image_shape: tuple[int, int] | None, patch: int) -> tuple[int, int]:
    """The image's height and width; refuse a patch that does not divide them."""
    if image_shape is None:
        raise ValueError(
            "architecture=mixer cuts images into patches, and this task has none; use architecture=multilayer"
        )
    if patch < 1 or image_shape[0] % patch or image_shape[1] % patch:
        divisors = [d for d in range(1, min(image_shape) + 1) if not (image_shape[0] % d or image_shape[1] % d)]
        raise ValueError(
            f"architecture.patch={patch} must divide the image of {image_shape[0]}×{image_shape[1]} pixels; use one of {divisors}"
        )
    return image_shape
