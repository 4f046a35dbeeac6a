"""A nonlinear electronic oscillator: a series RLC circuit whose capacitor is loaded by a diode-connected transistor."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional

from pnn.gradients import CircuitFlow
from pnn.systems.system import Constant, System

#: Largest substep h of RK4 by the constants: ω₀h (resonance) and λh of each relaxation. The limits of stability are
#: 2.83 and 2.79; the nominal circuit has ω₀h = 0.13 and λh ≤ 0.6 at one step per sample.
RESONANCE_LIMIT, RELAXATION_LIMIT = 0.5, 1.5


class ElectronicOscillator(System):
    """L di/dt = u − R i − v,  C dv/dt = i − i_T(v);  y = g v_L / V_ref,  v_L = u − R i − v, from rest.

    x: drive in units of the source's amplitude, u = U x (V), held for one sample time dt; (..., inputs), in [−1, 1].
    y: voltage induced in the coil, v_L = L di/dt, at the end of each sample, in units of V_ref = U; (..., inputs).
    `outputs` is the read-out's business. The transistor with gate on drain follows the EKV law, sp = softplus:
    i_T = 2nK V_T² [sp²((v − V_th)/2nV_T) − sp²((v − V_th − nv)/2nV_T)].

    Constants: `inductance` L (H), `capacitance` C (F), `resistance` R (Ω), `transconductance` K (A/V²), `threshold` V_th
    (V), `slope` n, output `gain` g. Two parts are nominally absent and are not moved by a gap, which makes them a
    structural one. `diode_saturation` I_S (A): the transistor's body diode, which conducts for v < 0,
    i_T → i_T − (ηV_T/R_D) ln[(1 + s e^{−v/ηV_T})/(1 + s)], s = I_S R_D/ηV_T: Shockley's I_S(e^{−v/ηV_T} − 1) while
    the current is small against ηV_T/R_D, and the slope 1/R_D of `diode_resistance` above. `stray_capacitance` C_s (F):
    between the source and the drain, over the coil with its resistance; C_s d(u − v)/dt joins the drain's current, so
    (C + C_s) dw/dt = i − i_T(w + κu) for w = v − κu, κ = C_s/(C + C_s): each step of u jumps v by κ Δu.

    RK4 with `steps` steps per sample in the digital model and `device_steps` in a device, multiplied where a gap makes
    the circuit so fast that the step would be too long. `linear` takes the transistor and its diode out. With `fused`,
    records on a CPU run in native code with a hand-written adjoint with respect to x (once differentiable); otherwise,
    and for gradients with respect to constants, in a plain loop of PyTorch operations. A timing error `stretch` is the
    trigger's offset as a fraction of the record's duration: y is read that much later, interpolated linearly.

    Source: Wright, Onodera et al., Nature 601, 549 (2022); EKV: Enz, Krummenacher & Vittoz, Analog Integr. Circ. Sig.
    Process. 8, 83 (1995). Raises ValueError for a constant that is not positive (or negative, where 0 is allowed).
    """

    has_timing = True
    input_range = (-1.0, 1.0)
    full_scale = 4.0
    inductance: Tensor
    capacitance: Tensor
    resistance: Tensor
    transconductance: Tensor
    threshold: Tensor
    slope: Tensor
    gain: Tensor
    diode_saturation: Tensor
    stray_capacitance: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        inductance: float = 7.958e-3,
        capacitance: float = 7.958e-9,
        resistance: float = 100.0,
        transconductance: float = 1e-3,
        threshold: float = 0.7,
        slope: float = 1.3,
        diode_saturation: float = 0.0,
        diode_ideality: float = 1.5,
        diode_resistance: float = 100.0,
        stray_capacitance: float = 0.0,
        thermal_voltage: float = 0.02585,
        amplitude: float = 4.0,
        sample_time: float = 1e-6,
        steps: int = 1,
        device_steps: int = 4,
        linear: bool = False,
        fused: bool = True,
    ):
        super().__init__()
        constants = {
            "inductance": inductance,
            "capacitance": capacitance,
            "resistance": resistance,
            "transconductance": transconductance,
            "threshold": threshold,
            "slope": slope,
        }
        absent = {"diode_saturation": diode_saturation, "stray_capacitance": stray_capacitance}
        others = {
            "diode_ideality": diode_ideality,
            "diode_resistance": diode_resistance,
            "thermal_voltage": thermal_voltage,
            "amplitude": amplitude,
            "sample_time": sample_time,
            "steps": steps,
            "device_steps": device_steps,
        }
        for name, value in (constants | others).items():
            if not 0 < value < math.inf:
                raise ValueError(f"system.{name}={value} must be > 0")
        for name, value in absent.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"system.{name}={value} must be >= 0; 0 is a circuit without it")
        for name, count in (("steps", steps), ("device_steps", device_steps)):
            if count != int(count):
                raise ValueError(f"system.{name}={count} must be a whole number")
        self.input_size = self.output_size = inputs
        self.diode_ideality, self.diode_resistance = diode_ideality, diode_resistance
        self.thermal_voltage, self.amplitude, self.sample_time = thermal_voltage, amplitude, sample_time
        self.steps, self.device_steps, self.linear, self.fused = steps, device_steps, linear, fused
        for name, value in (constants | {"gain": 1.0} | absent).items():
            self.register_buffer(name, torch.tensor([value]))

    @property
    def constants(self) -> dict[str, Constant]:
        moved = ("inductance", "capacitance", "resistance", "transconductance", "threshold", "slope", "gain")
        absent = ("diode_saturation", "stray_capacitance")
        return dict.fromkeys(moved, Constant((1,))) | dict.fromkeys(absent, Constant((1,), perturbed=False))

    def converged(self) -> ElectronicOscillator:
        twin = copy.deepcopy(self)
        twin.steps = self.device_steps
        return twin

    def linearised(self) -> ElectronicOscillator:
        """The same circuit without the transistor."""
        twin = copy.deepcopy(self)
        twin.linear = True
        return twin

    def substeps(self) -> Tensor:
        """RK4 steps per sample (*lead, 1): `steps`, multiplied until the step is short against every time constant."""
        L, C = self.inductance, self.capacitance + self.stray_capacitance
        rates = [1 / (L * C).sqrt() / RESONANCE_LIMIT, self.resistance / L / RELAXATION_LIMIT]
        if not self.linear:
            # The coil charges C with a few U/Z₀, Z₀ = √(L/C); the transistor, square law, takes it with slope √(2KI/n).
            most = 3 * self.amplitude * (C / L).sqrt()
            rates.append((2 * self.transconductance * most / self.slope).sqrt() / C / RELAXATION_LIMIT)
            rates.append((self.diode_saturation > 0) / (self.diode_resistance * C) / RELAXATION_LIMIT)
        fastest = torch.stack(torch.broadcast_tensors(*rates)).amax(0)
        return self.steps * (fastest * self.sample_time).ceil().clamp(min=1)

    def table(self, substeps: Tensor) -> Tensor:
        """The equation's coefficients (*lead, columns) in the order of `circuit_kernel.COLUMNS`, one row per circuit."""
        C, n, h = self.capacitance + self.stray_capacitance, self.slope, self.sample_time / substeps
        exponent = self.diode_ideality * self.thermal_voltage
        knee = exponent / self.diode_resistance * torch.ones_like(h)
        present = torch.zeros_like(h) if self.linear else torch.ones_like(h)
        saturation = self.diode_saturation / knee
        columns = (
            h / self.inductance,
            h / C,
            self.resistance,
            self.stray_capacitance / C,
            present * 2 * n * self.transconductance * self.thermal_voltage**2,
            1 / (2 * n * self.thermal_voltage),
            self.threshold,
            n,
            present * knee * (self.diode_saturation > 0),
            1 / exponent * torch.ones_like(h),
            saturation.clamp(min=torch.finfo(h.dtype).tiny).log(),
            saturation.log1p(),
        )
        return torch.cat(torch.broadcast_tensors(*columns), -1)

    def forward(self, x: Tensor, *theta: Tensor, stretch: Tensor | None = None) -> Tensor:
        """y (..., inputs); `stretch` (..., 1) delays the reading by that fraction of the record's duration."""
        with torch.autocast(x.device.type, enabled=False):
            count = self.substeps()
            table = self.table(count)
            lead = table.shape[:-1]
            if x.shape[: len(lead)] != lead:
                raise ValueError(f"the drive's shape {tuple(x.shape)} must start with the circuits' {tuple(lead)}")
            u = self.amplitude * x.to(table.dtype).reshape(lead.numel(), -1, self.input_size)  # (S, B, N)
            v_L = self._record(u, table.reshape(-1, table.shape[-1]), [int(n) for n in count.flatten()])
            y = v_L * (self.gain / self.amplitude).reshape(-1, 1, 1)
            y = y.reshape(x.shape)
            return y if stretch is None else delayed(y, (stretch * self.input_size).to(y))

    def _record(self, u: Tensor, table: Tensor, substeps: list[int]) -> Tensor:
        """v_L (S, B, N) of u (S, B, N)."""
        if self.fused and not u.is_cuda and not table.requires_grad:
            return CircuitFlow.apply(u, table, substeps)
        if len(set(substeps)) == 1:
            return plain_record(u, table, substeps[0])
        return torch.cat([plain_record(u[s : s + 1], table[s : s + 1], n) for s, n in enumerate(substeps)])

    @property
    def record_seconds(self) -> float:
        return self.input_size * self.sample_time

    def operations(self) -> int:
        """Each of four stages: 12 for the circuit, and 20 for each softplus of the transistor (two) and its diode."""
        softplus = 0 if self.linear else 2 + int((self.diode_saturation > 0).any())
        return self.input_size * int(self.substeps().max()) * 4 * (12 + 20 * softplus)


def drain_current(v: Tensor, columns: tuple[Tensor, ...]) -> Tensor:
    """I(v): the transistor's current less its body diode's."""
    p, m, V, n, g, r, s, sp_s = columns
    forward = functional.softplus(m * (v - V), threshold=60)
    reverse = functional.softplus(m * (v - V - n * v), threshold=60)
    drain = p * (forward**2 - reverse**2)
    return drain - g * (functional.softplus(s - r * v, threshold=60) - sp_s) if g.any() else drain


def plain_record(u: Tensor, table: Tensor, substeps: int) -> Tensor:
    """v_L (S, B, N) of the drive u (S, B, N): the reference for the fused kernel, in operations that autograd knows."""
    a, b, R, kappa, *law = table.unsqueeze(-1).unbind(-2)  # each (S, 1)
    transistor = bool(law[0].any())

    def rates(i: Tensor, w: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        v = w + kappa * drive
        return a * (drive - R * i - v), b * (i - drain_current(v, tuple(law)) if transistor else i)

    i = w = torch.zeros_like(u[..., 0])
    read = []
    for drive in u.unbind(-1):
        for _ in range(substeps):
            i1, w1 = rates(i, w, drive)
            i2, w2 = rates(i + i1 / 2, w + w1 / 2, drive)
            i3, w3 = rates(i + i2 / 2, w + w2 / 2, drive)
            i4, w4 = rates(i + i3, w + w3, drive)
            i, w = i + (i1 + 2 * i2 + 2 * i3 + i4) / 6, w + (w1 + 2 * w2 + 2 * w3 + w4) / 6
        read.append(drive - R * i - (w + kappa * drive))
    return torch.stack(read, -1)


def delayed(y: Tensor, delay: Tensor) -> Tensor:
    """y (..., N) read `delay` (..., 1) samples later, by linear interpolation; 0 before the record, its end after it."""
    padded = torch.cat([torch.zeros_like(y[..., :1]), y, y[..., -1:]], -1)  # samples −1 … N
    if bool((delay.abs() <= 1).all()):
        rise = padded.diff()
        return y.addcmul(delay.clamp(min=0), rise[..., 1:]).addcmul(delay.clamp(max=0), rise[..., :-1])
    N = y.shape[-1]
    position = torch.arange(N, dtype=y.dtype, device=y.device) + delay
    position = position.clamp(-1, N - 1).expand(y.shape)
    left = position.floor()
    index = left.long() + 1
    early, late = padded.gather(-1, index), padded.gather(-1, index + 1)
    return early + (position - left) * (late - early)
