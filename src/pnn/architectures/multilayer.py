"""Physical layers in a row."""

from __future__ import annotations

from torch import Tensor, nn

from pnn.architectures.wiring import Lead, Shape, gain
from pnn.layers import Laboratory, PhysicalLayer, Via
from pnn.systems.system import per_sample


class Multilayer(nn.Module):
    """x → f(·, θ¹) → … → f(·, θ^depth), the last layer read out on `classes` outputs; logits = scale · readout.

    Every hidden layer passes its whole recording on. `scale` is a trainable output gain. Raises ValueError for depth < 1.
    """

    def __init__(self, laboratory: Laboratory, task: Shape, depth: int = 2, scale: float = 1.0, lead: Lead = ()):
        super().__init__()
        if depth < 1:
            raise ValueError(f"architecture.depth={depth} must be >= 1; use 2 for the paper's MNIST network")
        layers: list[PhysicalLayer] = []
        for level in range(depth):
            width = layers[-1].output_size if layers else task.features
            layers.append(laboratory.layer(width, task.classes if level == depth - 1 else None, lead))
        self.layers = nn.ModuleList(layers)
        self.scale = gain(scale, lead)

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        for layer in self.layers:
            x = layer(x, via)
        return per_sample(self.scale, x) * x
