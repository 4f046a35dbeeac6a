"""The plate's modes are Leissa's; its record is the modal equation's, filtered as by scipy; it is passive and causal."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad, solve_ivp
from scipy.signal import butter, tf2ss
from torch import Tensor

import pnn.systems.oscillating_plate as module
from pnn.systems import ritz
from pnn.systems.oscillating_plate import OscillatingPlate, toeplitz
from pnn.systems.system import stack

TITANIUM = ritz.Plate(32e-3, 1e-3, 116e9, 0.32, 4506.0)
DRIVE = (1.0e-3, 0.6e-3)
#: A suspension that hardens within the micrometres that a plate moves in a short record.
HARD: dict[str, Any] = {"linear": False, "hardening": 5e-6, "substeps": 4}


def plate(inputs: int, gap: float = 0.0, seed: int = 1, **options: Any) -> OscillatingPlate:
    system = OscillatingPlate(inputs, inputs, **options)
    if gap:
        system = system.perturbed(gap, torch.Generator().manual_seed(seed))  # type: ignore[assignment]
    return system.double()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def blobs(batch: int) -> Tensor:
    """Bright strokes on black 14 × 14 images in [−1, 1]: the large constant part of MNIST."""
    row, column = torch.meshgrid(*2 * [torch.arange(14.0, dtype=torch.float64)], indexing="ij")
    centres = 7 + 3 * noise(batch, 3, 2, 1, 1)
    squared = (row - centres[:, :, 0]) ** 2 + (column - centres[:, :, 1]) ** 2
    return (2 * torch.exp(-squared / 4).amax(1) - 1).reshape(batch, 196)


def solved(system: OscillatingPlate, x: Tensor, shift: float = 0.0) -> np.ndarray:
    """y of one record x (N,) from the modal equation and scipy's analogue filter, `shift` samples late.

    Time in samples, modal displacements in units of h²·(full force).
    """
    h, force = system.step, system.full_force
    omega, zeta, drive, microphone = (
        getattr(system, name).numpy() for name in ("frequency", "damping", "drive_shape", "microphone_shape")
    )
    omega = 2 * np.pi * omega * h
    cubic = 0.0 if system.linear else float(system.cubic) * (h**2 * force) ** 3 / force
    A, B, C, _ = tf2ss(*butter(system.filter_order, 2 * np.pi * system.cutoff * h, analog=True))
    M = len(omega)

    def rate(t: float, z: np.ndarray, u: float) -> np.ndarray:
        q, v, state = z[:M], z[M : 2 * M], z[2 * M :]
        acceleration = drive * (u - cubic * (drive @ q) ** 3) - 2 * zeta * omega * v - omega**2 * q
        return np.concatenate([v, acceleration, A @ state + B[:, 0] * (microphone @ acceleration)])

    z, y = np.zeros(2 * M + len(A)), []
    for n, u in enumerate([*x.tolist(), 0.0]):
        wanted = [n + shift % 1, n + 1] if shift % 1 else [n + 1]
        run = solve_ivp(rate, (n, n + 1), z, "DOP853", wanted, args=(u,), rtol=1e-8, atol=1e-10)
        z = run.y[:, -1]
        y.append(float(C[0] @ run.y[2 * M :, 0]))
    late = int(np.floor(shift)) + 1 if shift % 1 else int(shift)
    record = [0.0] * max(-late, 0) + y[max(late, 0) :]
    return np.array(record[: len(x)]) * float(system.gain) * force / system.acceleration


# The plate


def test_free_square_plate_has_leissas_eigenvalues() -> None:
    found = 4 * np.sqrt(np.abs(np.linalg.eigvalsh(ritz.stiffness(12, 0.3))))
    assert found[:3].max() < 1e-2  # translation and two rotations
    np.testing.assert_allclose(found[3:8], [13.49, 19.79, 24.43, 35.02, 35.02], rtol=0.01)
    # converged: the printed values are upper bounds of fewer polynomials, and 13.468 is the known limit
    np.testing.assert_allclose(found[3:8], [13.468, 19.596, 24.270, 34.801, 34.801], rtol=5e-5)


def test_without_coil_three_modes_are_free_and_the_rest_scale_with_the_material() -> None:
    squared, _ = ritz.spectrum(TITANIUM, 12, 0.0, 0.0, DRIVE)
    assert np.abs(squared[:3]).max() < 1e-8 * squared[3]
    thick = TITANIUM._replace(side=64e-3, thickness=3e-3, young=29e9)  # ω ~ h/a² √E
    np.testing.assert_allclose(
        ritz.spectrum(thick, 12, 0.0, 0.0, DRIVE)[0][3:20], squared[3:20] * (3 / 8) ** 2, rtol=1e-9
    )
    D = 116e9 * 1e-9 / (12 * (1 - 0.32**2))
    assert TITANIUM.rigidity == pytest.approx(D) == pytest.approx(10.8, rel=0.01)
    assert TITANIUM.mass == pytest.approx(4506 * 32e-3**2 * 1e-3)
    kappa = np.linalg.eigvalsh(ritz.stiffness(12, 0.32))[3]
    assert np.sqrt(squared[3]) == pytest.approx(4 * np.sqrt(kappa) / 32e-3**2 * np.sqrt(D / (4506 * 1e-3)))


def test_more_polynomials_lower_every_frequency_and_little() -> None:
    f = {n: ritz.modes(TITANIUM, n, 24, 1e-3, 2e3, DRIVE, (6e-3, 9e-3), 5e-3).frequency for n in (9, 12, 16)}
    assert (f[12] <= f[9] * (1 + 1e-9)).all() and (f[16] <= f[12] * (1 + 1e-9)).all()  # Rayleigh-Ritz: from above
    excess = f[12] / f[16] - 1  # slow where the coil's point mass bends the plate
    assert excess[f[12] < 24e3].max() < 0.012 and excess.max() < 0.022
    assert f[12][:4] == pytest.approx([96, 3190, 4650, 4680], rel=5e-3)


def test_the_suspension_carries_a_rigid_plate() -> None:
    """ω² = k/(m_coil + m_eff), 1/m_eff = 1/M + r²/I, I = Ma²/12: a plate stiff against its suspension, pushed off centre."""
    r2, M = DRIVE[0] ** 2 + DRIVE[1] ** 2, TITANIUM.mass
    effective = 1 / (1 / M + r2 / (M * TITANIUM.side**2 / 12))
    piston = ritz.modes(TITANIUM, 12, 1, 1e-3, 2e3, DRIVE, (6e-3, 9e-3), 5e-3)
    assert piston.frequency[0] == pytest.approx(np.sqrt(2e3 / (1e-3 + effective)) / (2 * np.pi), rel=1e-3)
    assert piston.drive[0] == pytest.approx((1e-3 + effective) ** -0.5, rel=1e-3)


def test_modes_that_the_force_cannot_see_are_left_out() -> None:
    """On a diagonal the square keeps a mirror symmetry, and every mode odd in it has a node at the drive."""
    point = (1e-3, 1e-3)
    found = ritz.modes(TITANIUM, 12, 24, 1e-3, 2e3, point, (6e-3, 9e-3), 5e-3)
    squared, shapes = ritz.spectrum(TITANIUM, 12, 1e-3, 2e3, point)
    assert (found.drive > 1e-4).all()
    even = shapes.reshape(12, 12, -1) + shapes.reshape(12, 12, -1).swapaxes(0, 1)
    odd = np.linalg.norm(even, axis=(0, 1)) < 1e-3 * np.linalg.norm(shapes, axis=0)
    seen = 2 * np.pi * found.frequency
    assert not (np.abs(squared[odd][:, None] / seen**2 - 1) < 1e-9).any() and odd.sum() > 40
    static = (found.drive**2 / seen**2).sum()  # compliance at the drive: the spring, and next to nothing from the plate
    assert static == pytest.approx(1 / 2e3, rel=1e-3)


def test_modes_are_mass_normalised_and_orthogonal() -> None:
    squared, shapes = ritz.spectrum(TITANIUM, 12, 1e-3, 2e3, DRIVE)
    x, y = np.meshgrid(*2 * [np.polynomial.legendre.leggauss(30)[0]], indexing="ij")
    weight = np.outer(*2 * [np.polynomial.legendre.leggauss(30)[1]]) * TITANIUM.density * TITANIUM.thickness * 16e-3**2
    basis = np.stack([ritz.at_point(12, 32e-3, (16e-3 * a, 16e-3 * b)) for a, b in zip(x.flat, y.flat, strict=True)])
    w, at = basis @ shapes[:, 2:12], ritz.at_point(12, 32e-3, DRIVE) @ shapes[:, 2:12]
    np.testing.assert_allclose(w.T @ (w * weight.reshape(-1, 1)) + 1e-3 * np.outer(at, at), np.eye(10), atol=1e-10)
    assert (np.diff(squared[2:]) > 0).all()


def test_the_microphone_averages_over_its_patch() -> None:
    def weight(x: float, y: float) -> float:
        return float(np.exp(-((x - 6e-3) ** 2 + (y - 9e-3) ** 2) / (2 * 5e-3**2)))

    edge = 16e-3
    total, part = (
        dblquad(lambda y, x, f=f: 1e6 * weight(x, y) * f(x, y), -edge, edge, -edge, edge, epsrel=1e-7)[0]
        for f in (lambda x, y: 1.0, lambda x, y: ritz.at_point(6, 32e-3, (x, y))[8])
    )
    found = ritz.over_patch(6, 32e-3, (6e-3, 9e-3), 5e-3)
    assert found[8] == pytest.approx(part / total, rel=1e-6)
    assert found[0] == pytest.approx(0.5, rel=1e-12)  # a translation is heard as it is


# The record


def test_one_mode_answers_a_step_in_closed_form() -> None:
    """w = φ²F/ω² [1 − e^{−ζωt}(cos ω_d t + ζω/ω_d sin ω_d t)]."""
    system = plate(300, modes=1)
    omega, zeta, phi = 2 * np.pi * float(system.frequency), float(system.damping), float(system.drive_shape)
    pulse, triangle = (r[0].numpy() for r in system.responses(2, 600))
    held = pulse.reshape(300, 2).cumsum(0).ravel()  # a step is a row of pulses
    t = np.arange(600) * system.step / 2
    damped = omega * np.sqrt(1 - zeta**2)
    step = 1 - np.exp(-zeta * omega * t) * (np.cos(damped * t) + zeta * omega / damped * np.sin(damped * t))
    step *= phi**2 * system.full_force / omega**2
    np.testing.assert_allclose(held, step, rtol=1e-10, atol=1e-10 * step.max())
    # the triangles from the first grid point on make a ramp, then a step: one ramp before it and one after, halved
    np.testing.assert_allclose(triangle.cumsum()[:-1], _averaged(step, t, omega, zeta, phi), rtol=1e-6)


def _averaged(step: np.ndarray, t: np.ndarray, omega: float, zeta: float, phi: float) -> np.ndarray:
    """w after a force that rises linearly from 0 at t_(−1) to 1 at t_0: the mean of the step responses over that time."""
    h, damped = t[1], omega * np.sqrt(1 - zeta**2)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    total = np.zeros(len(t) - 1)
    for node, weight in zip(nodes, weights, strict=True):
        late = t[:-1] + h * (1 + node) / 2
        w = 1 - np.exp(-zeta * omega * late) * (np.cos(damped * late) + zeta * omega / damped * np.sin(damped * late))
        total += weight / 2 * w * phi**2 / omega**2
    return total


@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize("options", [{}, HARD], ids=["linear", "cubic"])
def test_the_record_is_the_modal_equations(options: dict[str, Any], gap: float) -> None:
    system = plate(24, gap, **options)
    x = 0.6 + 0.4 * noise(24)
    y = system(x).numpy()
    truth = solved(system, x)
    assert np.abs(y - truth).max() < (3e-4 if options else 1e-7) * np.abs(truth).max()
    if options:
        assert np.abs(system.linearised()(x).numpy() - truth).max() > 0.05 * np.abs(truth).max()


def test_a_device_on_images_is_the_modal_equation() -> None:
    device, x = plate(196).converged(), blobs(4)
    y, linear = device(x), device.linearised()(x)
    assert not device.linear
    truth = solved(device, x[0])
    scale = np.linalg.norm(truth)
    assert np.linalg.norm(y[0].numpy() - truth) < 1e-5 * scale
    assert 3e-3 < np.linalg.norm(linear[0].numpy() - truth) / scale < 0.03  # linear to about a per cent
    assert 3e-3 < (y - linear).norm() / linear.norm() < 0.03


@pytest.mark.parametrize("options", [{}, {"hardening": 0.3e-3}], ids=["device", "70 times harder"])
def test_halving_the_step_changes_little_and_by_a_quarter_each_time(options: dict[str, Any]) -> None:
    system = plate(196, **options).converged()
    records = []
    for system.substeps in (1, 2, 4, 8):
        records.append(system(blobs(3)))
    changes = [float((b - a).norm() / b.norm()) for a, b in pairwise(records)]
    assert changes[0] < (1e-5 if not options else 5e-3) and changes[1] < changes[0]
    assert np.log2(changes[1] / changes[2]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("gap", [0.0, 0.99])
def test_the_sweeps_have_converged_on_every_device(gap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [plate(196).converged().perturbed(gap, torch.Generator().manual_seed(n)) for n in range(20 if gap else 1)]
    x = torch.cat([blobs(2), torch.ones(1, 196).double()])
    y = [device(x) for device in devices]
    monkeypatch.setattr(module, "SWEEPS", 20)
    for mine, device in zip(y, devices, strict=True):
        assert torch.isfinite(mine).all()
        assert (device(x) - mine).norm() < (1e-5 if gap else 1e-10) * mine.norm()


def test_a_toeplitz_matrix_holds_the_response_at_every_lag() -> None:
    response, rows, columns = noise(2, 3, 13), range(2, 13, 2), range(1, 12, 5)
    found = toeplitz(response, rows, columns)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            expected = response[..., row - column] if row >= column else torch.zeros(2, 3).double()
            assert torch.equal(found[..., j, i], expected)


def test_the_force_on_the_suspension_satisfies_its_equation() -> None:
    """f = k₃ (w₀ − f G)³ at every grid point, windows or not."""
    system = plate(60, **HARD)
    _, triangle = system.responses(4, 240)
    points = range(240)
    G = toeplitz(triangle[0], points, points)
    w = 1e-5 * noise(3, 240).cumsum(-1) / 10
    force = system.suspension_force(w, G)
    assert (force @ G).norm() > 1e-2 * w.norm()
    torch.testing.assert_close(force, system.cubic * (w - force @ G) ** 3, rtol=1e-6, atol=1e-9)


def test_linear_without_the_cubic_and_odd_with_it() -> None:
    a, b = 0.6 + 0.4 * noise(2, 3, 40)
    system, hard = plate(40, 0.2), plate(40, 0.2, **HARD)
    torch.testing.assert_close(system(0.3 * a - 0.5 * b), 0.3 * system(a) - 0.5 * system(b), rtol=1e-11, atol=1e-13)
    assert (hard(2 * a / 3) - hard(a / 3) * 2).norm() > 1e-3 * hard(a).norm()
    assert torch.equal(hard(-a), -hard(a))
    torch.testing.assert_close(hard.linearised()(a), system(a), rtol=1e-12, atol=1e-14)
    soft = plate(40, 0.2, linear=False, hardening=float("inf"))
    assert float(soft.cubic) == 0 and soft.converged().linear and plate(40).linearised().converged().linear
    torch.testing.assert_close(soft(a), system(a), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", [{}, HARD], ids=["linear", "cubic"])
def test_the_past_does_not_see_the_future(options: dict[str, Any]) -> None:
    system = plate(40, **options)
    x = noise(40)
    changed = x.clone()
    changed[25] += 0.1
    difference = (system(changed) - system(x)).abs()
    assert difference[:25].max() < 1e-13 and difference[25:].min() > 1e-9


@pytest.mark.parametrize("gap", [0.0, 0.99])
def test_energy_only_falls_without_a_drive(gap: float) -> None:
    """d/dt ½Σ(p² + v²) = −Σ 2ζωv²: no flow of the modes stretches any state."""
    for seed in range(5):
        system = plate(4, gap, seed)
        A, _, _ = system.state_space()
        M, K = 24, 28
        modes = torch.cat([torch.arange(M), torch.arange(K, K + M)])
        A = A[modes][:, modes]
        torch.testing.assert_close(
            (A + A.mT) / 2,
            torch.diag(torch.cat([torch.zeros(M).double(), -4 * torch.pi * system.damping * system.frequency])),
        )
        for time in (1e-6, 2e-5, 1e-3):
            assert torch.linalg.matrix_norm(torch.linalg.matrix_exp(A * time), 2) <= 1 + 1e-12


@pytest.mark.parametrize("options", [{}, HARD], ids=["linear", "cubic"])
def test_the_drive_never_gets_more_work_out_than_it_put_in(options: dict[str, Any]) -> None:
    """Σ F_n (w_(n+1) − w_n) ≥ 0 at every time, for a plate that starts at rest."""
    system = plate(100, **options)
    x = noise(20, 100).sign()
    pulse, triangle = (r[0] for r in system.responses(4, 401))
    points, holds = range(1, 401), range(0, 400, 4)
    w = x @ toeplitz(pulse, points, holds)
    if options:
        G = toeplitz(triangle, points, points)
        w = w - system.suspension_force(w, G) @ G
    work = (x * torch.diff(w[:, 3::4], prepend=torch.zeros(20, 1).double())).cumsum(-1)
    assert work.min() > 0 and (torch.diff(work) < 0).any()


def test_the_filter_is_a_butterworth_and_keeps_aliases_out() -> None:
    """y/x = g F Σ φ(x_m)φ(x_d) s²/(s² + 2ζωs + ω²) · B(s) at s = 2πif, B from its maximally flat modulus and scipy's phase."""
    system = plate(4)
    A, B, C = (t.to(torch.complex128) for t in system.state_space())
    omega, zeta = 2 * np.pi * system.frequency.numpy(), system.damping.numpy()
    product = (system.drive_shape * system.microphone_shape).numpy()
    zeros, poles, gain = butter(8, 2 * np.pi * 20e3, analog=True, output="zpk")
    assert len(zeros) == 0
    for f in (50.0, 1e3, 5e3, 17e3, 24e3, 38e3, 60e3):
        s = 2j * np.pi * f
        found = complex(C[1] @ torch.linalg.solve(s * torch.eye(56, dtype=A.dtype) - A, B))
        plain = (product * s**2 / (s**2 + 2 * zeta * omega * s + omega**2)).sum() / 200
        assert abs(found / plain) == pytest.approx((1 + (f / 20e3) ** 16) ** -0.5, rel=1e-8)
        assert found == pytest.approx(complex(plain * gain / np.prod(s - poles)), rel=1e-8)
    # a mode at 38 kHz would appear at 10 kHz: what it leaves in the record falls by 45 dB
    quiet, loud = (plate(64, modes=1, cutoff=c, sampling_rate=r) for c, r in ((20e3, 48e3), (20e4, 48e4)))
    for one in (quiet, loud):
        one.frequency, one.damping = torch.full_like(one.frequency, 38e3), torch.full_like(one.damping, 1e-4)
    tail = [system(torch.eye(64).double()[0])[20:].abs().max() for system in (quiet, loud)]
    pulse_width = np.sin(np.pi * 38 / 48) / np.sin(np.pi * 38 / 480)  # of a hold of one sample at either rate
    assert tail[0] / tail[1] == pytest.approx(pulse_width * (1 + (38 / 20) ** 16) ** -0.5, rel=0.1)


@pytest.mark.parametrize("shift", [0.37, 2.0, -3.0, -1.25])
def test_a_late_trigger_reads_the_same_motion_later(shift: float) -> None:
    system, x = plate(40), noise(40)
    stretch = torch.tensor([shift / 40], dtype=torch.float64)
    together = system(torch.stack([x, x]), stretch=torch.stack([0 * stretch, stretch]))
    torch.testing.assert_close(together[0], system(x), rtol=1e-12, atol=1e-13)
    length = 40 if shift < 1 else 39  # `solved` follows the ring-down for one sample
    truth = solved(system, x, shift)
    assert np.abs(together[1].numpy()[: min(length, len(truth))] - truth[:length]).max() < 1e-3 * np.abs(truth).max()
    if shift < -1:
        assert together[1][: int(-shift)].abs().max() < 1e-3 * together.abs().max()


def test_timing_of_a_device_with_its_cubic() -> None:
    device, x = plate(196).converged(), blobs(2)
    zero = torch.zeros(2, 1).double()
    torch.testing.assert_close(device(x, stretch=zero), device(x), rtol=1e-12, atol=1e-13)
    linear = device.linearised()
    late = zero + 0.4 / 196
    found, expected = (one(x, stretch=late) - one(x) for one in (device, linear))
    assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("options", [{}, {**HARD, "substeps": 2}], ids=["linear", "cubic"])
@pytest.mark.parametrize("stretched", [False, True], ids=["", "stretched"])
def test_a_stack_is_its_systems_one_by_one(options: dict[str, Any], stretched: bool) -> None:
    systems = [plate(30, 0.3, seed, **options) for seed in range(3)]
    x = noise(3, 5, 30).requires_grad_()
    stretch = 0.03 * noise(3, 5, 1) if stretched else None
    together = stack(systems)(x, stretch=stretch)
    apart = torch.stack([one(x[n], stretch=None if stretch is None else stretch[n]) for n, one in enumerate(systems)])
    torch.testing.assert_close(together, apart, rtol=1e-11, atol=1e-13)
    mine, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (together, apart))
    torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-13)
    assert stack(systems)(x[:, 0]).shape == (3, 30)


@pytest.mark.parametrize("options", [{}, {**HARD, "substeps": 2}], ids=["linear", "cubic"])
def test_gradients_of_input_timing_and_constants(options: dict[str, Any]) -> None:
    system = plate(6, 0.2, modes=3, basis=6, **options)
    assert torch.autograd.gradcheck(system, (noise(2, 6).requires_grad_(),))
    stretch = torch.tensor([[0.03], [-0.02]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, s: system(x, stretch=s), (noise(2, 6).requires_grad_(), stretch))
    nominal = {name: getattr(system, name) for name in system.constants}

    def scaled(factor: Tensor) -> Tensor:
        for name, value in nominal.items():
            setattr(system, name, value * factor)
        return system(noise(2, 6))

    assert torch.autograd.gradcheck(scaled, (torch.tensor(1.0, dtype=torch.float64, requires_grad=True),))


def test_the_constants_are_those_of_the_modes_and_the_suspension() -> None:
    system = plate(4, suspension=3e3, hardening=2e-3, piston_damping=0.2, flexural_damping=0.01)
    assert float(system.cubic) == pytest.approx(3e3 / 2e-3**2)  # k(w) = k + k₃w² doubles at the hardening length
    np.testing.assert_allclose(system.damping, [0.2] + [0.01] * 23, rtol=1e-6)
    found = ritz.modes(TITANIUM, 12, 24, 1e-3, 3e3, DRIVE, (6e-3, 9e-3), 5e-3)
    np.testing.assert_allclose(system.frequency, found.frequency, rtol=1e-6)
    np.testing.assert_allclose(system.drive_shape * system.microphone_shape, found.drive * found.microphone, atol=1e-5)
    assert (system.drive_shape >= 0).all() and system.frequency[0] < system.frequency[1:].min()


def test_every_constant_matters() -> None:
    device, x = plate(196).converged(), blobs(2)
    y = device(x)
    for name, rule in device.constants.items():
        moved = plate(196).converged()
        assert getattr(moved, name).shape == rule.shape
        setattr(moved, name, 1.01 * getattr(moved, name))
        assert (moved(x) - y).norm() > 2e-5 * y.norm(), name
    assert device.drift_constant in device.constants


def test_typical_records_fill_the_converter() -> None:
    for x in (blobs(8), noise(8, 196), noise(8, 196).sign()):
        y = plate(196)(x)
        assert 0.3 < y.square().mean().sqrt() < 1.5 and y.abs().max() < OscillatingPlate.full_scale


def test_single_precision_is_close_to_double() -> None:
    for system in (plate(196), plate(196).converged()):
        y = system(blobs(3))
        assert (system.float()(blobs(3).float()) - y).norm() < 3e-6 * y.norm()


def test_what_a_digital_computer_computes() -> None:
    assert plate(196).operations() == 196 * 197 // 2
    digital = plate(50, linear=False)
    assert digital.operations() == 3 * 50 * 51 // 2 + 3 * 50 * 28 + 50 * 51 // 2
    assert plate(50).converged().operations() > digital.operations()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 0.0}, "system.side=0.0 must be > 0"),
        ({"thickness": float("nan")}, "system.thickness=nan must be > 0"),
        ({"poisson": 0.5}, "system.poisson=0.5 must be in"),
        ({"drive": (0.02, 0.0)}, "system.drive=.* must be .* on the plate"),
        ({"microphone": (0.0, float("nan"))}, "system.microphone=.* must be .* on the plate"),
        ({"modes": 40}, "system.modes=40 must be 1 … basis²/4 = 36"),
        ({"modes": 0}, "system.modes=0 must be"),
        ({"cutoff": 24e3}, "system.cutoff=24000.0 must be < half the sampling rate"),
        ({"filter_order": 7}, "system.filter_order=7 must be even"),
        ({"drive": (0.0, 0.0)}, "system.drive=.* excites .* modes of the basis, and system.modes=24"),
        ({"device_substeps": 0}, "system.device_substeps=0 must be > 0"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OscillatingPlate(4, 4, **options)
