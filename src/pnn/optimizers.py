"""Optimiser and learning-rate schedule as one recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Adam:
    """Adam with a linear warm-up over the first `warmup` fraction of the steps, then constant or cosine decay to 0.

    `lr` is the peak learning rate; `factors` multiply it for parameters by the last part of their name that is no number
    (`scale`, `mask`, `coupling`, …), since a gain and a mask want different steps. `weight_decay` is decoupled from the
    gradient, θ ← θ − lr · decay · θ (AdamW; Loshchilov & Hutter, ICLR 2019).
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    factors: Mapping[str, float] = field(default_factory=dict)

    def build(
        self, network: nn.Module, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimiser of the network's trainable parameters and its per-step schedule for a run of `steps` steps."""
        groups = self.groups(network)
        b1, b2 = self.betas
        recipe = [{"params": group, "lr": factor * self.lr} for factor, group in groups.items()]
        optimiser = torch.optim.AdamW(recipe, betas=(b1, b2), weight_decay=self.weight_decay, fused=True)
        return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.factor(step, steps))

    def groups(self, network: nn.Module) -> dict[float, list[nn.Parameter]]:
        """Trainable parameters by their factor. Raises ValueError for a factor that no parameter has."""
        groups: dict[float, list[nn.Parameter]] = {}
        kinds = set()
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:  # a fitted digital model inside the network is not trained
                kinds.add(kind := kind_of(name))
                groups.setdefault(self.factors.get(kind, 1.0), []).append(parameter)
        unknown = sorted(set(self.factors) - kinds)
        if unknown:
            raise ValueError(
                f"optimizer.factors.{unknown[0]}: there is no such parameter; use {', '.join(sorted(kinds))}"
            )
        return groups

    def factor(self, step: int, steps: int) -> float:
        """Learning rate at `step`, relative to the peak."""
        ramp = max(1, round(self.warmup * steps)) if self.warmup else 0
        if step < ramp:
            return (step + 1) / ramp
        if self.schedule == "constant":
            return 1.0
        progress = (step - ramp) / max(1, steps - ramp)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def kind_of(name: str) -> str:
    """The last part of a parameter's name that is no number: layers.0.encoder.mask → mask, skip.1 → skip."""
    return next(part for part in reversed(name.split(".")) if not part.isdigit())
