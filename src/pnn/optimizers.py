"""Optimiser and learning-rate schedule as one recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Adam:
    """Adam with a linear warm-up over the first `warmup` fraction of the steps, then constant or cosine decay to 0.

    `lr` is the peak learning rate.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0

    def build(
        self, parameters: Iterable[nn.Parameter], steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimiser and its per-step schedule for a run of `steps` steps."""
        b1, b2 = self.betas
        optimiser = torch.optim.Adam(parameters, lr=self.lr, betas=(b1, b2), weight_decay=self.weight_decay, fused=True)
        return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.factor(step, steps))

    def factor(self, step: int, steps: int) -> float:
        """Learning rate at `step`, relative to the peak."""
        ramp = max(1, round(self.warmup * steps)) if self.warmup else 0
        if step < ramp:
            return (step + 1) / ramp
        if self.schedule == "constant":
            return 1.0
        progress = (step - ramp) / max(1, steps - ramp)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
