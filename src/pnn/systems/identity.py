"""The digital reference: every device replaced by the identity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pnn.systems.system import Constant, System, per_sample


class Identity(System):
    """y = s u: what encoding and read-out alone do when the device is replaced by f_p(u) → u (Nature 601, 549, Fig. 2).

    u, y: (..., inputs). s: scalar gain of the read-out, nominally 1, moved by a reality gap. `low` and `high` are the
    range that the drive is clamped to, as a converter does: the clamp is itself a nonlinearity. Raises ValueError for
    an empty range.
    """

    gain: Tensor

    def __init__(self, inputs: int, outputs: int | None = None, low: float | None = None, high: float | None = None):
        super().__init__()
        self.input_range = (-math.inf if low is None else low, math.inf if high is None else high)
        if not self.input_range[0] < self.input_range[1]:
            raise ValueError(f"system.low={low} must be < system.high={high}; use null for no clamp")
        self.input_size = self.output_size = inputs
        self.register_buffer("gain", torch.ones(1))

    @property
    def constants(self) -> dict[str, Constant]:
        return {"gain": Constant((1,))}

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        return per_sample(self.gain, x) * x

    def linearised(self) -> Identity:
        return self
