"""A system that is nothing but its parameters: what else comes out of a device is the device's imperfection."""

from __future__ import annotations

import torch
from torch import Tensor

from pnn.systems import ParameterSpec, System
from pnn.systems.system import Constant, per_sample


class Masked(System):
    """y = s (x ⊙ a + b), with θ = (a, b) and one constant s; as many outputs as inputs."""

    gain: Tensor

    def __init__(self, inputs: int, outputs: int | None = None):
        super().__init__()
        self.input_size = self.output_size = inputs
        self.register_buffer("gain", torch.ones(1))

    @property
    def parameters_spec(self) -> tuple[ParameterSpec, ...]:
        names = (("mask", 1.0), ("offset", 0.0))
        return tuple(ParameterSpec(name, (self.input_size,), "1", initial=0.5, centre=centre) for name, centre in names)

    @property
    def constants(self) -> dict[str, Constant]:
        return {"gain": Constant((1,))}

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        mask, offset = theta
        return per_sample(self.gain, x) * (x * per_sample(mask, x) + per_sample(offset, x))
