"""Second-harmonic generation obeys the coupled-wave equations, their closed forms and invariants."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.integrate import solve_ivp
from torch import Tensor

from pnn.systems import stack
from pnn.systems.shg import SHG, mix, power

#: A small instrument where every constant shows: strong dispersion, strong conversion.
SMALL: dict[str, Any] = {"bins": 10, "output_bins": 6, "gvd": 12e3, "gvd_harmonic": 30e3, "gain_length": 2.0}
FINE: dict[str, Any] = {"grid": 1024, "device_grid": 1024, "device_z_steps": 96}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crystal(gap: float = 0.0, seed: int = 1, **options: Any) -> SHG:
    """The digital model in float64, its constants moved by `gap`."""
    system = SHG(1, 1, **options).perturbed(gap, generator(seed))
    assert isinstance(system, SHG)
    return system.double()


def device(gap: float = 0.0, seed: int = 1, **options: Any) -> SHG:
    return crystal(gap, seed, **options).converged()


def drives(system: SHG, *batch: int, seed: int = 0) -> Tensor:
    return torch.rand(*batch, system.input_size, generator=generator(seed), dtype=torch.float64)


def error(y: Tensor, truth: Tensor) -> float:
    """Largest relative error of a sample."""
    return float(((y - truth).norm(dim=-1) / truth.norm(dim=-1)).max())


# --- the equations, by hand -------------------------------------------------------------------------------------------


def shaped(system: SHG, u: np.ndarray, f: np.ndarray) -> np.ndarray:
    """A₁(f) with the blur as a numerical convolution of the staircase with a Gaussian, and ∫A₁ df = 1 for all-on, no phase."""
    width = system.window / system.input_size
    edges = np.linspace(-system.window / 2, system.window / 2, system.input_size + 1)
    sigma = system.smoothing * width
    s = np.linspace(-6 * sigma, 6 * sigma, 40001)
    kernel = np.exp(-0.5 * (s / sigma) ** 2)
    gain = np.broadcast_to(system.shaper_gain.numpy(), u.shape)

    def staircase(level: np.ndarray) -> np.ndarray:
        at = np.searchsorted(edges, f[:, None] - s) - 1
        inside = (at >= 0) & (at < len(level))
        return (np.where(inside, level[at.clip(0, len(level) - 1)], 0.0) * kernel).sum(1) / kernel.sum()

    envelope = np.exp(-2 * np.log(2) * (f / system.bandwidth) ** 2)
    total = (envelope * staircase(np.ones_like(u))).sum() * (f[1] - f[0])
    phase = 0.5 * float(system.gdd) * 1e-6 * (2 * np.pi * f) ** 2
    return envelope * staircase(gain * u) * np.exp(1j * phase) / total


def solved(system: SHG, u: np.ndarray) -> np.ndarray:
    """Bin powers from the coupled waves as integrals over frequency, in the interaction picture, by an adaptive integrator."""
    df, n = 0.2, 50
    f = df * np.arange(-n, n + 1)
    F = df * np.arange(-2 * n, 2 * n + 1)
    k1 = 0.5e-6 * float(system.gvd) * (2 * np.pi * f) ** 2
    k2 = 1e-3 * float(system.gvm) * 2 * np.pi * F + 0.5e-6 * float(system.gvd_harmonic) * (2 * np.pi * F) ** 2
    kappa, length = float(system.kappa), float(system.length)

    def rhs(z: float, y: np.ndarray) -> np.ndarray:
        A1, A2 = y[: len(f)] * np.exp(1j * k1 * z), y[len(f) :] * np.exp(1j * k2 * z)
        dA1 = 1j * kappa * df * np.correlate(A2, A1, "valid")  # ∫ A₂(f + f') A₁*(f') df', f' running over the band
        dA2 = 1j * kappa * df * np.convolve(A1, A1)
        return np.concatenate([dA1 * np.exp(-1j * k1 * z), dA2 * np.exp(-1j * k2 * z)])

    start = np.concatenate([shaped(system, u, f), np.zeros(len(F), complex)])
    A2 = solve_ivp(rhs, (0, length), start, "DOP853", rtol=1e-8, atol=1e-10).y[len(f) :, -1] * np.exp(1j * k2 * length)
    t = (np.arange(4096) - 2048) / 4096 / df  # the line shape between the samples, from the field in the window
    b = np.exp(-2j * np.pi * np.outer(t, F)) @ A2 * df
    edges = np.linspace(-system.output_window / 2, system.output_window / 2, system.output_size + 1)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    half = np.diff(edges)[:, None] / 2
    fine = edges[:-1, None] + half * (1 + nodes)
    spectrum = (np.exp(2j * np.pi * fine[..., None] * t) @ b) * (t[1] - t[0])
    gain = np.broadcast_to(system.spectrometer_gain.numpy(), len(half))
    return gain * (np.abs(spectrum) ** 2 * weights * half).sum(1)


@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_the_coupled_waves(gap: float) -> None:
    system = device(gap, **SMALL, **FINE)
    x = drives(system, 2)
    truth = torch.from_numpy(np.stack([solved(system, u) for u in x.numpy()]))
    assert error(system(x) * system.reference, truth) < 6e-5


def test_every_constant_matters() -> None:
    """A comparison that could not see one per cent of a constant would prove nothing."""
    system = device(0.2, **SMALL, **FINE)
    x = drives(system, 2)
    y = system(x)
    for name, constant in system.constants.items():
        other = device(0.2, **SMALL, **FINE)
        setattr(other, name, 1.01 * getattr(other, name))
        assert getattr(other, name).shape == constant.shape
        assert error(other(x), y) > 5e-4, name


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain_length", [0.6, 2.0])
def test_a_plane_wave_is_converted_as_tanh_squared(gain_length: float) -> None:
    """a = sech ΓL, b = tanh ΓL from b = 0; and from any phase of the pump."""
    steps = 800
    a = torch.polar(torch.full((3,), gain_length / steps), torch.tensor([0.0, 1.0, 2.5])).to(torch.complex128)
    start, b = power(a), torch.zeros_like(a)
    for _ in range(steps):
        a, b = mix(a, b)
    conversion = torch.full_like(start, np.tanh(gain_length) ** 2)
    torch.testing.assert_close(power(b) / start, conversion, rtol=5e-6, atol=0)
    torch.testing.assert_close(power(a) / start, 1 - conversion, rtol=5e-5, atol=0)


@pytest.mark.parametrize(("steps", "tolerance"), [(8, 1.5e-3), (128, 6e-6)])
def test_without_dispersion_every_moment_is_a_plane_wave(steps: int, tolerance: float) -> None:
    """|b(t)| = |a(t)| tanh(κ|a(t)|L) for any drive, and the transform-limited all-on pulse has κ|a|L = 0.6 at its peak."""
    system = device(gdd=0.0, gvm=0.0, gvd=0.0, gvd_harmonic=0.0, device_z_steps=steps)
    x = torch.cat([torch.ones(1, 100, dtype=torch.float64), drives(system, 7)])
    start = power(system._envelope(x)).sqrt()
    assert float(start[0].max()) == pytest.approx(1, abs=1e-6)
    _, b = system.waves(x)
    truth = start * torch.tanh(0.6 * start)
    assert (power(b).sqrt() - truth).abs().max() < tolerance * truth.max()


def test_group_velocity_mismatch_shapes_the_spectrum_as_sinc_squared() -> None:
    """|A₂(Ω)|² ∝ sinc²(GVM·ΩL/2), by the split-step, which knows no sinc."""
    walk = {"gvm": 400.0, "gvd": 0.0, "gvd_harmonic": 0.0, "gain_length": 0.01, "device_z_steps": 128}
    narrow = {"output_window": 8.0, "output_bins": 801}  # bins of 0.01 THz: a value each
    system, matched = device(**walk, **narrow), device(**(walk | {"gvm": 0.0}), **narrow)
    x = drives(system, 3)
    f = torch.linspace(-4, 4, 801, dtype=torch.float64)
    found = system(x) * system.reference / (matched(x) * matched.reference)
    torch.testing.assert_close(found, (torch.sinc(f * 0.4 * 0.5) ** 2).expand(3, -1), rtol=0, atol=0.006)
    assert found[:, 100].max() < 0.5  # a zero of sinc² is 5 THz away


@pytest.mark.parametrize("undepleted", [True, False])
def test_the_power_grows_as_the_fourth_power_of_the_drive(undepleted: bool) -> None:
    options = {} if undepleted else {"gain_length": 0.01}
    system = crystal(0.2, undepleted=undepleted, **options)
    x = drives(system, 4)
    tolerance = 1e-12 if undepleted else 2e-5
    assert error(system(0.5 * x) * 16, system(x)) < tolerance
    torch.testing.assert_close(system(1.5 * x[:1]), 1.5**4 * system(x[:1]), rtol=1e-3, atol=0)  # it does not clamp


@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_the_undepleted_model_is_the_device_at_low_conversion(gap: float) -> None:
    options = {"gain_length": 0.03, "device_z_steps": 48}
    model, full = crystal(gap, **options), device(gap, **options)
    x = drives(model, 16)
    assert error(model(x), full(x)) < 2e-3
    strong = {"gain_length": 0.03, "device_z_steps": 96, "gvd": 300.0, "gvd_harmonic": 4e3}
    assert error(crystal(gap, **strong)(x), device(gap, **strong)(x)) < 2e-3  # four times GVD₁


def test_the_phase_mismatch_of_the_undepleted_model() -> None:
    """Δk = GVM·Ω + ½GVD₂Ω² − ¼GVD₁Ω², where it is exact: each line made of neighbours, far from the carrier."""
    options = {"gain_length": 0.01, "gvm": 20.0, "gvd": 4e3, "gvd_harmonic": 9e3, "device_z_steps": 100}
    model, full = crystal(0.0, **options), device(0.0, **options)
    x = torch.zeros(2, 100, dtype=torch.float64)
    x[0, 70:73], x[1, 27:30] = 1.0, 1.0
    assert error(model(x), full(x)) < 2e-4


def test_a_mirrored_spectrum() -> None:
    """f → −f with GVM → −GVM is a symmetry; it ties the frequencies of both grids, also outside the band."""
    options = {"gain_length": 4.0, "gvd": 4e3, "gvd_harmonic": 9e3}
    system, mirrored = device(**options), device(**options, gvm=-190.0)
    x = drives(system, 4)
    assert error(mirrored(x.flip(-1)), system(x).flip(-1)) < 1e-5
    assert error(system(x.flip(-1)), system(x).flip(-1)) > 0.01


def test_the_working_point() -> None:
    """About 1 % is converted, the model is 1 % from the device, and one grid point per bin would not do."""
    model, full = crystal(), device()
    x = drives(model, 32)
    _, b = full.waves(x)
    conversion = power(b).sum(-1) / power(full._envelope(x)).sum(-1)
    assert 0.004 < float(conversion.mean()) < 0.02
    assert 0.002 < error(model(x), full(x)) < 0.02
    assert float(model(torch.full((100,), 0.7).double()).max()) == pytest.approx(1, abs=1e-6)
    assert float(model(torch.ones(100).double()).max()) < model.full_scale


# --- invariants and convergence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "tolerance"), [({}, 1e-6), ({"gain_length": 3.0, "device_z_steps": 64}, 1e-4)], ids=str
)
def test_energy_is_conserved(options: dict[str, Any], tolerance: float) -> None:
    """∫|A₁|² + |A₂|² is what came in."""
    system = device(0.2, **options)
    x = drives(system, 8)
    a, b = system.waves(x)
    start = power(system._envelope(x)).sum(-1)
    torch.testing.assert_close((power(a) + power(b)).sum(-1), start, rtol=tolerance, atol=0)
    assert (power(b).sum(-1) > 0.001 * start).all()


def test_splitting_in_z_is_second_order() -> None:
    options = {"gain_length": 2.0, "gvd": 2e3, "gvd_harmonic": 4e3}
    runs = [device(device_z_steps=n, **options) for n in (16, 32, 64)]
    x = drives(runs[0], 8)
    coarse, middle, fine = (system(x) for system in runs)
    order = torch.log2((coarse - middle).norm() / (middle - fine).norm())
    assert float(order) == pytest.approx(2, abs=0.1)


def test_the_device_is_converged() -> None:
    """Twice the frequencies, or twice the steps, change no sample by 1 %; one frequency per bin would."""
    x = drives(device(), 32)
    y = device()(x)
    assert error(y, device(device_grid=1024)(x)) < 2e-3
    assert error(y, device(device_z_steps=32)(x)) < 5e-3
    assert error(crystal(grid=512)(x), crystal(grid=1024)(x)) < 2e-3
    binary = (x > 0.5).to(x)  # the roughest masks
    assert error(device()(binary), device(device_grid=1024)(binary)) < 2e-3


def test_the_pulse_fits_into_the_time_window() -> None:
    """No wrap-around: neither the stretched pulse nor its second harmonic reaches the edges of 27 ps."""
    system = device(0.2)
    x = torch.cat([drives(system, 16), (drives(system, 16, seed=1) > 0.5).double()])
    for wave in (system._envelope(x), *system.waves(x)):
        energy = torch.fft.fftshift(power(wave), dim=-1)
        edges = energy[:, :64].sum(-1) + energy[:, -64:].sum(-1)
        assert (edges < 1e-6 * energy.sum(-1)).all()


def test_the_shaper_blurs_its_bins() -> None:
    """One open bin: centred, with the variance of a rectangle and a Gaussian, w²/12 + σ²; all together they are flat."""
    system = crystal(bandwidth=1e9, grid=4096)
    f = system.omega[: system.grid // 2] / (2 * np.pi)
    M = system.shaper / system.shaper.sum(-1, keepdim=True)
    centres = torch.linspace(-4.455, 4.455, 100, dtype=torch.float64)
    torch.testing.assert_close(M @ f, centres, rtol=0, atol=2e-5)
    spread = M @ f**2 - (M @ f) ** 2
    torch.testing.assert_close(spread, torch.full_like(spread, 0.09**2 * (1 / 12 + 0.7**2)), rtol=1e-3, atol=0)
    flat = system.shaper.sum(0)[f.abs() < 4]
    torch.testing.assert_close(flat, flat.mean().expand_as(flat), rtol=1e-5, atol=0)


# --- gradients, copies, the linear reference --------------------------------------------------------------------------


TINY: dict[str, Any] = {
    "bins": 5,
    "output_bins": 4,
    "grid": 32,
    "device_grid": 32,
    "device_z_steps": 2,
    "gain_length": 2.0,
}
KINDS = ("model", "device", "linear")


def kind(name: str, gap: float = 0.3, seed: int = 1, **options: Any) -> SHG:
    system = crystal(gap, seed, **options)
    return {"model": system, "device": system.converged(), "linear": system.linearised()}[name]


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_finite_differences(name: str) -> None:
    """With respect to the drive and to every constant."""
    system = kind(name, **TINY)
    x = drives(system, 2).requires_grad_()
    assert torch.autograd.gradcheck(system, (x,))
    constants = {key: getattr(system, key).clone().requires_grad_() for key in system.constants}

    def of_constants(*values: Tensor) -> Tensor:
        return torch.func.functional_call(system, dict(zip(constants, values, strict=True)), (x.detach(),))

    assert torch.autograd.gradcheck(of_constants, tuple(constants.values()), fast_mode=True)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_at_full_size(name: str) -> None:
    """Along one direction, and finite where a bin or the whole pulse is dark."""
    system = kind(name, 0.1)
    x, direction = drives(system, 3), drives(system, 3, seed=5) - 0.5
    _, slope = torch.func.jvp(system, (x,), (direction,))
    step = 1e-5
    torch.testing.assert_close(
        (system(x + step * direction) - system(x - step * direction)) / (2 * step), slope, rtol=1e-6, atol=1e-9
    )
    dark = torch.zeros(1, 100, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(system(dark).square().sum(), dark)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", KINDS)
def test_samples_and_stacked_copies_are_independent(name: str) -> None:
    systems = [kind(name, seed=seed, **TINY) for seed in range(3)]
    x = drives(systems[0], 3, 4, 2)
    apart = torch.stack([system(x[n]) for n, system in enumerate(systems)])
    torch.testing.assert_close(stack(systems)(x), apart, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(systems[0](x[0, 1, 1]), apart[0, 1, 1], rtol=1e-12, atol=1e-14)
    assert apart.shape == (3, 4, 2, 4)


@pytest.mark.parametrize("name", KINDS)
def test_single_precision_is_close_to_double(name: str) -> None:
    system = kind(name, 0.1)
    x = drives(system, 4)
    y = system(x)
    single = system.float()(x.float())
    assert single.dtype == torch.float32 and y.dtype == torch.float64
    assert error(single.double(), y) < 2e-6


def test_the_linear_reference_is_the_derivative_about_mid_grey() -> None:
    model = kind("model", 0.2)
    linear, grey = model.linearised(), torch.full((100,), 0.5, dtype=torch.float64)
    jacobian = torch.func.jacrev(model)(grey)
    x = drives(model, 4)
    torch.testing.assert_close(linear(x), model(grey) + (x - grey) @ jacobian.mT, rtol=1e-10, atol=1e-12)
    assert error(linear(x), model(x)) > 0.05
    assert error(linear.converged()(x), linear(x)) < 1e-5  # the linear physics of a device is linear


def test_a_device_keeps_the_models_constants_and_units() -> None:
    model = crystal(0.2, grid=256)
    full = model.converged()
    assert (full.grid, full.undepleted, model.grid, model.undepleted) == (512, False, 256, True)
    assert full.reference == model.reference and not full.has_timing
    assert all(torch.equal(getattr(full, name), getattr(model, name)) for name in model.constants)
    assert full.shaper.dtype == torch.float64
    full.load_state_dict(model.state_dict())  # grids differ, constants are the same ones


def test_operations_are_counted() -> None:
    model = crystal()
    assert model.linearised().operations() == 5000
    assert 5000 < model.operations() < model.converged().operations() < 1_000_000


def test_the_file_says_what_the_class_does() -> None:
    file = OmegaConf.load(Path(__file__).parents[1] / "conf" / "system" / "shg.yaml")
    defaults = {k: p.default for k, p in inspect.signature(SHG).parameters.items() if k not in ("inputs", "outputs")}
    assert {key: file[key] for key in defaults} == defaults


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0.0}, "system.length=0.0 must be > 0"),
        ({"gain_length": -1.0}, "system.gain_length=-1.0 must be > 0"),
        ({"smoothing": float("nan")}, "system.smoothing=nan must be > 0"),
        ({"bins": 0}, "system.bins=0 must be >= 1"),
        ({"z_steps": 0}, "system.z_steps=0 must be >= 1"),
        ({"grid": 255}, "system.grid=255 must be even and >= 2 x bins = 200"),
        ({"device_grid": 128}, "system.device_grid=128 must be even and >= 2 x bins = 200"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SHG(1, 1, **options)
