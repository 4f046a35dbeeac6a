"""What every physical system offers: sizes, parameters with their units and ranges, constants, and y = f(x, θ)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterSpec:
    """One trainable physical parameter θ: shape, unit, allowed range and initial distribution.

    `initial` is the half-width of a uniform distribution about `centre`. `low`/`high` are what the device accepts: the layer
    penalises and clamps, the device refuses.
    """

    name: str
    shape: tuple[int, ...]
    unit: str
    initial: float
    centre: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def sample(self, lead: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Tensor:
        """Initial values, shape (*lead, *shape)."""
        uniform = torch.rand((*lead, *self.shape), generator=generator)
        return self.centre + self.initial * (2 * uniform - 1)


@dataclass(frozen=True)
class Constant:
    """How a reality gap moves one untrained constant: multiplied by 1 + u, u ~ U(±gap), or left alone.

    `shape` is the shape the factor takes on a device (a scalar nominal constant may differ element by element there).
    `symmetric` draws one factor per unordered pair. One that is left alone is a part that the nominal system lacks (zero).
    """

    shape: tuple[int, ...] = ()
    perturbed: bool = True
    symmetric: bool = False


class System(nn.Module):
    """A parametrised physical transformation y = f(x, θ), stateless and differentiable.

    Constants are buffers named in `constants`, so `.to(device)`, dtypes and `state_dict` work. Shapes: x is
    (*lead, ..., input_size), every θ is (*lead, *spec.shape), y is (*lead, ..., output_size); `lead` are the leading
    dimensions of a system whose copies (ensemble members, seeds) are evaluated in one call, usually empty. It is built
    with the numbers of inputs and outputs that the network wishes; a system with sizes of its own keeps those, and
    encoder and read-out outside adapt. Parameters that are part of the drive belong to the encoder.
    """

    input_size: int
    output_size: int
    #: Allowed input range, (-inf, inf) where the physics has none; the layer clamps, the device refuses.
    input_range: tuple[float, float] = (-math.inf, math.inf)
    #: What the measured output stays within, ±: the full scale of a converter that reads it, in units of y.
    full_scale: float = 32.0
    #: The constant that a slow drift of the device multiplies (temperature, say); None: the gain of the read-out drifts.
    drift_constant: str | None = None
    #: Whether `forward` takes `stretch`, a relative change of the record's duration, per sample: (..., 1).
    has_timing: bool = False

    @property
    def parameters_spec(self) -> tuple[ParameterSpec, ...]:
        """The trainable physical parameters, in the order in which `forward` takes them."""
        return ()

    @property
    def constants(self) -> dict[str, Constant]:
        """The untrained constants by buffer name: what a reality gap perturbs."""
        return {}

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        """y = f(x, θ)."""
        raise TypeError(f"{type(self).__name__} does not define forward(x, *theta)")

    def operations(self) -> int:
        """Multiply-accumulate operations that a digital computer needs for one sample."""
        return 0

    @property
    def record_seconds(self) -> float | None:
        """How long one record takes, s; None where the physics has no absolute scale of time or the instrument sets it."""
        return None

    def converged(self) -> System:
        """A copy at the numerical resolution of a device, which is the truth; the digital model may be coarser."""
        return copy.deepcopy(self)

    def linearised(self) -> System:
        """A copy with linear physics: the reference that shows what the nonlinearity of the physics contributes."""
        raise ValueError(f"{type(self).__name__} has no linear form; use reference=identity or clamped")

    def perturbed(self, gap: float, generator: torch.Generator, parts: bool = False) -> System:
        """A copy with its own constants: each perturbed one multiplied by 1 + u, u uniform in ±gap.

        With `parts`, so is then every element of the constants that no gap moves: what this device has and its model lacks.
        Uniform factors stay positive for gap < 1, where Gaussian ones would flip signs. Draws come from `generator`
        in the order of `constants`, the parts last, so one seed names one device.
        """
        if not 0 <= gap < 1:
            raise ValueError(f"gap={gap} must be in [0, 1); use 0 for a perfect digital model")
        twin = copy.deepcopy(self)
        moved = {name: rule.shape for name, rule in self.constants.items() if rule.perturbed}
        if parts:
            moved |= {name: getattr(self, name).shape for name in self.constants if name not in moved}
        for name, shape in moved.items():
            u = 2 * torch.rand(shape, generator=generator) - 1
            if self.constants[name].symmetric:
                u = u.triu() + u.triu(1).mT
            nominal = getattr(twin, name)
            setattr(twin, name, nominal * (1 + gap * u.to(nominal)))
        return twin


def stack(systems: Sequence[System]) -> System:
    """Copies of one system with different constants as a single system with a leading dimension."""
    stacked = copy.deepcopy(systems[0])
    for name in stacked.constants:
        setattr(stacked, name, torch.stack([getattr(system, name) for system in systems]))
    return stacked


def per_sample(theta: Tensor, x: Tensor) -> Tensor:
    """A vector parameter (*lead, N) with the sample axes that broadcast it against x (*lead, ..., N)."""
    for _ in range(x.dim() - theta.dim() if theta.dim() > 1 else 0):
        theta = theta.unsqueeze(-2)
    return theta
