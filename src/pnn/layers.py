"""PhysicalLayer: encode → transform → decode, with the trainable parameters and their ranges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pnn.gradients import Transform
from pnn.systems.system import System

#: Where a signal goes: `train` as the training mode says, `device` through f_p, `model` through f_m.
Via = Literal["train", "device", "model"]
Mode = Callable[[Any, Transform], Transform]


def out_of_range(x: Tensor, low: float, high: float, sharpness: float = 20.0) -> Tensor:
    """mean[ softplus(−k(x − lo))/k + softplus(k(x − hi))/k ]: a smooth penalty on values outside [low, high], scalar."""
    penalty = x.new_zeros(())
    if math.isfinite(low):
        penalty = penalty + functional.softplus(sharpness * (low - x)).mean() / sharpness
    if math.isfinite(high):
        penalty = penalty + functional.softplus(sharpness * (x - high)).mean() / sharpness
    return penalty


class PhysicalLayer(nn.Module):
    """One use of a physical system: y = transform(x, θ), with θ trainable.

    x (*lead, ..., input_size) → y (*lead, ..., output_size); `lead` are the leading dimensions of θ (ensemble members,
    channels, seeds), evaluated in one call. Inputs outside the system's range are clamped with a straight-through
    gradient and penalised: `penalty` holds the mean out-of-range penalty of the last pass.
    """

    def __init__(
        self,
        system: System,
        device: Any,
        model: Transform,
        mode: Mode,
        lead: tuple[int, ...] = (),
    ):
        super().__init__()
        self.input_size, self.output_size = system.input_size, system.output_size
        self.input_range = system.input_range
        self.operations = system.operations()
        self.device, self.model = device, model
        self.mode = mode
        self.names = [spec.name for spec in system.parameters_spec]
        for spec in system.parameters_spec:
            self.register_parameter(spec.name, nn.Parameter(spec.sample(lead)))
        self.penalty: Tensor | None = None

    @property
    def theta(self) -> tuple[Tensor, ...]:
        """The physical parameters, in the order in which the system takes them."""
        return tuple(getattr(self, name) for name in self.names)

    @property
    def mode(self) -> Mode:
        """The training mode: (device, model) → the differentiable callable used in training."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode, self._trained = mode, mode(self.device, self.model)

    def transform(self, via: Via) -> Transform:
        """The callable (x, *θ) → y of one route."""
        return {"train": self._trained, "device": self.device.respond, "model": self.model}[via]

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        return self.transform(via)(self.encode(x), *self.theta)

    def encode(self, x: Tensor) -> Tensor:
        """Keep x within the device's range: penalty, then clamp (straight through)."""
        low, high = self.input_range
        if not (math.isfinite(low) or math.isfinite(high)):
            self.penalty = None
            return x
        self.penalty = out_of_range(x, low, high)
        return x + (x.clamp(low, high) - x).detach()


@dataclass
class Laboratory:
    """Builds physical layers of one kind: a system, a device recipe, a digital model and a training mode.

    `system(inputs, outputs)` makes a nominal system of that size; `device(system, slot=n)` the n-th device of the run;
    `model(system)` its digital model; `mode(device, model)` the differentiable callable used in training.
    """

    system: Callable[[int, int], System]
    device: Callable[..., Any]
    model: Callable[[System], Transform]
    mode: Mode
    devices: list[Any] = field(default_factory=list)

    def layer(self, inputs: int, outputs: int, lead: tuple[int, ...] = ()) -> PhysicalLayer:
        """A layer on a device of its own."""
        system = self.system(inputs, outputs)
        device = self.device(system, slot=len(self.devices))
        self.devices.append(device)
        return PhysicalLayer(system, device, self.model(system), self.mode, lead)


def total_penalty(network: nn.Module) -> Tensor | float:
    """Sum of the out-of-range penalties of the last pass."""
    penalties = [m.penalty for m in network.modules() if isinstance(m, PhysicalLayer) and m.penalty is not None]
    return torch.stack(penalties).sum() if penalties else 0.0
