"""What every network takes and shares: the task's shape, leading dimensions, trainable gains.

Every network takes x (*lead, ..., features) to logits (*lead, ..., classes); `lead` are independent copies (seeds,
ensemble members, channels) that run in one batched call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Lead = tuple[int, ...]


class Shape(Protocol):
    """What a network must know of its task: flat inputs per sample, classes, and the image's shape if it is one."""

    features: int
    classes: int
    image_shape: tuple[int, int] | None


@dataclass(frozen=True)
class Sizes:
    """The shape of a part of a network: what its features and outputs look like from inside a larger one."""

    features: int
    classes: int
    image_shape: tuple[int, int] | None = None


def gain(value: float, lead: Lead) -> nn.Parameter:
    """A trainable scalar of every copy, (*lead, 1)."""
    return nn.Parameter(torch.full((*lead, 1), float(value)))


def copies(x: Tensor, lead: int, count: int) -> Tensor:
    """(*lead, ..., n) → (*lead, count, ..., n) without copying."""
    return x.unsqueeze(lead).expand(*x.shape[:lead], count, *x.shape[lead:])


def pick(x: Tensor, index: Tensor | None, lead: int) -> Tensor:
    """Entries `index` (copy, k) of x (*lead, copy, ..., n), each copy its own: (*lead, copy, ..., k); None: all of x."""
    if index is None:
        return x
    index = index.reshape(len(index), *(1,) * (x.dim() - lead - 2), index.shape[-1])
    return x.gather(-1, index.expand(*x.shape[:-1], -1))
