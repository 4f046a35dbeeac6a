"""Physical layers in a row with skip connections from the data."""

from __future__ import annotations

from torch import Tensor, nn

from pnn.architectures.multilayer import Multilayer
from pnn.architectures.wiring import Lead, Shape, gain
from pnn.encodings import resample
from pnn.layers import Laboratory, Via
from pnn.systems.system import per_sample


class Skip(Multilayer):
    """Layers in a row with skip connections from the data: h_{l+1} = s_l · f(h_l, θ^l) + k_l · x, h_1 = x.

    s_l and k_l are trainable scalars, initially `through` and `skip`; x is resampled to the width of the recording. The
    last layer is read out on `classes` outputs, logits = scale · readout.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        depth: int = 3,
        scale: float = 1.0,
        through: float = 1.0,
        skip: float = 0.5,
        lead: Lead = (),
    ):
        super().__init__(laboratory, task, depth, scale, lead)
        self.through = nn.ParameterList(gain(through, lead) for _ in range(depth - 1))
        self.skip = nn.ParameterList(gain(skip, lead) for _ in range(depth - 1))

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        h = x
        for layer, s, k in zip(self.layers, self.through, self.skip, strict=False):
            y = layer(h, via)
            h = per_sample(s, y) * y + per_sample(k, x) * resample(x, y.shape[-1])
        y = self.layers[-1](h, via)
        return per_sample(self.scale, y) * y
