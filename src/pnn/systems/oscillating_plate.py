"""A titanium plate on a loudspeaker's coil, recorded by a microphone: data as a time series of forces."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pnn.systems import ritz
from pnn.systems.system import Constant, System

#: Grid points per sample from which a record is interpolated between its samples (the linear plate is exact on any grid).
INTERPOLATION = 4
#: Neighbouring grid points that such an interpolation uses.
NODES = (-2, -1, 0, 1, 2, 3)
#: Grid points after which the suspension's force is solved for anew: short enough that its sweeps contract on every device.
WINDOW = 28
#: Fixed-point sweeps per window; each one gains the factor (time in the window)² · k₃w²/m, see test_plate.py.
SWEEPS = 3


class OscillatingPlate(System):
    """q̈_k + 2ζ_k ω_k q̇_k + ω_k² q_k = φ_k(x_d) (F − k₃ w³),  w = Σ φ_k(x_d) q_k,  y = g · AA[Σ φ_k(x_m) q̈_k].

    x: force in units of `full_force` (N), inputs samples in [−1, 1], each held for one sample of `sampling_rate` (Hz);
    y: the microphone's signal at the end of every hold, inputs samples. `outputs` is not used: an outside read-out crops.
    q_k: modal displacement (kg^½ m); φ_k: mode shape, mass-normalised (kg^-½); w: displacement of the drive point (m).
    The plate obeys D∇⁴w + cẇ + ρhẅ = F δ(x − x_d) with free edges; modes from `ritz.modes`, with the coil's mass (kg) and
    suspension (N/m) at the drive. `drive` and `microphone` are (x, y) from the centre (m); the microphone averages over a
    Gaussian patch of standard deviation `patch` (m) and hears the acceleration. 1/g = `acceleration` (m/s²).

    k₃: the suspension hardens as k(w) = k (1 + w²/w₂²), w₂ = `hardening` (m), infinite for none: potential ¼ k₃ w⁴ with
    k₃ = k/w₂². The plate's own stretching at free edges is of relative size (w_flexural/h)² ~ 1e-6 and is left out.

    AA is the converter's anti-alias filter, a causal Butterworth low-pass of `filter_order` at `cutoff` (Hz) whose states
    are part of the state space: modes beyond half the sampling rate are in the physics, and alias as little as it lets them.
    All of it is one linear system ż = Az + B(F − k₃w³), propagated exactly: F is held over a sample, and the suspension's
    force is piecewise linear on a grid of `substeps` points per sample (second order), found by fixed-point sweeps of the
    Volterra equation w = G * (F − k₃w³). With `linear` (the digital model's default) the record is one product with a
    Toeplitz matrix; a device has k₃ and `device_substeps`.

    Constants: frequencies (Hz), damping ratios, mode shapes at drive and microphone, k₃ (N/m³), output gain (1).
    Source: Wright, Onodera et al., Nature 601, 549 (2022) for the plate; suspension: W. Klippel, J. Audio Eng. Soc. 54, 907
    (2006); the numbers of coil, damping and microphone are ours. Raises ValueError for values that cannot be.
    """

    has_timing = True
    input_range = (-1.0, 1.0)
    full_scale = 5.0
    #: The constant that a temperature drift multiplies: E, and with it every frequency, falls as titanium warms.
    drift_constant = "frequency"
    frequency: Tensor
    damping: Tensor
    drive_shape: Tensor
    microphone_shape: Tensor
    cubic: Tensor
    gain: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: float = 32e-3,
        thickness: float = 1e-3,
        young: float = 116e9,
        poisson: float = 0.32,
        density: float = 4506.0,
        coil_mass: float = 1e-3,
        suspension: float = 2e3,
        hardening: float = 2.5e-3,
        drive: tuple[float, float] = (1.0e-3, 0.6e-3),
        microphone: tuple[float, float] = (6e-3, 9e-3),
        patch: float = 5e-3,
        modes: int = 24,
        basis: int = 12,
        piston_damping: float = 0.3,
        flexural_damping: float = 0.02,
        full_force: float = 1.0,
        acceleration: float = 200.0,
        sampling_rate: float = 48e3,
        cutoff: float = 20e3,
        filter_order: int = 8,
        linear: bool = True,
        substeps: int = 1,
        device_substeps: int = 2,
    ):
        super().__init__()
        positive = {
            "side": side, "thickness": thickness, "young": young, "density": density, "coil_mass": coil_mass,
            "suspension": suspension, "hardening": hardening, "patch": patch, "piston_damping": piston_damping,
            "flexural_damping": flexural_damping, "full_force": full_force, "acceleration": acceleration,
            "sampling_rate": sampling_rate, "cutoff": cutoff, "substeps": substeps, "device_substeps": device_substeps,
        }  # fmt: skip
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"system.{name}={value} must be > 0")
        if not 0 <= poisson < 0.5:
            raise ValueError(f"system.poisson={poisson} must be in [0, 0.5); titanium has 0.32")
        for name, point in (("drive", drive), ("microphone", microphone)):
            if len(point) != 2 or not all(abs(c) <= side / 2 for c in point):
                raise ValueError(f"system.{name}={list(point)} must be (x, y) on the plate, within ±{side / 2:g} m")
        if basis < 4 or not 1 <= modes <= basis**2 // 4:
            raise ValueError(
                f"system.modes={modes} must be 1 … basis²/4 = {basis**2 // 4}; the higher ones do not converge"
            )
        if not cutoff < sampling_rate / 2:
            raise ValueError(f"system.cutoff={cutoff} must be < half the sampling rate, {sampling_rate / 2:g} Hz")
        if filter_order < 2 or filter_order % 2:
            raise ValueError(f"system.filter_order={filter_order} must be even and >= 2; use 8")
        drive, microphone = (float(drive[0]), float(drive[1])), (float(microphone[0]), float(microphone[1]))
        self.input_size = self.output_size = inputs
        self.step = 1 / sampling_rate
        self.full_force, self.acceleration = full_force, acceleration
        self.cutoff, self.filter_order = cutoff, filter_order
        self.linear, self.device_linear = linear, math.isinf(hardening)
        self.substeps, self.device_substeps = substeps, device_substeps
        plate = ritz.Plate(side, thickness, young, poisson, density)
        self.reference_shape = 1 / math.sqrt(plate.mass + coil_mass)  # the shape of a rigid body, kg^-½
        found = ritz.modes(plate, basis, modes, coil_mass, suspension, drive, microphone, patch)
        damping = np.full(modes, flexural_damping)
        damping[0] = piston_damping
        for name, values in (
            ("frequency", found.frequency),
            ("damping", damping),
            ("drive_shape", found.drive),
            ("microphone_shape", found.microphone),
            ("cubic", [suspension / hardening**2]),
            ("gain", [1.0]),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    @property
    def constants(self) -> dict[str, Constant]:
        vector = Constant(tuple(self.frequency.shape[-1:]))
        names = ("frequency", "damping", "drive_shape", "microphone_shape")
        return {**dict.fromkeys(names, vector), "cubic": Constant((1,)), "gain": Constant((1,))}

    def converged(self) -> OscillatingPlate:
        twin = copy.deepcopy(self)
        twin.linear, twin.substeps = self.device_linear, self.device_substeps
        return twin

    def linearised(self) -> OscillatingPlate:
        """A copy whose suspension does not harden, as a device either."""
        twin = copy.deepcopy(self)
        twin.linear = twin.device_linear = True
        return twin

    def state_space(self) -> tuple[Tensor, Tensor, Tensor]:
        """A (*lead, K, K) in 1/s, B (*lead, K) per unit of x, and C (*lead, 2, K): rows w (m) and y; in float64.

        States: p = ω_k q_k of every mode and of every section of the filter, then v = q̇_k likewise, so that ½Σ(p² + v²) over
        the modes is their energy (J). A section is p' = ω_c v, v' = −ω_c p − 2ζ ω_c v + ω_c·(input).
        """
        omega, zeta = 2 * math.pi * self.frequency.double(), self.damping.double()
        drive, microphone = self.drive_shape.double(), self.microphone_shape.double() / self.reference_shape
        lead, M, sections = omega.shape[:-1], omega.shape[-1], self.filter_order // 2
        cut = 2 * math.pi * self.cutoff
        angles = [math.pi * (2 * i + 1) / (2 * self.filter_order) for i in range(sections)]
        w = torch.cat([omega, omega.new_full((*lead, sections), cut)], -1)
        z = torch.cat([zeta, omega.new_tensor([math.sin(a) for a in angles]).expand(*lead, -1)], -1)
        K = M + sections
        from_p, from_v = torch.diag_embed(-w), torch.diag_embed(-2 * z * w)
        from_p[..., M, :M] = -microphone * omega  # the first section hears Σ φ_k(x_m) q̈_k, in units of ω_c φ_ref
        from_v[..., M, :M] = -2 * microphone * zeta * omega
        for i in range(M + 1, K):
            from_p[..., i, i - 1] = cut
        A = torch.cat(
            [torch.cat([torch.zeros_like(from_p), torch.diag_embed(w)], -1), torch.cat([from_p, from_v], -1)], -2
        )
        direct = (microphone * drive).sum(-1, keepdim=True)
        B = torch.cat([omega.new_zeros(*lead, K), drive, direct, omega.new_zeros(*lead, sections - 1)], -1)
        C = omega.new_zeros(*lead, 2, 2 * K)
        C[..., 0, :M] = drive / omega
        C[..., 1, K - 1] = self.gain.double()[..., 0] * cut * self.reference_shape / self.acceleration
        return A, B * self.full_force, C

    def responses(self, substeps: int, count: int) -> tuple[Tensor, Tensor]:
        """What (w, y) do after one held sample of force, and after one triangle of force on the grid: (*lead, 2, count).

        The grid has `substeps` points per sample; entry n is n grid points after the hold begins, or after the triangle's peak.
        """
        A, B, C = self.state_space()
        size = A.shape[-1]
        # exp of [[A, B, 0], [0, 0, 1], [0, 0, 0]]·h: the flow, and the responses to a held and to a rising force
        ramp = torch.zeros(*A.shape[:-2], size + 2, size + 2, dtype=A.dtype, device=A.device)
        ramp[..., :size, :size], ramp[..., :size, size], ramp[..., size, size + 1] = A, B, substeps / self.step
        flow = torch.linalg.matrix_exp(ramp * (self.step / substeps))
        flow, held, rising = flow[..., :size, :size], flow[..., :size, size], flow[..., :size, size + 1]
        after = (flow @ rising.unsqueeze(-1)).squeeze(-1) + held - rising
        both = orbit(flow, torch.stack([held, after], -1), count)  # (*lead, size, count, 2)
        held, after = (C @ both[..., i] for i in range(2))
        steps = functional.pad(held.cumsum(-1), (1, 0))[..., :count]
        pulse = steps - functional.pad(steps, (substeps, 0))[..., :count]
        triangle = torch.cat([C @ rising.unsqueeze(-1), after[..., : count - 1]], -1)
        return pulse, triangle

    def record(self, x: Tensor, substeps: int, every: int) -> Tensor:
        """y at every `every`-th of `substeps` grid points per sample: x (*lead, B, N) → (*lead, B, N·substeps/every)."""
        samples = x.shape[-1]
        points = range(1, samples * substeps + 1)
        holds = range(0, samples * substeps, substeps)
        pulse, triangle = (r.to(x.dtype) for r in self.responses(substeps, samples * substeps + 1))
        read = points[every - 1 :: every]
        y = x @ toeplitz(pulse[..., 1, :], read, holds)
        if self.linear:
            return y
        w = x @ toeplitz(pulse[..., 0, :], points, holds)
        force = self.suspension_force(w, toeplitz(triangle[..., 0, :], points, points))
        return y - force @ toeplitz(triangle[..., 1, :], read, points)

    def suspension_force(self, w: Tensor, G: Tensor) -> Tensor:
        """f = k₃ w³ in units of `full_force`, from the linear displacement w (*lead, B, M): solves w → w − f G, G (*lead, M, M).

        G is upper triangular (causal), so the grid is solved window by window, each by fixed-point sweeps.
        """
        strength = self.cubic.unsqueeze(-1) / self.full_force
        done: list[Tensor] = []
        for start in range(0, w.shape[-1], WINDOW):
            window = slice(start, start + WINDOW)
            known = w[..., window]
            if done:
                known = known - torch.cat(done, -1) @ G[..., :start, window]
            force = strength * known**3
            for _ in range(SWEEPS):
                force = strength * (known - force @ G[..., window, window]) ** 3
            done.append(force)
        return torch.cat(done, -1)

    def forward(self, x: Tensor, *theta: Tensor, stretch: Tensor | None = None) -> Tensor:
        """The record; `stretch` (..., 1) is how late the recorder is triggered, as a fraction of the record's duration.

        A late record goes on into the ring-down after the last hold; before the drive begins the plate is at rest.
        """
        () = theta  # an encoder outside owns every trainable parameter
        lead = self.frequency.dim() - 1
        with torch.autocast(x.device.type, enabled=False):
            force = x.to(self.frequency.dtype).reshape(*x.shape[:lead], -1, self.input_size)  # (*lead, batch, N)
            if stretch is None:
                substeps = 1 if self.linear else self.substeps
                y = self.record(force, substeps, substeps)
            else:
                y = self._shifted(force, self.input_size * stretch.to(force).reshape(*force.shape[:-1], 1))
            return y.reshape(x.shape)

    def _shifted(self, x: Tensor, delay: Tensor) -> Tensor:
        """y at n + delay, in samples, interpolated on the grid; delay (*lead, B, 1)."""
        substeps = max(self.substeps, INTERPOLATION) if self.linear else self.substeps
        rest = max(math.ceil(float(delay.detach().amax())), 0) + NODES[-1]  # samples after the drive
        fine = self.record(functional.pad(x, (0, rest)), substeps, 1)
        fine = functional.pad(fine, (1, 0))  # rest at time 0
        time = substeps * (torch.arange(1, self.input_size + 1, device=x.device) + delay)
        index = time.detach().floor()
        s = time - index
        y = torch.zeros_like(s)
        for offset, weight in zip(NODES, lagrange(s), strict=True):
            at = index.long() + offset
            y = y + weight * torch.where(at > 0, fine.gather(-1, at.clamp(min=0)), 0.0)
        return y

    @property
    def record_seconds(self) -> float:
        return self.input_size * self.step

    def operations(self) -> int:
        """The triangle of the record's Toeplitz matrix; with the cubic also those of displacement, force and its record."""
        N, M = self.input_size, self.input_size * self.substeps
        drive = N * (N + 1) // 2
        if self.linear:
            return drive
        sweeps = SWEEPS * M * min(WINDOW, M)
        return drive + M * (N + 1) // 2 + M * (M + 1) // 2 + sweeps + N * (M + 1) // 2


def orbit(flow: Tensor, start: Tensor, count: int) -> Tensor:
    """flowⁿ start for n = 0 … count − 1, by doubling: flow (*lead, K, K), start (*lead, K, J) → (*lead, K, count, J)."""
    states = start.unsqueeze(-2)
    while states.shape[-2] < count:
        known = states[..., : count - states.shape[-2], :]
        states = torch.cat([states, (flow @ known.flatten(-2)).unflatten(-1, known.shape[-2:])], -2)
        flow = flow @ flow
    return states


def toeplitz(response: Tensor, rows: range, columns: range) -> Tensor:
    """response[row − column], zero before the cause, as seen from the right of a product: (*lead, columns, rows)."""
    before = columns[-1]  # the longest lag before the cause
    z = functional.pad(response, (before, 0))  # lag −before, …
    strides = (*z.stride()[:-1], columns.step, rows.step)
    shape = (*z.shape[:-1], len(columns), len(rows))
    return z.as_strided(shape, strides, z.storage_offset() + rows[0]).flip(-2)  # the last column comes first


def lagrange(s: Tensor) -> list[Tensor]:
    """Weights of the grid points `NODES` for fifth-order interpolation at s in [0, 1)."""
    return [torch.stack([(s - other) / (node - other) for other in NODES if other != node]).prod(0) for node in NODES]
