"""All-to-all coupled nonlinear oscillators (pendula, Josephson junctions, laser phases)."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pnn.gradients import CouplingMatrix, OscillatorFlow
from pnn.integrate import SCHEMES, check
from pnn.systems.system import Constant, ParameterSpec, System

SelfCoupling = Literal["reference", "physical"]
Products = Literal["float32", "bfloat16"]


class CoupledOscillators(System):
    """q̈_i = −κ_i s_i + Σ_j J_ij (s_j − s_i) + e_i,  s_i = sin(α_i q_i),  J = (C + Cᵀ)/2,  q(0) = x, q̇(0) = 0, y = q(T).

    x: initial amplitudes (..., inputs), rad; y: final amplitudes (..., outputs), rad. Time is in units of the on-site
    angular frequency. With fewer outputs than inputs the outputs are extra oscillators that start at rest at 0
    (N = inputs + outputs); otherwise N = outputs and x is padded with zeros.

    θ: couplings C (N, N) and drives e (N,), both in units of the on-site strength. Constants: on-site strength κ,
    nonlinearity α, gains of every J_ij and e_i; nominally 1. `coupling_offset` is added to J.

    `self_coupling="physical"` is the equation as printed, where J_ii cancels; `"reference"` keeps the extra −J_ii s_i
    of the paper's code. In matrix form q̈ = s P + e with P symmetric, integrated by `scheme` in `steps` steps by the digital
    model, and by `device_scheme` in `device_steps` steps by a device. `linear` replaces sin(α q) by α q. `products` is the
    precision of the digital model's matrix products: float32, or bfloat16 (three digits) on processors that have it, which
    makes a training step of a large network 1.3 to 1.5 times as fast; a device always uses float32.
    Source: Wright, Onodera et al., NeurIPS 2021 workshop; code of the Nature paper.

    Raises ValueError for an unknown scheme or convention, steps < 1, or a duration that is not positive.
    """

    has_timing = True
    onsite: Tensor
    nonlinearity: Tensor
    drive_gain: Tensor
    coupling_gain: Tensor
    coupling_offset: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        duration: float = 0.5,
        steps: int = 1,
        scheme: str = "nystrom4",
        device_steps: int = 16,
        device_scheme: str = "leapfrog",
        self_coupling: SelfCoupling = "physical",
        linear: bool = False,
        products: Products = "float32",
    ):
        super().__init__()
        for key, name, count in (("scheme", scheme, steps), ("device_scheme", device_scheme, device_steps)):
            if name not in SCHEMES:
                raise ValueError(f"system.{key}={name} must be one of {', '.join(SCHEMES)}")
            check(SCHEMES[name], count)
        if self_coupling not in ("reference", "physical"):
            raise ValueError(f"system.self_coupling={self_coupling} must be 'reference' or 'physical'")
        if products not in ("float32", "bfloat16"):
            raise ValueError(f"system.products={products} must be 'float32' or 'bfloat16'")
        if not duration > 0:
            raise ValueError(f"system.duration={duration} must be > 0; use 0.5 as in the paper")
        self.input_size, self.output_size = inputs, outputs
        self.size = inputs + outputs if outputs < inputs else outputs
        self.duration, self.steps, self.scheme = duration, steps, SCHEMES[scheme]
        self.device_steps, self.device_scheme = device_steps, SCHEMES[device_scheme]
        self.self_coupling, self.linear, self.products = self_coupling, linear, products
        for name in ("onsite", "nonlinearity", "drive_gain"):
            self.register_buffer(name, torch.ones(1))
        self.register_buffer("coupling_gain", torch.ones(1, 1))
        self.register_buffer("coupling_offset", torch.zeros(1, 1))

    @property
    def parameters_spec(self) -> tuple[ParameterSpec, ...]:
        spread = 1 / math.sqrt(self.size)
        return (
            ParameterSpec("coupling", (self.size, self.size), "on-site strength", initial=spread),
            ParameterSpec("drive", (self.size,), "on-site strength", initial=spread),
        )

    @property
    def constants(self) -> dict[str, Constant]:
        vector = Constant((self.size,))
        return {
            "onsite": vector,
            "nonlinearity": vector,
            "coupling_gain": Constant((self.size, self.size), symmetric=True),
            "drive_gain": vector,
            "coupling_offset": Constant(perturbed=False, symmetric=True),
        }

    def converged(self) -> CoupledOscillators:
        twin = copy.deepcopy(self)
        twin.steps, twin.scheme, twin.products = self.device_steps, self.device_scheme, "float32"
        return twin

    def linearised(self) -> CoupledOscillators:
        twin = copy.deepcopy(self)
        twin.linear = True
        return twin

    def force_matrix(self, coupling: Tensor) -> Tensor:
        """P (*lead, N, N) of q̈ = sin(α q) P + e; symmetric."""
        keep = self.self_coupling == "reference"
        return CouplingMatrix.apply(coupling, self.coupling_gain, self.coupling_offset, self.onsite, keep)

    def forward(self, x: Tensor, *theta: Tensor, stretch: Tensor | None = None) -> Tensor:
        """q(T) of the oscillators that are read out; `stretch` (..., 1) changes T by a relative amount per sample."""
        coupling, drive = theta
        with torch.autocast(x.device.type, enabled=False):
            P = self.force_matrix(coupling)
            q = functional.pad(x.to(P.dtype), (0, self.size - self.input_size))
            lead = P.dim() - 2
            batch = q.shape[lead:-1]
            q = q.reshape(*q.shape[:lead], -1, self.size)  # (*lead, batch, N)
            e = (drive * self.drive_gain).unsqueeze(-2)
            duration: float | Tensor = self.duration
            if stretch is not None:
                duration = self.duration * (1 + stretch.reshape(*q.shape[:-1], 1))
            y = self._positions(q, P, e, duration)
            return y.reshape(*y.shape[:lead], *batch, self.output_size)

    def _positions(self, q: Tensor, P: Tensor, e: Tensor, duration: float | Tensor) -> Tensor:
        """In Q = α q the equation is Q̈ = sin(Q) P α + e α: the nonlinearity leaves the time loop."""
        columns = slice(self.size - self.output_size, self.size)
        low = torch.bfloat16 if self.products == "bfloat16" and has_bfloat16(q.device) else q.dtype
        method = duration, self.steps, self.scheme, columns, self.linear, low
        alpha = self.nonlinearity.unsqueeze(-2)
        if alpha.numel() == 1 and float(alpha) == 1.0:
            return OscillatorFlow.apply(q, P, e, *method)
        P = P * alpha if P.requires_grad else P.mul_(alpha)
        y = OscillatorFlow.apply(q * alpha, P, e * alpha, *method)
        return y / (alpha if alpha.shape[-1] == 1 else alpha[..., columns])

    def operations(self) -> int:
        """One N × N product per force evaluation, the last on the columns that are read."""
        return (self.scheme.evaluations(self.steps) - 1) * self.size**2 + self.size * self.output_size


def has_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 matrices natively; elsewhere they would be many times slower."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
