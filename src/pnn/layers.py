"""PhysicalLayer: encode → transform → read out, with the trainable parameters and their ranges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pnn.devices.device import complete
from pnn.encodings import Direct, Encoder, Readout, Windows
from pnn.gradients import StraightThroughClamp, Transform
from pnn.systems.system import System

#: Where a signal goes: `train` as the training mode says, `device` through f_p, `model` through f_m.
Via = Literal["train", "device", "model"]
Mode = Callable[[Any, Transform], Transform]
#: The gradient of the range clamp: passed on as if there were none, or the true one, zero outside the range.
Clamp = Literal["straight_through", "true"]


def out_of_range(x: Tensor, low: float, high: float, sharpness: float = 20.0) -> Tensor:
    """mean[ softplus(−k(x − lo))/k + softplus(k(x − hi))/k ]: a smooth penalty on values outside [low, high], scalar."""
    penalty = x.new_zeros(())
    if math.isfinite(low):
        penalty = penalty + functional.softplus(sharpness * (low - x)).mean() / sharpness
    if math.isfinite(high):
        penalty = penalty + functional.softplus(sharpness * (x - high)).mean() / sharpness
    return penalty


def limited(low: float, high: float) -> bool:
    """Whether a range ends anywhere."""
    return math.isfinite(low) or math.isfinite(high)


class PhysicalLayer(nn.Module):
    """One use of a physical system: u = encode(x), y = transform(u, θ), read out on `outputs` numbers (None: all of y).

    x (*lead, ..., features) → (*lead, ..., output_size); `lead` are the leading dimensions of the trainable parameters
    (ensemble members, channels, seeds), evaluated in one call. Trainable are the encoder's parameters and the system's
    own θ. Drives and θ outside the system's ranges are penalised (`penalty`, of the last pass), then clamped.
    """

    def __init__(
        self,
        features: int,
        system: System,
        device: Any,
        model: Transform,
        mode: Mode,
        lead: tuple[int, ...] = (),
        encoding: Encoder = Direct,
        readout: Readout | None = None,
        outputs: int | None = None,
        clamp: Clamp = "straight_through",
    ):
        super().__init__()
        if clamp not in ("straight_through", "true"):
            raise ValueError(f"system.clamp_gradient={clamp} must be straight_through or true")
        self.input_size, self.output_size = features, outputs or system.output_size
        self.drive_size, self.record_size = system.input_size, system.output_size
        self.input_range = system.input_range
        self.operations = system.operations()
        self.device, self.model, self.clamp = device, model, clamp
        self.mode = mode
        self.encoder = encoding(features, system, lead)
        self.readout, self.outputs = readout or Windows(), outputs
        self.readout(torch.zeros(1, self.record_size), outputs)  # refuses a recording that it cannot read
        self.names = [spec.name for spec in system.parameters_spec]
        self.limits = {
            spec.name: (spec.low, spec.high) for spec in system.parameters_spec if limited(spec.low, spec.high)
        }
        for spec in system.parameters_spec:
            self.register_parameter(spec.name, nn.Parameter(spec.sample(lead)))
        self.penalty: Tensor | None = None
        self.lead = len(lead)
        self.probe: Callable[[Tensor, Tensor], None] | None = None  # is shown the drive and the recording of a pass

    @property
    def theta(self) -> tuple[Tensor, ...]:
        """The physical parameters as the device takes them, within their limits, in the system's order."""
        values = {name: getattr(self, name) for name in self.names}
        return tuple(self._within(v, *self.limits[name]) if name in self.limits else v for name, v in values.items())

    @property
    def mode(self) -> Mode:
        """The training mode: (device, model) → the differentiable callable used in training."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode, self._trained = mode, mode(self.device, self.model)

    def transform(self, via: Via) -> Transform:
        """The callable (u, *θ) → y of one route."""
        return {"train": self._trained, "device": self.device.respond, "model": self.model}[via]

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        u = self.encode(x)
        y = self.transform(via)(u, *self.theta)
        if self.probe is not None:
            self.probe(u, y)
        return self.readout(y, self.outputs)

    def encode(self, x: Tensor) -> Tensor:
        """Encode x and keep the drive within the device's range; the penalty is that of the drive and of θ."""
        u = self.encoder(x)
        penalties = [out_of_range(getattr(self, name), *limits) for name, limits in self.limits.items()]
        if limited(*self.input_range):
            penalties.append(out_of_range(u, *self.input_range))
            u = self._within(u, *self.input_range)
        self.penalty = torch.stack(penalties).sum() if penalties else None
        return u

    def _within(self, value: Tensor, low: float, high: float) -> Tensor:
        return value.clamp(low, high) if self.clamp == "true" else StraightThroughClamp.apply(value, low, high)


@dataclass
class Laboratory:
    """Builds physical layers of one kind: a system, its encoding and read-out, devices, digital models, a training mode.

    `system(inputs, outputs)` makes a nominal system for so many inputs and wished outputs (one with sizes of its own keeps
    them); `device(system, slot=n)` the n-th device of the run; `model(system)` its digital model; `mode(device, model)`
    the differentiable callable used in training; `encoding(features, system, lead)` a layer's encoder. With `reuse` one
    device, and one model of it, serves every layer that has the same sizes, as a single instrument in a laboratory does.
    """

    system: Callable[[int, int], System]
    device: Callable[..., Any]
    model: Callable[[System], Transform]
    mode: Mode
    encoding: Encoder = Direct
    readout: Readout = field(default_factory=Windows)
    clamp: Clamp = "straight_through"
    reuse: bool = False
    benches: list[Bench] = field(default_factory=list)

    def layer(
        self, features: int, outputs: int | None = None, lead: tuple[int, ...] = (), width: int | None = None
    ) -> PhysicalLayer:
        """A layer for so many features, read out on `outputs` numbers, or all of its recording (about `width` long)."""
        system = self.system(features, outputs or width or features)
        bench = self._bench(system)
        routes = (bench.device, bench.model, self.mode)
        return PhysicalLayer(
            features,
            bench.system,
            *routes,
            lead,
            self.encoding,
            self.readout,
            outputs,
            self.clamp,
        )

    def _bench(self, system: System) -> Bench:
        sizes = system.input_size, system.output_size
        for bench in self.benches if self.reuse else ():
            if (bench.system.input_size, bench.system.output_size) == sizes:
                return bench
        device = complete(self.device(system, slot=len(self.benches)), system.output_size)
        bench = Bench(system, device, self.model(system))
        self.benches.append(bench)
        return bench

    @property
    def devices(self) -> list[Any]:
        return [bench.device for bench in self.benches]


@dataclass
class Bench:
    """A nominal system, the device that it stands for, and the digital model of that device."""

    system: System
    device: Any
    model: Transform


def total_penalty(network: nn.Module) -> Tensor | float:
    """Sum of the out-of-range penalties of the last pass."""
    penalties = [m.penalty for m in network.modules() if isinstance(m, PhysicalLayer) and m.penalty is not None]
    return torch.stack(penalties).sum() if penalties else 0.0
