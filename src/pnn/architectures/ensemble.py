"""Networks that differ in their parameters, logits averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from pnn.architectures.multilayer import Multilayer
from pnn.architectures.wiring import Lead, Shape, copies, pick
from pnn.layers import Laboratory, Via


class Ensemble(nn.Module):
    """`members` networks that differ in their parameters, their logits averaged; all in one batched call of each device.

    `member(laboratory, task, lead=…)` builds them. Optionally each reads the data in a shuffled order of its own
    (`reading="shuffled"`, fixed by `seed`) and, with `roll_classes`, member m has its class windows rolled by m places,
    so that no class always sits at the weakest end of the recording. Raises ValueError for members < 1.
    """

    order: Tensor | None
    window: Tensor | None

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        member: Callable[..., nn.Module] = Multilayer,
        members: int = 7,
        reading: Literal["raster", "shuffled"] = "raster",
        roll_classes: bool = False,
        seed: int = 0,
        lead: Lead = (),
    ):
        super().__init__()
        if members < 1:
            raise ValueError(f"architecture.members={members} must be >= 1; use 7 as in the paper")
        if reading not in ("raster", "shuffled"):
            raise ValueError(f"architecture.reading={reading} must be raster or shuffled")
        self.lead, self.members = len(lead), members
        self.body = member(laboratory, task, lead=(*lead, members))
        shuffle = torch.Generator().manual_seed(seed)
        order = torch.stack([torch.randperm(task.features, generator=shuffle) for _ in range(members)])
        window = torch.stack([torch.arange(task.classes).roll(m) for m in range(members)])
        self.register_buffer("order", order if reading == "shuffled" else None, persistent=False)  # (member, feature)
        self.register_buffer("window", window if roll_classes else None, persistent=False)  # (member, class)

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        x = pick(copies(x, self.lead, self.members), self.order, self.lead)  # (*lead, member, ..., feature)
        return pick(self.body(x, via), self.window, self.lead).mean(self.lead)
