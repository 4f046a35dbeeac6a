"""The electronic oscillator obeys Kirchhoff's laws as others solve them; the fused kernel is the plain loop."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from pnn import circuit_kernel
from pnn.systems import stack
from pnn.systems.electronic_oscillator import ElectronicOscillator, delayed, drain_current

DIODE: dict[str, Any] = {"diode_saturation": 1e-9}
STRAY: dict[str, Any] = {"stray_capacitance": 3e-10}
PARTS = [{}, DIODE, STRAY, DIODE | STRAY]


def circuit(samples: int, gap: float = 0.0, seed: int = 1, **options: Any) -> ElectronicOscillator:
    """A circuit in float64, its constants moved by `gap`."""
    system = ElectronicOscillator(samples, samples, **options)
    return system.perturbed(gap, torch.Generator().manual_seed(seed)).double()  # type: ignore[return-value]


def drive(*shape: int, seed: int = 2) -> Tensor:
    """Steps of the whole range: white noise in [−1, 1]."""
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def swing(samples: int, seed: int = 2) -> Tensor:
    """A square wave at the resonance plus noise, one record: enough to reach every regime of the transistor."""
    wave = torch.sin(2 * math.pi * torch.arange(samples).double() / 50 + 0.1).sign()
    return 0.7 * wave[None] + 0.3 * drive(1, samples, seed=seed)


def values(system: ElectronicOscillator) -> dict[str, float]:
    return {name: float(getattr(system, name)) for name in system.constants}


@pytest.mark.parametrize("gap", [0.0, 0.4])
@pytest.mark.parametrize("parts", [{}, STRAY], ids=str)
def test_without_the_transistor_a_step_rings_in_closed_form(gap: float, parts: dict[str, Any]) -> None:
    """v = V (1 − (1 − κ) e^{−αt} (cos ω_d t + (α/ω_d) sin ω_d t)): the stray capacitor's divider is charged at once."""
    system = circuit(196, gap, linear=True, steps=8, **parts)
    c = values(system)
    L, R, V = c["inductance"], c["resistance"], 4.0
    C, kappa = (
        c["capacitance"] + c["stray_capacitance"],
        1 / (1 + c["capacitance"] / max(c["stray_capacitance"], 1e-99)),
    )
    t = 1e-6 * np.arange(1, 197)
    alpha = R / (2 * L)
    omega = math.sqrt(1 / (L * C) - alpha**2)
    decay = (1 - kappa) * np.exp(-alpha * t)
    v = V * (1 - decay * (np.cos(omega * t) + alpha / omega * np.sin(omega * t)))
    i = V * decay / (L * omega) * np.sin(omega * t)
    found = system(torch.ones(1, 196).double())[0].numpy() * 4.0 / c["gain"]
    np.testing.assert_allclose(found, V - R * i - v, atol=2e-7 * V)


def pull(v: float, c: dict[str, float], diode_resistance: float = 100.0) -> float:
    """EKV current less the body diode's, A."""
    n, VT = c["slope"], 0.02585
    arguments = (v - c["threshold"]) / (2 * n * VT), (v - c["threshold"] - n * v) / (2 * n * VT)
    forward, reverse = (np.logaddexp(0, y) ** 2 for y in arguments)
    s = c["diode_saturation"] * diode_resistance / (1.5 * VT)
    body = 1.5 * VT / diode_resistance * (np.log1p(s * np.exp(-v / (1.5 * VT))) - np.log1p(s))
    return 2 * n * c["transconductance"] * VT**2 * (forward - reverse) - body


@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_the_circuit_is_what_scipy_solves(gap: float, parts: dict[str, Any]) -> None:
    """With a source that takes 10 ps per step: the charge that C_s then passes is an ordinary current C_s du/dt."""
    samples, rise = 80, 1e-11
    system = circuit(samples, gap, steps=16, **parts)
    c = values(system)
    C = c["capacitance"] + c["stray_capacitance"]

    def rates(_: float, state: np.ndarray, u: float, slew: float) -> list[float]:
        i, v = state
        voltage = (u - c["resistance"] * i - v) / c["inductance"]
        return [voltage, (i - pull(v, c) + c["stray_capacitance"] * slew) / C]

    x = swing(samples)
    state, before, expected = [0.0, 0.0], 0.0, []
    for u in 4 * x[0].numpy():
        for duration, slew in ((rise, (u - before) / rise), (1e-6 - rise, 0.0)):
            options = {"method": "DOP853", "rtol": 1e-10, "atol": 1e-12, "args": (u, slew)}
            state = list(solve_ivp(rates, (0, duration), state, **options).y[:, -1])
        expected.append(u - c["resistance"] * state[0] - state[1])
        before = u
    found = system(x)[0].numpy() * 4.0 / c["gain"]
    np.testing.assert_allclose(found, expected, atol=3e-4)
    reference = circuit(samples, gap, linear=True, **parts)(x)[0].numpy() * 4.0 / c["gain"]
    assert np.abs(found - reference).max() > 1  # the transistor does matter


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_the_order_is_four(parts: dict[str, Any]) -> None:
    """Smooth enough to see: a transistor at 30 times room temperature, so that its knee is wider than a step."""
    options = {"thermal_voltage": 0.8, "amplitude": 4.0} | parts
    x = swing(50)
    truth = circuit(50, steps=64, **options)(x)
    errors = [float((circuit(50, steps=n, **options)(x) - truth).norm()) for n in (2, 4)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.1)


def test_one_step_per_sample_is_enough_for_the_nominal_circuit() -> None:
    system, x = circuit(196), torch.cat([drive(20, 196), swing(196)])
    truth = system.converged()(x)
    assert int(system.substeps()) == 1 and int(system.converged().substeps()) == 4
    assert 0 < (system(x) - truth).norm() < 2e-5 * truth.norm()


@pytest.mark.parametrize("gap", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_the_circuit_is_passive(gap: float, parts: dict[str, Any]) -> None:
    """½ L i² + ½ C v² never grows once the source is at zero."""
    for seed in range(5):
        system = circuit(150, gap, seed, **parts)
        u = 4 * drive(5, 150)
        u[:, 50:] = 0
        count = system.substeps()
        _, states = circuit_kernel.record(u[None], system.table(count)[None], [int(count)], keep=True)
        i, v = states[0, 51:].unbind(1)  # (sample, record)
        L, C = system.inductance, system.capacitance + system.stray_capacitance
        energy = (L * i**2 + C * v**2) / 2
        assert energy[0].min() > 0 and (energy.diff(dim=0) <= 1e-12 * energy[0]).all()
        assert (energy[-1] < (0.5 if gap < 0.9 else 1.0) * energy[0]).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-7), (np.float64, 1e-14)])
def test_the_kernels_softplus_is_numpys(dtype: Any, tolerance: float) -> None:
    """Also in the far tail, which is the transistor's weak inversion."""
    y = np.concatenate([np.linspace(-80, 80, 801), np.linspace(-1, 1, 101)]).astype(dtype)
    found, slope = np.transpose([circuit_kernel.softplus(value) for value in y])
    np.testing.assert_allclose(found, np.logaddexp(0, y.astype(float)), rtol=tolerance)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-y.astype(float))), rtol=tolerance)
    assert circuit_kernel.softplus(dtype(-300))[0] < 1e-37


def test_the_transistor_in_strong_and_in_weak_inversion() -> None:
    system = circuit(3)
    K, V, n, VT = 1e-3, 0.7, 1.3, 0.02585
    law = tuple(system.table(system.substeps())[4:])
    strong, weak = torch.linspace(3, 6, 7).double(), torch.linspace(0.01, 0.3, 7).double()
    square = K / (2 * n) * (strong - V) ** 2
    torch.testing.assert_close(drain_current(strong, law), square, rtol=1e-5, atol=0)
    exponential = 2 * n * K * VT**2 * ((weak - V) / (n * VT)).exp() * (1 - (-weak / VT).exp())
    torch.testing.assert_close(drain_current(weak, law), exponential, rtol=4e-3, atol=0)
    assert drain_current(torch.zeros(1).double(), law) == 0


def test_the_body_diode_is_shockley_below_its_knee_and_ohmic_above() -> None:
    system = circuit(3, **DIODE)
    law = tuple(system.table(system.substeps())[4:])
    bare = tuple(circuit(3).table(torch.ones(1).double())[4:])

    def body(v: Tensor) -> Tensor:
        return drain_current(v, bare) - drain_current(v, law)

    small, large = torch.linspace(-0.3, -0.05, 6).double(), torch.linspace(-6, -3, 4).double()
    shockley = 1e-9 * ((-small / (1.5 * 0.02585)).exp() - 1)
    torch.testing.assert_close(body(small), shockley, rtol=6e-3, atol=0)
    torch.testing.assert_close(body(large).diff(), -large.diff() / 100.0, rtol=1e-6, atol=0)


CASES = [{}, DIODE | STRAY, {"steps": 3} | STRAY, {"linear": True}]


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize(("samples", "records"), [(1, 1), (3, 2), (5, 65), (40, 7)])
def test_the_fused_kernel_is_the_plain_loop(options: dict[str, Any], samples: int, records: int) -> None:
    fused, plain = (circuit(samples, 0.3, fused=fused, **options) for fused in (True, False))
    x = torch.cat([swing(samples), drive(records, samples)])[:records].requires_grad_()
    y, expected = fused(x), plain(x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)
    weight = drive(records, samples, seed=3)
    found, expected = (torch.autograd.grad(out, x, weight)[0] for out in (y, expected))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("records", [1, 17, 200])
def test_single_precision_is_close_to_double(options: dict[str, Any], records: int) -> None:
    x = torch.cat([swing(196), drive(records, 196)])[:records].requires_grad_()
    short = x.detach().float().requires_grad_()
    y, single = circuit(196, 0.2, **options)(x), circuit(196, 0.2, **options).float()(short)
    assert single.dtype == torch.float32
    y.pow(3).sum().backward()
    single.pow(3).sum().backward()
    assert x.grad is not None and short.grad is not None
    assert (y - single).norm() < 3e-6 * y.norm() and (x.grad - short.grad).norm() < 1e-5 * x.grad.norm()


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("samples", [3, 6])
def test_the_adjoint_is_the_finite_difference(options: dict[str, Any], samples: int) -> None:
    assert torch.autograd.gradcheck(circuit(samples, 0.3, **options), drive(2, samples).requires_grad_())


def test_gradients_with_respect_to_the_constants_and_second_ones() -> None:
    """What a grey-box twin is fitted with: relative changes of every constant."""
    nominal = circuit(12, 0.1, **DIODE, **STRAY)
    x = drive(2, 12)

    def moved(x: Tensor, *factors: Tensor) -> Tensor:
        system = circuit(12, 0.1, **DIODE, **STRAY)
        for name, factor in zip(system.constants, factors, strict=True):
            setattr(system, name, getattr(nominal, name) * factor)
        return system(x)

    factors = [torch.ones(1).double().requires_grad_() for _ in nominal.constants]
    assert torch.autograd.gradcheck(moved, (x.requires_grad_(), *factors))
    for gradient in torch.autograd.grad(moved(x, *factors).square().sum(), factors):
        assert gradient.abs() > 0
    plain = circuit(4, 0.1, fused=False)
    assert torch.autograd.gradgradcheck(plain, drive(1, 4).requires_grad_())


def test_no_graph_without_a_gradient_and_no_second_derivative() -> None:
    system, x = circuit(5), drive(2, 5)
    assert system(x).grad_fn is None
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(system(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_no_sample_answers_before_it_is_driven(parts: dict[str, Any]) -> None:
    system, x = circuit(10, **parts), drive(10)
    jacobian = torch.autograd.functional.jacobian(system, x)
    assert jacobian.triu(1).abs().max() == 0 and jacobian.diagonal().min() > 0.9
    assert (jacobian.tril(-1) != 0).sum() == 45
    assert system(torch.zeros(10).double()).abs().max() < 1e-18


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("gap", [0.3, 0.97])
def test_a_stack_is_its_circuits_one_by_one(gap: float, fused: bool) -> None:
    systems = [circuit(20, gap, seed, fused=fused, **(DIODE if seed else STRAY)) for seed in range(3)]
    steps = {int(system.substeps()) for system in systems}
    assert len(steps) > 1 or gap < 0.9
    x = drive(3, 2, 5, 20).requires_grad_()
    together, apart = stack(systems)(x), torch.stack([one(x[n]) for n, one in enumerate(systems)])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-13)
    found, expected = (torch.autograd.grad(y.pow(3).sum(), x)[0] for y in (together, apart))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match="must start with the circuits' \\(3,\\)"):
        stack(systems)(x[:2])


def test_a_late_trigger_reads_the_record_later() -> None:
    system, x = circuit(8), drive(5, 8)
    y = system(x)
    stretch = torch.tensor([[0.0], [1.0], [-2.0], [0.5], [20.0]]).double() / 8  # samples
    found = system(x, stretch=stretch)
    assert torch.equal(found[0], y[0])
    torch.testing.assert_close(found[1], torch.cat([y[1, 1:], y[1, -1:]]), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(found[2], torch.cat([y.new_zeros(2), y[2, :-2]]), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(found[3, :-1], (y[3, 1:] + y[3, :-1]) / 2, rtol=1e-13, atol=1e-14)
    assert (found[4] == y[4, -1]).all()
    assert torch.autograd.gradcheck(lambda y: delayed(y, 8 * stretch), y.requires_grad_())
    ramp = torch.arange(1.0, 9.0).double()  # continues the zero before the record
    torch.testing.assert_close(
        delayed(ramp, torch.tensor([-0.3], dtype=torch.float64)), ramp - 0.3, rtol=1e-13, atol=1e-13
    )
    some = torch.tensor(
        [[0.0], [1.0], [-1.0], [0.5], [-0.4]]
    ).double()  # up to a sample: without a search for the place
    beside = torch.cat([some, torch.full((1, 1), 20.0).double()])
    torch.testing.assert_close(delayed(y, some), delayed(y[[0, 1, 2, 3, 4, 4]], beside)[:5], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("gap", [0.6, 0.9, 0.99])
def test_extreme_gaps_stay_stable(gap: float) -> None:
    x = torch.cat([drive(4, 196), swing(196), swing(196).sign()])
    for seed in range(12):
        system = circuit(196, gap, seed, **(PARTS[seed % 4]))
        y, truth = system(x), system.converged()(x)
        assert torch.isfinite(y).all() and y.abs().max() < 20
        assert (y - truth).norm() < 0.03 * truth.norm()


def test_absent_parts_are_a_structural_gap() -> None:
    x = swing(50)
    for parts in (DIODE, STRAY):
        device = circuit(50, 0.2, **parts)
        for name in parts:
            assert float(getattr(device, name)) == pytest.approx(parts[name], rel=1e-6)
            assert float(getattr(circuit(50, 0.2), name)) == 0
        bare = circuit(50, 0.2)
        assert (device(x) - bare(x)).norm() > 0.01 * bare(x).norm()
    assert torch.equal(circuit(50, **DIODE).linearised()(x), circuit(50, linear=True)(x))


def test_the_linearised_circuit_is_linear_and_the_other_is_not() -> None:
    system, x = circuit(100), swing(100)
    linear = system.linearised()
    torch.testing.assert_close(linear(x) / 4, linear(x / 4), rtol=1e-10, atol=1e-12)
    assert (system(x) / 4 - system(x / 4)).norm() > 0.05 * (system(x) / 4).norm()
    assert not system.linear and linear.operations() < system.operations()


def test_the_typical_output_fits_the_full_scale() -> None:
    y = circuit(196)(torch.cat([drive(100, 196), swing(196), swing(196).sign()]))
    assert 0.3 < y.square().mean().sqrt() < 1 and y.abs().max() < ElectronicOscillator.full_scale


def test_autocast_leaves_the_physics_alone() -> None:
    system, x = circuit(6).float(), drive(2, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(system(x), system(x)) and system(x).dtype == torch.float32


def test_the_compiler_is_imported_only_when_a_circuit_runs() -> None:
    check = "import sys, pnn.systems.electronic_oscillator as e; e.ElectronicOscillator(4, 4); assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inductance": 0.0}, "system.inductance=0.0 must be > 0"),
        ({"slope": math.inf}, "system.slope=inf must be > 0"),
        ({"sample_time": math.nan}, "system.sample_time=nan must be > 0"),
        ({"diode_saturation": -1e-9}, "system.diode_saturation=-1e-09 must be >= 0"),
        ({"steps": 0}, "system.steps=0 must be > 0"),
        ({"device_steps": 2.5}, "system.device_steps=2.5 must be a whole number"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ElectronicOscillator(3, 3, **options)
