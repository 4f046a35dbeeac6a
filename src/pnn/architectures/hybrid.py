"""Trainable digital linear layers around physical ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pnn.architectures.linear import Linear
from pnn.architectures.multilayer import Multilayer
from pnn.architectures.wiring import Lead, Shape, Sizes, copies
from pnn.layers import Laboratory, Via


class Hybrid(nn.Module):
    """Trainable digital linear layers around physical ones, co-trained: x → W_c x + w_c → channel c of physical layers → Σ_c.

    W_c (width, features) is the digital input layer of each of `channels` channels, built by `channel`. With
    `digital_output` the channels' read-outs, `hidden` numbers each, meet in a digital linear layer to the classes; else
    they are added, read out on the classes. `centre` is the initial offset of every drive (0.5 for a range of [0, 1]).
    """

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        channel: Callable[..., nn.Module] = Multilayer,
        channels: int = 4,
        width: int = 50,
        digital_output: bool = False,
        hidden: int = 10,
        centre: float = 0.0,
        lead: Lead = (),
    ):
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"architecture.{name}={value} must be >= 1")
        self.lead = len(lead)
        self.enter = Linear(task.features, width, (*lead, channels), centre)
        self.body = channel(
            laboratory, Sizes(width, hidden if digital_output else task.classes), lead=(*lead, channels)
        )
        self.leave = Linear(channels * hidden, task.classes, lead) if digital_output else None

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        x = self.enter(copies(x, self.lead, self.enter.weight.shape[self.lead]))  # (*lead, channel, ..., width)
        y = self.body(x, via)
        if self.leave is None:
            return y.sum(self.lead)
        return self.leave(y.movedim(self.lead, -2).flatten(-2))  # (*lead, ..., channel · hidden) → classes
