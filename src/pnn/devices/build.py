"""Device recipes: from a nominal system to a device with constants of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pnn.devices.simulated import SimulatedDevice
from pnn.systems.coupled_oscillators import CoupledOscillators
from pnn.systems.system import System


def seed_of(*parts: int) -> int:
    """One 63-bit seed from several numbers, so that neighbouring seeds are unrelated."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def lab(
    system: System,
    *,
    gap: float = 0.0,
    seed: int = 0,
    slot: int = 0,
    distance: float = 0.0,
    distance_seed: int = 0,
    noise_factor: float = 1.0,
    parts: Mapping[str, float] | None = None,
    **imperfections: Any,
) -> SimulatedDevice:
    """A device whose constants differ from the nominal ones by uniform relative amounts in ±gap.

    `seed` names the device, `slot` the place in the network (two layers are two devices). `parts` are constants that the
    device has and the nominal system lacks, by name: a structural gap. `imperfections` as in `SimulatedDevice`;
    `noise_factor` multiplies its noises and its jitter. With a `distance` it is another specimen: every constant of that
    device times 1 + v, v uniform in ±distance, drawn from (seed, slot, distance_seed), with noise of its own.
    Raises ValueError for a gap or distance outside [0, 1) and for a part that the system does not know.
    """
    constants = torch.Generator().manual_seed(seed_of(seed, slot, 0))
    own = system.converged().perturbed(gap, constants)
    for name, value in (parts or {}).items():
        if name not in own.constants:
            known = ", ".join(own.constants)
            raise ValueError(
                f"device.parts.{name}={value}: {type(system).__name__} has no such constant; it has {known}"
            )
        setattr(own, name, torch.full_like(getattr(own, name), value))
    own, noise_seed = _specimen(own, seed, slot, distance, distance_seed)
    return SimulatedDevice(own, noise_seed=noise_seed, **_scaled(imperfections, noise_factor))


def _specimen(own: System, seed: int, slot: int, distance: float, distance_seed: int) -> tuple[System, int]:
    """A system `distance` away from `own`, and the seed of its noise; `own` itself at distance 0."""
    if not distance:
        return own, seed_of(seed, slot, 1)
    generator = torch.Generator().manual_seed(seed_of(seed, slot, 2, distance_seed))
    try:
        return own.perturbed(distance, generator, parts=True), seed_of(seed, slot, 3, distance_seed)
    except ValueError as error:
        raise ValueError(f"distance={distance} must be in [0, 1); use 0 for the device itself") from error


#: What `noise_factor` multiplies.
NOISES = ("input_noise", "output_noise", "relative_noise", "timing_jitter")


def _scaled(imperfections: dict[str, Any], factor: float) -> dict[str, Any]:
    return {k: factor * v if k in NOISES else v for k, v in imperfections.items()}


def notebook_gap(
    system: System,
    *,
    seed: int = 0,
    slot: int = 0,
    eta: float = 0.1,
    coupling_noise: float = 0.2,
    input_noise: float = 0.02,
    distance: float = 0.0,
    distance_seed: int = 0,
    noise_factor: float = 1.0,
    **imperfections: Any,
) -> SimulatedDevice:
    """The device of the paper's Fashion-MNIST notebook: sin q → sin((1 + η) q) and J → J + J_noise.

    J_noise = (R + Rᵀ)/2 with R of independent normal numbers of standard deviation `coupling_noise`; `input_noise` is
    the standard deviation of q(0), rad; `distance` and `noise_factor` as in `lab`. Raises ValueError for a system without
    couplings.
    """
    if not isinstance(system, CoupledOscillators):
        raise ValueError(
            f"device=notebook_gap is defined for system=coupled_oscillators, not for {type(system).__name__}; use device=lab"
        )
    generator = torch.Generator().manual_seed(seed_of(seed, slot, 0))
    own = system.converged().perturbed(0.0, generator)
    R = coupling_noise * torch.randn(system.size, system.size, generator=generator)
    assert isinstance(own, CoupledOscillators)
    own.coupling_offset = (R + R.mT) / 2
    own.nonlinearity = own.nonlinearity * (1 + eta)
    specimen, noise_seed = _specimen(own, seed, slot, distance, distance_seed)
    noises = _scaled({"input_noise": input_noise, **imperfections}, noise_factor)
    return SimulatedDevice(specimen, noise_seed=noise_seed, **noises)
