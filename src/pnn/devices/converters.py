"""Imperfections of a signal chain that have no memory: converters and saturation."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def quantise(signal: Tensor, bits: int | None, full_scale: float) -> Tensor:
    """A mid-tread converter of `bits` bits over ±full_scale: clamp, then round to multiples of 2·full_scale/(2^bits − 2).

    Zero is a level, as it is in a converter without offset. The gradient is that of the clamp (straight through).
    """
    if bits is None:
        return signal
    step = 2 * full_scale / (2**bits - 2)
    clamped = signal.clamp(-full_scale, full_scale)
    if not clamped.requires_grad:
        return clamped.div_(step).round_().mul_(step)
    return clamped + ((clamped / step).round() * step - clamped).detach()


def saturate(signal: Tensor, level: float) -> Tensor:
    """A smoothly saturating amplifier, level · tanh(signal/level); the identity for an infinite level."""
    return signal if math.isinf(level) else level * torch.tanh(signal / level)
