"""A simulated laboratory device: a system with its own constants, noise, converters, drift and a ledger."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pnn.devices.converters import quantise, saturate
from pnn.devices.device import Ledger
from pnn.errors import UserError
from pnn.systems.system import System

#: Full scale ± of the drive's converter for a system whose input has no range.
DRIVE_SCALE = 4.0


class SimulatedDevice:
    """f_p(x, θ) = ADC[ (1 + d) · sat( f(DAC[x] + σ_in ξ, θ; τ ξ) ) ∘ (1 + σ_rel ξ) + σ_out ξ ], f of its own constants.

    `input_noise` σ_in and `output_noise` σ_out are standard deviations in the units of x and y; `relative_noise` σ_rel is
    multiplicative; `timing_jitter` τ is the standard deviation of the timing error per record, relative to its duration
    (what it does is the system's: `stretch`); `saturation` the output amplifier's level; `dac_bits`/`adc_bits` convert
    over ±`dac_range`/±`adc_range` (None: the system's input range and full scale). `drift` is the standard deviation of a
    slow relative error d, an Ornstein-Uhlenbeck process with a correlation time of `drift_samples` samples, of the
    system's `drift_constant` or, where it names none, of the output gain. ξ are independent standard normal numbers from
    `noise_seed`. Shapes as for the system.

    Raises ValueError for a wrong shape, a value that is not finite or outside the system's input range, and for jitter
    on a system without a timing.
    """

    def __init__(
        self,
        system: System,
        *,
        noise_seed: int = 0,
        input_noise: float = 0.0,
        output_noise: float = 0.0,
        relative_noise: float = 0.0,
        timing_jitter: float = 0.0,
        dac_bits: int | None = None,
        adc_bits: int | None = None,
        dac_range: float | None = None,
        adc_range: float | None = None,
        saturation: float = math.inf,
        drift: float = 0.0,
        drift_samples: float = 1e5,
    ):
        if timing_jitter and not system.has_timing:
            raise ValueError(
                f"device.timing_jitter={timing_jitter} means nothing for {type(system).__name__}, "
                "which has no record duration; use 0"
            )
        self.system = system.requires_grad_(False)
        self.input_noise, self.output_noise, self.relative_noise = input_noise, output_noise, relative_noise
        self.timing_jitter, self.dac_bits, self.adc_bits = timing_jitter, dac_bits, adc_bits
        edge = max(abs(limit) for limit in system.input_range)
        self.dac_range = dac_range or (edge if math.isfinite(edge) else DRIVE_SCALE)
        self.adc_range = adc_range or system.full_scale
        self.saturation, self.drift, self.drift_samples = saturation, drift, drift_samples
        self.ledger = Ledger()
        self._generator = torch.Generator().manual_seed(noise_seed)
        self._drift = drift * float(torch.randn((), generator=self._generator)) if drift else 0.0
        self._drifts = getattr(system, system.drift_constant) if system.drift_constant else None

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        """Drive and measure; counted, checked, without gradients."""
        with torch.no_grad():
            return self.differentiable(x, *theta)

    def differentiable(self, x: Tensor, *theta: Tensor) -> Tensor:
        """The same measurement with gradients through the device's own physics: for oracles and diagnostics only."""
        self._check(x, theta)
        self.ledger.count(x[..., 0].numel())
        like = theta[0] if theta else x  # physics happens in the parameters' precision, whatever the signal's
        self.system.to(device=like.device, dtype=like.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return self._measure(x.to(like), theta)

    def _measure(self, x: Tensor, theta: tuple[Tensor, ...]) -> Tensor:
        drive = quantise(x, self.dac_bits, self.dac_range)
        if self.input_noise:
            drive = drive.add(self._normal(drive.shape, drive), alpha=self.input_noise)
        drift = 1 + self._next_drift(x[..., 0].numel()) if self.drift else 1.0
        if self._drifts is not None and self.system.drift_constant:
            setattr(self.system, self.system.drift_constant, self._drifts.to(drive) * drift)
        if self.timing_jitter:
            y = self.system(drive, *theta, stretch=self.timing_jitter * self._normal((*x.shape[:-1], 1), drive))
        else:
            y = self.system(drive, *theta)
        y = saturate(y, self.saturation)
        if self.drift and self._drifts is None:
            y = y * drift
        if self.relative_noise:
            y = y * (1 + self.relative_noise * self._normal(y.shape, y))
        if self.output_noise:
            y = y.add(self._normal(y.shape, y), alpha=self.output_noise)
        return quantise(y, self.adc_bits, self.adc_range)

    def _normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal numbers from the device's own generator (on the CPU, so one seed means one noise anywhere)."""
        return torch.randn(shape, generator=self._generator).to(like)

    def _next_drift(self, samples: int) -> float:
        """Advance the Ornstein-Uhlenbeck error by `samples` samples."""
        memory = math.exp(-samples / self.drift_samples)
        kick = self.drift * math.sqrt(1 - memory**2) * float(torch.randn((), generator=self._generator))
        self._drift = memory * self._drift + kick
        return self._drift

    def _check(self, x: Tensor, theta: tuple[Tensor, ...]) -> None:
        name, specs = type(self.system).__name__, self.system.parameters_spec
        if x.shape[-1] != self.system.input_size:
            raise ValueError(f"{name} takes {self.system.input_size} inputs, and x has shape {tuple(x.shape)}")
        if len(theta) != len(specs):
            raise ValueError(f"{name} takes parameters {[s.name for s in specs]}, and {len(theta)} were given")
        for spec, value in zip(specs, theta, strict=True):
            if tuple(value.shape[value.dim() - len(spec.shape) :]) != spec.shape:
                raise ValueError(f"{name}: {spec.name} must have shape {spec.shape}, and has {tuple(value.shape)}")
        low, high = self.system.input_range
        smallest, largest = (float(v) for v in torch.aminmax(x.detach()))
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            raise UserError(f"{name} was driven with a value that is not finite; lower optimizer.lr or check the data")
        if smallest < low or largest > high:
            raise ValueError(
                f"{name} was driven with {smallest:g} … {largest:g}, outside its range [{low:g}, {high:g}]"
            )
        if not all(math.isfinite(float(value.detach().sum())) for value in theta):
            raise UserError(f"{name} was given parameters that are not finite; lower optimizer.lr")
        for spec, value in zip(specs, theta, strict=True):
            if math.isfinite(spec.low) or math.isfinite(spec.high):
                smallest, largest = (float(v) for v in torch.aminmax(value.detach()))
                if smallest < spec.low or largest > spec.high:
                    raise ValueError(
                        f"{name} was given {spec.name} of {smallest:g} … {largest:g}, outside [{spec.low:g}, {spec.high:g}]"
                    )

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self._generator.get_state(),
            "drift": self._drift,
            "ledger": self.ledger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"].cpu())
        self._drift = float(state["drift"])
        self.ledger = Ledger(**state["ledger"])
