"""Measured input-output pairs, and the sampling plans by which a device is driven for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from pnn.errors import UserError
from pnn.systems.system import ParameterSpec, System

Plan = Literal["uniform", "lowpass", "visited"]
PLANS = ("uniform", "lowpass", "visited")
#: Records per device call, and the largest plan that is held in memory (numbers).
CHUNK, LARGEST = 256, 500_000_000


class Responds(Protocol):
    """The one method of a device that measuring needs."""

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        """Drive with x and θ, measure y."""


@dataclass
class Measurements:
    """x (n, in), θ (n, *shape) each, y (n, out); y2: a second measurement of the same inputs, or None."""

    x: Tensor
    theta: tuple[Tensor, ...]
    y: Tensor
    y2: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def mean(self) -> Tensor:
        """The average of the measurements of each input."""
        return self.y if self.y2 is None else (self.y + self.y2) / 2

    @property
    def noise(self) -> float | None:
        """Standard deviation of one measurement over ‖y − mean‖, from the repeats: √(⟨(y − y2)²⟩/2); None without."""
        if self.y2 is None:
            return None
        variance = (self.y - self.y2).double().square().sum() / 2
        return math.sqrt(float(variance / self.spread))

    @property
    def spread(self) -> Tensor:
        """Σ ‖y − ȳ‖² about each output's mean, of single measurements."""
        total = (self.y - self.mean.mean(0)).double().square().sum()
        if self.y2 is not None:
            total = (total + (self.y2 - self.mean.mean(0)).double().square().sum()) / 2
        return total

    def rows(self, picked: Tensor | slice) -> Measurements:
        """Some of the rows."""
        y2 = None if self.y2 is None else self.y2[picked]
        return Measurements(self.x[picked], tuple(t[picked] for t in self.theta), self.y[picked], y2)

    def split(self, fraction: float, seed: int) -> tuple[Measurements, Measurements]:
        """Rows to fit and held-out rows, at least one of each, in an order drawn from `seed`."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        held = min(max(1, round(fraction * len(self))), len(self) - 1)
        return self.rows(order[held:]), self.rows(order[:held])


class Measured(System):
    """The sizes and ranges of a device known only by its measurements: no equation, no constants."""

    def __init__(self, data: Measurements):
        super().__init__()
        self.input_size, self.output_size = data.x.shape[1], data.y.shape[1]
        self.input_range = (float(data.x.min()), float(data.x.max()))
        self._specs = tuple(
            ParameterSpec(f"theta{k}" if k else "theta", tuple(t.shape[1:]), "1", initial=float(t.std()) or 1.0)
            for k, t in enumerate(data.theta)
        )

    @property
    def parameters_spec(self) -> tuple[ParameterSpec, ...]:
        return self._specs


def sample(
    device: Responds,
    system: System,
    count: int,
    *,
    plan: Plan = "uniform",
    repeats: int = 2,
    seed: int = 0,
    visited: Tensor | tuple[Tensor, ...] | None = None,
) -> Measurements:
    """Drive `device` with `count` records and measure each `repeats` times, all of them once and then all again.

    `plan`: `uniform`, every input independent and uniform over the system's range (±1 where it is infinite); `lowpass`,
    noise below a random cut-off, of random size; `visited`, rows of `visited`: inputs (m, in), or (inputs, *θ), that
    a training run sent, each at most once, and so fewer than `count` where there are fewer. θ is uniform in its allowed
    range, or from its initial distribution where there is none.

    Raises UserError for an unknown plan, numbers that cannot be, or a plan too large to hold in memory.
    """
    if plan not in PLANS:
        raise UserError(f"model.measure.plan={plan} must be one of {', '.join(PLANS)}")
    if repeats not in (1, 2):
        raise UserError(f"model.measure.repeats={repeats} must be 1 or 2; use 2 to know the noise floor")
    if count < 2:
        raise UserError(f"model.measure.samples={count} must be >= 2; use 10000")
    elements = count * (system.input_size + sum(math.prod(s.shape) for s in system.parameters_spec))
    if elements > LARGEST:
        most = LARGEST * count // elements
        raise UserError(
            f"model.measure.samples={count} records of this system's inputs and parameters are {elements:.1e} numbers; "
            f"use at most {most}, or model=grey_box with fewer samples, or model=nominal"
        )
    generator = torch.Generator().manual_seed(seed)
    x, *theta = _plan(system, count, plan, generator, visited)
    y, *again = (_measure(device, x, theta) for _ in range(repeats))
    return Measurements(x, tuple(theta), y, again[0] if again else None)


def _measure(device: Responds, x: Tensor, theta: list[Tensor]) -> Tensor:
    """The device's answers, some records at a time; every record has its own θ."""
    pieces = zip(x.split(CHUNK), *(t.split(CHUNK) for t in theta), strict=True)
    return torch.cat([device.respond(*piece).detach() for piece in pieces])


def drive_range(system: System) -> tuple[float, float]:
    """The system's input range, ±1 where it is infinite."""
    low, high = system.input_range
    return low if math.isfinite(low) else -1.0, high if math.isfinite(high) else 1.0


def _plan(
    system: System, count: int, plan: str, generator: torch.Generator, visited: Tensor | tuple[Tensor, ...] | None
) -> list[Tensor]:
    """x (count, in) and θ (count, *shape)."""
    low, high = drive_range(system)
    theta = [_parameters(spec, count, generator) for spec in system.parameters_spec]
    if plan == "uniform":
        return [low + (high - low) * torch.rand(count, system.input_size, generator=generator), *theta]
    if plan == "lowpass":
        centre, half = (low + high) / 2, (high - low) / 2
        return [(centre + half * lowpass(count, system.input_size, generator)).clamp(low, high), *theta]
    if visited is None:
        raise UserError(
            "model.measure.plan=visited needs the inputs of a training run; give visited=FILE, or use uniform"
        )
    x, *own = (visited,) if isinstance(visited, Tensor) else visited
    if x.dim() != 2 or x.shape[1] != system.input_size:
        raise UserError(f"visited inputs have shape {tuple(x.shape)} and must have (rows, {system.input_size})")
    rows = torch.randperm(len(x), generator=generator)[:count]  # none twice: what is held out must be new
    return [x[rows].float(), *([t[rows].float() for t in own] if own else [t[: len(rows)] for t in theta])]


def _parameters(spec: ParameterSpec, count: int, generator: torch.Generator) -> Tensor:
    if math.isfinite(spec.low) and math.isfinite(spec.high):
        return spec.low + (spec.high - spec.low) * torch.rand(count, *spec.shape, generator=generator)
    return spec.sample((count,), generator)


def lowpass(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth records in [−1, 1], (count, size): white noise times exp(−½ (k/k_c)²), k_c log-uniform in 1 … size/2.

    The mean (k = 0) is kept: data such as images have a large one. Each record's peak is uniform in (0, 1].
    """
    spectrum = torch.fft.rfft(torch.randn(count, size, generator=generator))
    k = torch.arange(spectrum.shape[1])
    cutoff = (size / 2) ** torch.rand(count, 1, generator=generator)
    signal = torch.fft.irfft(spectrum * torch.exp(-0.5 * (k / cutoff).square()), n=size)
    peak = 1 - torch.rand(count, 1, generator=generator)
    return peak * signal / signal.abs().amax(1, keepdim=True)
