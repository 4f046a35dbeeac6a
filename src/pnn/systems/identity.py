"""The digital reference: every device replaced by the identity."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pnn.systems.system import Constant, ParameterSpec, System, per_sample


class Identity(System):
    """y = s (x ⊙ a + b): what the encoding alone does when the device is replaced by f_p(x) → x (Nature 601, 549, Fig. 2).

    a, b: (input_size,), dimensionless trainable mask and offset of the encoder. s: scalar gain of the read-out, nominally 1,
    moved by a reality gap. Fewer outputs than inputs read the last ones; more outputs are padded with zeros. `clamp=c`
    limits the encoded signal to [-c, c], as a converter does: the clamp is itself a nonlinearity.
    """

    gain: Tensor

    def __init__(self, inputs: int, outputs: int, clamp: float | None = None):
        super().__init__()
        if clamp is not None and not clamp > 0:
            raise ValueError(f"system.clamp={clamp} must be > 0; use null for no clamp")
        self.input_size, self.output_size, self.clamp = inputs, outputs, clamp
        self.register_buffer("gain", torch.ones(1))

    @property
    def parameters_spec(self) -> tuple[ParameterSpec, ...]:
        spread = 1 / math.sqrt(self.input_size)
        return (
            ParameterSpec("mask", (self.input_size,), "1", initial=spread, centre=1.0),
            ParameterSpec("offset", (self.input_size,), "1", initial=spread),
        )

    @property
    def constants(self) -> dict[str, Constant]:
        return {"gain": Constant((1,))}

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        mask, offset = theta
        signal = x * per_sample(mask, x) + per_sample(offset, x)
        if self.clamp is not None:
            signal = signal.clamp(-self.clamp, self.clamp)
        signal = functional.pad(signal, (0, max(self.output_size - self.input_size, 0)))
        return per_sample(self.gain, signal) * signal[..., signal.shape[-1] - self.output_size :]

    def operations(self) -> int:
        return self.input_size
