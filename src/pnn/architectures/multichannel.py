"""Networks side by side whose class recordings are added."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pnn.architectures.multilayer import Multilayer
from pnn.architectures.wiring import Lead, Shape, Sizes, copies, pick
from pnn.layers import Laboratory, Via


class Multichannel(nn.Module):
    """`channels` networks side by side whose class recordings are added: logits = Σ_c logits_c; one batched call.

    `channel(laboratory, sizes, lead=…)` builds them. With `split` every channel gets its own part of the features, each
    `channels`-th one; else all of them. Raises ValueError for channels < 1 and for fewer features than channels.
    """

    parts: Tensor | None

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        channel: Callable[..., nn.Module] = Multilayer,
        channels: int = 4,
        split: bool = True,
        lead: Lead = (),
    ):
        super().__init__()
        if not 1 <= channels <= task.features:
            raise ValueError(
                f"architecture.channels={channels} must be >= 1 and <= {task.features}, the features; use 4"
            )
        self.lead, self.channels = len(lead), channels
        each = -(-task.features // channels) if split else task.features
        index = torch.arange(each) * channels + torch.arange(channels).unsqueeze(-1)  # (channel, feature)
        self.register_buffer("parts", index.clamp_max(task.features - 1) if split else None, persistent=False)
        self.body = channel(laboratory, Sizes(each, task.classes), lead=(*lead, channels))

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        x = pick(copies(x, self.lead, self.channels), self.parts, self.lead)  # (*lead, channel, ..., feature)
        return self.body(x, via).sum(self.lead)
