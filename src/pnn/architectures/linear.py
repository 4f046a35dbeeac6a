"""Digital linear layers: inside a hybrid, and as the two networks without physics that every experiment is held against."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pnn.architectures.wiring import Lead, Shape
from pnn.encodings import uniform
from pnn.layers import Laboratory, Via


class Linear(nn.Module):
    """W x + w for every copy: x (*lead, ..., inputs) → (*lead, ..., outputs); nn.Linear's initial values, offset `centre`."""

    def __init__(self, inputs: int, outputs: int, lead: Lead = (), centre: float = 0.0):
        super().__init__()
        spread = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(uniform((*lead, outputs, inputs), 0.0, spread))
        self.bias = nn.Parameter(uniform((*lead, outputs), centre, spread))

    def forward(self, x: Tensor) -> Tensor:
        between = x.shape[self.weight.dim() - 2 : -1]
        flat = x.reshape(*self.weight.shape[:-2], -1, x.shape[-1])
        y = flat @ self.weight.mT + self.bias.unsqueeze(-2)
        return y.reshape(*self.weight.shape[:-2], *between, y.shape[-1])


class LinearClassifier(Linear):
    """Multinomial logistic regression: no physics at all, the first reference of every experiment."""

    def __init__(self, laboratory: Laboratory, task: Shape, lead: Lead = ()):
        super().__init__(task.features, task.classes, lead)

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        return super().forward(x)


class Perceptron(nn.Module):
    """One hidden layer of rectified linear units, W_2 max(0, W_1 x + w_1) + w_2: no physics, what a small digital network does.

    Raises ValueError for hidden < 1.
    """

    def __init__(self, laboratory: Laboratory, task: Shape, hidden: int = 32, lead: Lead = ()):
        super().__init__()
        if hidden < 1:
            raise ValueError(f"architecture.hidden={hidden} must be >= 1; use 32")
        self.hidden = Linear(task.features, hidden, lead)
        self.output = Linear(hidden, task.classes, lead)

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        return self.output(torch.relu(self.hidden(x)))
