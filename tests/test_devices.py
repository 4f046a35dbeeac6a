"""A device is driven and measured: counted, without gradients, reproducible, with the imperfections it states."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from masked import Masked
from omegaconf import OmegaConf
from torch import Tensor

from pnn.devices import Device, Ledger, SimulatedDevice, lab, notebook_gap
from pnn.devices.converters import quantise, saturate
from pnn.integrate import integrate
from pnn.systems import CoupledOscillators

Recipe = Callable[..., SimulatedDevice]
EVERYTHING = {
    "gap": 0.2,
    "input_noise": 0.05,
    "output_noise": 0.05,
    "timing_jitter": 0.02,
    "dac_bits": 10,
    "adc_bits": 10,
    "saturation": 3.0,
    "drift": 0.05,
    "drift_samples": 50.0,
}


def from_file(file: Path) -> Recipe:
    """The recipe of one file in conf/device, its seed open."""
    config = OmegaConf.load(file)
    config.seed = 0
    return instantiate(config)


RECIPES: dict[str, Recipe] = {
    **{file.stem: from_file(file) for file in sorted((Path(__file__).parents[1] / "conf" / "device").glob("*.yaml"))},
    "everything": partial(lab, **EVERYTHING),
    "notebook_everything": partial(notebook_gap, **{k: v for k, v in EVERYTHING.items() if k != "gap"}),
}


@pytest.fixture(params=RECIPES.values(), ids=RECIPES.keys())
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


def oscillators() -> CoupledOscillators:
    return CoupledOscillators(5, 3)


def driven(*batch: int, lead: tuple[int, ...] = (), seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*lead, *batch, 5, generator=generator)
    return x, *(spec.sample(lead, generator) for spec in oscillators().parameters_spec)


def wire(size: int = 1, **imperfections: Any) -> SimulatedDevice:
    """y = x: whatever else comes out is the imperfection."""
    return SimulatedDevice(Masked(size, size), **imperfections)


def through(device: SimulatedDevice, x: Tensor, mask: float = 1.0) -> Tensor:
    size = device.system.input_size
    return device.respond(x, torch.full((size,), mask, dtype=x.dtype), torch.zeros(size, dtype=x.dtype))


# ---- what every device owes ------------------------------------------------------------------------------------------


def test_a_device_is_one(recipe: Recipe) -> None:
    assert isinstance(recipe(oscillators()), Device)


@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
@pytest.mark.parametrize("batch", [(), (4,), (3, 2)], ids=str)
def test_measurements_have_the_right_shape_and_no_gradient(recipe: Recipe, lead: Any, batch: Any) -> None:
    device = recipe(oscillators())
    inputs = [t.requires_grad_() for t in driven(*batch, lead=lead)]
    before = [t.detach().clone() for t in inputs]
    y = device.respond(*inputs)
    assert y.shape == (*lead, *batch, 3) and y.dtype == torch.float32 and torch.isfinite(y).all()
    assert not y.requires_grad and y.grad_fn is None
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
    assert not list(device.system.parameters())


def test_every_call_and_sample_is_counted(recipe: Recipe) -> None:
    device = recipe(oscillators())
    assert device.ledger == Ledger(0, 0)
    device.respond(*driven())
    device.respond(*driven(7))
    device.respond(*driven(3, 2, lead=(2,)))
    assert device.ledger == Ledger(3, 1 + 7 + 12)
    device.differentiable(*driven(4))
    assert device.ledger == Ledger(4, 24)


def test_a_refused_drive_is_not_counted_and_draws_no_noise(recipe: Recipe) -> None:
    device, other = recipe(oscillators()), recipe(oscillators())
    x, *theta = driven(4)
    with pytest.raises(ValueError, match="takes 5 inputs"):
        device.respond(x[:, :4], *theta)
    assert device.ledger == Ledger(0, 0)
    assert torch.equal(device.respond(x, *theta), other.respond(x, *theta))


def test_the_seed_names_the_device_and_its_noise(recipe: Recipe) -> None:
    def record(**names: int) -> Tensor:
        device = recipe(oscillators(), **names)
        torch.manual_seed(len(names))  # the global generator is not the device's
        return torch.stack([device.respond(*driven(4)) for _ in range(3)])

    assert torch.equal(record(), record())
    assert torch.equal(record(seed=3, slot=1), record(slot=1, seed=3))
    device = recipe(oscillators())
    if torch.equal(device.respond(*driven(4)), recipe(oscillators(), seed=1).respond(*driven(4))):
        own, nominal = dict(device.system.named_buffers()), dict(oscillators().converged().named_buffers())
        assert all(bool((own[name] == nominal[name]).all()) for name in nominal)  # the perfect copy, without noise
        return
    assert not torch.equal(record(), record(seed=1))
    assert not torch.equal(record(), record(slot=1))
    assert not torch.equal(record(seed=1), record(slot=1))


def test_building_a_device_leaves_the_nominal_system_alone(recipe: Recipe) -> None:
    system = oscillators()
    before = copy.deepcopy(system.state_dict())
    device = recipe(system)
    device.respond(*driven(4))
    assert device.system is not system
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())
    assert (system.steps, system.scheme.name) == (1, "nystrom4")
    own = device.system
    assert isinstance(own, CoupledOscillators)
    assert (own.steps, own.scheme.name) == (16, "leapfrog")  # the device is the truth


def saved(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "travel", [copy.deepcopy, saved, lambda s: pickle.loads(pickle.dumps(s))], ids=["copy", "save", "pickle"]
)
def test_a_restored_device_continues_bit_for_bit(recipe: Recipe, travel: Callable[[Any], Any]) -> None:
    device = recipe(oscillators(), seed=4)
    for n in (3, 1):
        device.respond(*driven(n))
    state = travel(device.state_dict())
    after = [device.respond(*driven(n)) for n in (2, 5, 1)]
    fresh = recipe(oscillators(), seed=4)
    for _ in range(2):  # a state can be loaded twice: continuing does not change it
        fresh.load_state_dict(state)
        assert fresh.ledger == Ledger(2, 4)
        again = [fresh.respond(*driven(n)) for n in (2, 5, 1)]
        assert all(torch.equal(a, b) for a, b in zip(after, again, strict=True))
        assert fresh.ledger == device.ledger == Ledger(5, 12)


def test_a_state_is_a_snapshot(recipe: Recipe) -> None:
    device = recipe(oscillators())
    state = device.state_dict()
    before = copy.deepcopy(state)
    device.respond(*driven(4))
    assert torch.equal(state["generator"], before["generator"])
    assert {k: v for k, v in state.items() if k != "generator"} == {k: v for k, v in before.items() if k != "generator"}


def test_the_oracle_sees_the_same_measurement_with_its_gradient(recipe: Recipe) -> None:
    device, other = recipe(oscillators()), recipe(oscillators())
    inputs = [t.requires_grad_() for t in driven(4)]
    y = other.differentiable(*inputs)
    assert torch.equal(device.respond(*inputs), y)
    for gradient in torch.autograd.grad(y.square().sum(), inputs):
        assert gradient.abs().max() > 0


def test_autocast_does_not_reach_the_physics(recipe: Recipe) -> None:
    device, other = recipe(oscillators()), recipe(oscillators())
    with torch.autocast("cpu", torch.bfloat16):
        y = device.respond(*driven(4))
    assert torch.equal(y, other.respond(*driven(4)))


# ---- noise -----------------------------------------------------------------------------------------------------------

COUNT = 400_000
#: Five standard errors of a standard deviation estimated from COUNT samples: an error of 1 % shows.
SURE = 5 / math.sqrt(2 * COUNT)


@pytest.mark.parametrize(
    ("noise", "mask", "expected"),
    [
        ({"input_noise": 0.03}, 1.0, 0.03),
        ({"input_noise": 0.03}, -2.0, 0.06),  # before the system
        ({"output_noise": 0.07}, -2.0, 0.07),  # after it
        ({"input_noise": 0.03, "output_noise": 0.08}, 2.0, 0.1),  # independent: the variances add up
    ],
    ids=str,
)
def test_the_noise_has_the_stated_standard_deviation(noise: dict[str, float], mask: float, expected: float) -> None:
    device = wire(4, **noise)
    x = torch.linspace(-1, 1, COUNT).reshape(-1, 4).double()
    error = through(device, x, mask) - mask * x
    assert error.std() == pytest.approx(expected, rel=SURE)
    assert error.mean() == pytest.approx(0, abs=5 * expected / math.sqrt(COUNT))
    standard = error / expected
    assert (standard**4).mean() == pytest.approx(3, abs=5 * math.sqrt(96 / COUNT))  # normal
    across = torch.corrcoef(standard.mT) - torch.eye(4)
    along = (standard[1:] * standard[:-1]).mean()
    assert across.abs().max() < 5 / math.sqrt(COUNT / 4) and abs(along) < 5 / math.sqrt(COUNT)
    again = through(device, x, mask) - mask * x
    assert abs((standard * again / expected).mean()) < 5 / math.sqrt(COUNT)


def test_two_devices_have_two_noises() -> None:
    """Equal constants (no gap), another seed or another place in the network: independent noise."""
    x, *theta = driven(2000)
    names = ({}, {"seed": 1}, {"slot": 1}, {"seed": 1, "slot": 1})
    error = [lab(oscillators(), output_noise=1.0, **name).respond(x, *theta).flatten() for name in names]
    y = oscillators().converged()(x, *theta).flatten()
    correlation = torch.corrcoef(torch.stack(error) - y)
    assert (correlation - torch.eye(4)).abs().max() < 5 / math.sqrt(6000)


def test_timing_jitter_is_a_relative_change_of_the_duration_per_sample() -> None:
    """y(T(1 + τ ξ)) ≈ y + τ T ξ q̇(T), one ξ for the whole record."""
    system = CoupledOscillators(4, 4, device_scheme="rk4", device_steps=4)
    device = lab(system, timing_jitter=0.001)
    torch.manual_seed(0)
    device.system.double()
    x, C, e = (t.double() for t in (torch.tensor([0.5, -1.0, 0.2, 0.9]), *(s.sample() for s in system.parameters_spec)))
    y = device.respond(x.expand(COUNT, 4), C, e)
    own = device.system
    assert isinstance(own, CoupledOscillators)
    P = own.force_matrix(C)
    q, v = integrate(lambda q, columns: torch.sin(q) @ P[:, columns] + e[columns], x, None, 0.5, 4, own.scheme)
    assert v is not None
    xi = (y - q) / (0.001 * 0.5 * v)
    assert xi.std(0).numpy() == pytest.approx([1.0] * 4, rel=SURE)
    assert xi.mean(0).numpy() == pytest.approx([0.0] * 4, abs=6 / math.sqrt(COUNT))
    assert (xi - xi[:, :1]).abs().max() < 0.05


def test_jitter_without_a_timing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"device.timing_jitter=0.01 means nothing for Masked.*use 0"):
        lab(Masked(3, 3), timing_jitter=0.01)


def test_relative_noise_scales_with_each_value() -> None:
    device = wire(4, relative_noise=0.05)
    x = torch.linspace(-1, 1, COUNT).reshape(-1, 4).double()
    error = through(device, x) - x
    assert (error / x).std() == pytest.approx(0.05, rel=SURE)
    assert error[x.abs() < 1e-3].abs().max() < 1e-3


def test_parts_are_constants_that_only_the_device_has() -> None:
    nominal = Masked(2)
    device = lab(nominal, parts={"gain": 3.0})
    assert through(device, torch.ones(1, 2)).tolist() == [[3.0, 3.0]] and nominal.gain.item() == 1
    with pytest.raises(ValueError, match=r"device.parts.mass=1.0: Masked has no such constant; it has gain"):
        lab(nominal, parts={"mass": 1.0})


class Thermal(Masked):
    drift_constant = "gain"


def test_a_drift_moves_the_constant_that_the_system_names() -> None:
    """The same process as a gain error, here on the constant itself, which does not wander off over the calls."""
    drifts = {"drift": 0.1, "drift_samples": 5.0}
    device, other = SimulatedDevice(Thermal(1), **drifts), wire(**drifts)
    one = torch.ones(1, 1)
    for _ in range(50):
        y = through(device, one)
        torch.testing.assert_close(y, through(other, one))
        assert device.system.gain.item() == pytest.approx(y.item())
    assert abs(y.item() - 1) < 0.5


def test_converters_default_to_the_system_s_own_ranges() -> None:
    assert (wire().dac_range, wire().adc_range) == (4.0, Masked.full_scale)
    assert SimulatedDevice(Bounded(2)).dac_range == 1.0


def test_drift_is_a_slow_gain_error() -> None:
    """An Ornstein-Uhlenbeck process: stationary standard deviation d, correlation exp(−samples/τ)."""
    one = torch.ones(1, 1, dtype=torch.float64)
    starts = torch.stack([through(wire(drift=0.03, drift_samples=5.0, noise_seed=n), one) for n in range(1500)]) - 1
    assert starts.std() == pytest.approx(0.03, rel=5 / math.sqrt(3000))
    assert starts.mean() == pytest.approx(0, abs=5 * 0.03 / math.sqrt(1500))
    device = wire(drift=0.03, drift_samples=5.0)
    gains = torch.cat([through(device, one) for _ in range(12_000)])[:, 0] / 0.03 - 1 / 0.03
    independent = 12_000 * math.tanh(1 / 5)  # effective number of independent values of the square
    assert gains.std() == pytest.approx(1, rel=5 / math.sqrt(2 * independent))
    for lag in (1, 5, 10):
        correlation = (gains[lag:] * gains[:-lag]).mean() / gains.square().mean()
        assert correlation == pytest.approx(math.exp(-lag / 5), abs=5 / math.sqrt(independent))


def test_drift_advances_by_samples_not_calls() -> None:
    """Ten calls of one sample forget as much as one call of ten."""

    def correlation(calls: int, samples: int) -> float:
        pairs = []
        for seed in range(1000):
            device = wire(drift=0.1, drift_samples=10.0, noise_seed=seed)
            y = [through(device, torch.ones(samples, 1))[-1] - 1 for _ in range(calls + 1)]
            pairs.append(torch.cat([y[0], y[-1]]))
        return float(torch.corrcoef(torch.stack(pairs).mT)[0, 1])

    assert correlation(5, 1) == pytest.approx(math.exp(-0.5), abs=0.1)
    assert correlation(1, 5) == pytest.approx(math.exp(-0.5), abs=0.1)
    assert correlation(1, 40) == pytest.approx(math.exp(-4), abs=0.13)
    gain = through(wire(4, drift=0.1), torch.ones(6, 4))
    assert torch.equal(gain, gain[:1, :1].expand(6, 4))  # one gain for a record and its neighbours


# ---- signal chain ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_a_converter_has_its_levels(bits: int) -> None:
    x = torch.linspace(-3, 3, 20_001, dtype=torch.float64)
    y = quantise(x, bits, 2.0)
    levels = y.unique()
    step = 4.0 / (2**bits - 2)
    assert len(levels) == 2**bits - 1 and 0.0 in levels  # mid-tread: an odd number, zero among them
    torch.testing.assert_close(levels.diff(), torch.full_like(levels[1:], step))
    assert (y.min(), y.max()) == (-2.0, 2.0)
    assert torch.equal(quantise(-x, bits, 2.0), -y)
    inside = x.abs() <= 2
    assert (y - x)[inside].abs().max() <= step / 2 * (1 + 1e-9)
    torch.testing.assert_close(quantise(y, bits, 2.0), y)
    assert quantise(x, None, 2.0) is x


def test_a_converter_passes_the_gradient_of_its_clamp() -> None:
    x = torch.tensor([-3.0, -1.9, 0.1, 1.7, 2.5], requires_grad=True)
    (gradient,) = torch.autograd.grad(quantise(x, 3, 2.0).sum(), x)
    assert gradient.tolist() == [0, 1, 1, 1, 0]


def test_converters_stand_before_and_after_the_system() -> None:
    x = torch.linspace(-2, 2, 4001, dtype=torch.float64)[:, None]
    dac, adc = (through(wire(**{k: 3, k.replace("bits", "range"): 1.0}), x, 1.5) for k in ("dac_bits", "adc_bits"))
    torch.testing.assert_close(dac, 1.5 * quantise(x, 3, 1.0))
    torch.testing.assert_close(adc, quantise(1.5 * x, 3, 1.0))
    noisy = through(wire(adc_bits=3, adc_range=1.0, output_noise=0.5), x)
    assert len(noisy.unique()) == 7 and noisy.abs().max() == 1  # noise is converted, not added afterwards
    drifting = through(wire(dac_bits=3, dac_range=1.0, input_noise=0.01), x)
    assert len(drifting.unique()) > 4000  # noise of the drive comes behind its converter


def test_saturation_is_smooth_odd_and_bounded() -> None:
    x = torch.linspace(-50, 50, 1001, dtype=torch.float64)[:, None]
    y = through(wire(saturation=2.0), x)
    torch.testing.assert_close(y, 2 * torch.tanh(x / 2))
    assert y.abs().max() <= 2 and (y.diff(dim=0) >= 0).all()
    small = torch.tensor([[1e-4]], dtype=torch.float64)
    assert through(wire(saturation=2.0), small).item() == pytest.approx(1e-4, rel=1e-8)
    assert saturate(x, math.inf) is x and torch.equal(through(wire(), x), x)
    drifted = through(wire(saturation=2.0, drift=0.5, noise_seed=3), x)
    assert drifted.abs().max() != pytest.approx(2, rel=1e-3)  # the drifting gain follows the amplifier


# ---- refusals --------------------------------------------------------------------------------------------------------


class Bounded(Masked):
    input_range = (-1.0, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_values_that_are_not_finite_are_refused(bad: float, place: int) -> None:
    device = lab(oscillators())
    inputs = [t.clone() for t in driven(4)]
    inputs[place].view(-1)[3] = bad
    with pytest.raises(ValueError, match=r"not finite.*lower optimizer\.lr"):
        device.respond(*inputs)
    assert device.ledger.calls == 0


@pytest.mark.parametrize("value", [-1.001, 1.001])
def test_inputs_out_of_range_are_refused(value: float) -> None:
    device = SimulatedDevice(Bounded(2, 2))
    x = torch.tensor([[-1.0, 1.0], [0.0, 0.5]])
    assert torch.equal(through(device, x), x)
    x[1, 1] = value
    with pytest.raises(ValueError, match=r"Bounded was driven with .*outside its range \[-1, 1\]"):
        through(device, x)


def test_wrong_shapes_are_refused() -> None:
    device = lab(oscillators())
    x, C, e = driven(4)
    for inputs, message in (
        ((x[:, :4], C, e), r"takes 5 inputs, and x has shape \(4, 4\)"),
        ((x, C), r"takes parameters \['coupling', 'drive'\], and 1 were given"),
        ((x, C, e, e), "and 3 were given"),
        ((x, C[:7], e), r"coupling must have shape \(8, 8\), and has \(7, 8\)"),
        ((x, C, e[:5]), r"drive must have shape \(8,\), and has \(5,\)"),
        ((x, e, C), "coupling must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            device.respond(*inputs)
    assert device.ledger == Ledger()


@pytest.mark.parametrize("gap", [-0.1, 1.0, math.nan])
def test_a_gap_that_cannot_be_is_refused(gap: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        lab(oscillators(), gap=gap)


# ---- the recipes -----------------------------------------------------------------------------------------------------


def test_the_lab_device_is_the_perturbed_system() -> None:
    system = CoupledOscillators(30, 30)
    nominal, near, far = (lab(system, gap=gap, seed=2).system for gap in (0.0, 0.1, 0.4))
    for name, rule in system.constants.items():
        a, b, c = (getattr(s, name) for s in (nominal, near, far))
        assert (a == getattr(system, name)).all()
        if rule.perturbed:
            torch.testing.assert_close((c - a), 4 * (b - a), rtol=1e-4, atol=1e-6)  # one device, gap by gap
            assert 0.3 < (c - a).abs().max() <= 0.4 * (1 + 1e-6)


def test_the_notebook_device_has_its_constants() -> None:
    system = CoupledOscillators(300, 300)
    own = notebook_gap(system, eta=0.15, coupling_noise=0.3, seed=5).system
    assert isinstance(own, CoupledOscillators)
    torch.testing.assert_close(own.nonlinearity, torch.full_like(own.nonlinearity, 1.15))
    for name in ("onsite", "drive_gain", "coupling_gain"):
        assert (getattr(own, name) == 1).all()
    noise = own.coupling_offset
    assert noise.shape == (300, 300) and torch.equal(noise, noise.mT)
    pairs = noise[tuple(torch.triu_indices(300, 300, 1))]
    assert pairs.std() == pytest.approx(0.3 / math.sqrt(2), rel=5 / math.sqrt(2 * len(pairs)))
    assert noise.diagonal().std() == pytest.approx(0.3, rel=5 / math.sqrt(600))
    assert pairs.mean() == pytest.approx(0, abs=5 * 0.3 / math.sqrt(2 * len(pairs)))


def test_the_notebook_device_at_its_defaults() -> None:
    """sin q → sin(1.1 q), J → J + J_noise, q(0) → q(0) + 0.02 ξ; without them it is the nominal device."""
    system = oscillators()
    device = notebook_gap(system)
    assert device.input_noise == 0.02
    assert device.system.nonlinearity.flatten().tolist() == pytest.approx([1.1] * device.system.nonlinearity.numel())
    quiet = notebook_gap(system, eta=0.0, coupling_noise=0.0, input_noise=0.0)
    assert torch.equal(quiet.respond(*driven(4)), lab(system).respond(*driven(4)))
    slots = [notebook_gap(system, slot=n).system.coupling_offset for n in range(2)]
    assert not torch.equal(*slots)


def test_the_notebook_device_needs_couplings() -> None:
    with pytest.raises(ValueError, match=r"defined for system=coupled_oscillators, not for Masked; use device=lab"):
        notebook_gap(Masked(3, 3))


def test_every_specimen_has_noise_of_its_own() -> None:
    x, theta = torch.rand(5, 6), [torch.rand(s.shape) for s in CoupledOscillators(6, 6).parameters_spec]
    noise = []
    for distance, seed in ((0.0, 0), (0.1, 0), (0.1, 1)):
        device = lab(CoupledOscillators(6, 6), output_noise=0.1, distance=distance, distance_seed=seed)
        noise.append(device.respond(x, *theta) - device.system(x, *theta))
    assert not any(torch.allclose(noise[a], noise[b], atol=1e-3) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_the_noise_factor_reaches_the_notebook_device() -> None:
    assert notebook_gap(CoupledOscillators(6, 6), noise_factor=3.0).input_noise == pytest.approx(0.06)
