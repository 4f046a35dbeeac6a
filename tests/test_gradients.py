"""The laws of the training modes: what runs forward, whose Jacobians run backward, and what follows from it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from masked import Masked
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn import functional

from pnn.alignment import MODES, gradient_alignment, table
from pnn.architectures import Mixer, Multilayer
from pnn.devices import SimulatedDevice, lab
from pnn.devices.converters import quantise
from pnn.gradients import ideal, in_silico, physics_aware
from pnn.layers import Laboratory, PhysicalLayer
from pnn.optimizers import Adam
from pnn.systems import CoupledOscillators, Identity
from pnn.twins import nominal

WHERE = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
Transform = Callable[..., Tensor]


class Bench:
    """The smallest device there can be: any function, measured."""

    def __init__(self, law: Transform):
        self.law, self.calls = law, 0

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            return self.law(x, *theta)


class Simulator(Bench):
    def differentiable(self, x: Tensor, *theta: Tensor) -> Tensor:
        self.calls += 1
        return self.law(x, *theta)


def oscillators(inputs: int, outputs: int) -> CoupledOscillators:
    """The digital model resolves time as the device does: only the constants differ."""
    return CoupledOscillators(inputs, outputs, scheme="leapfrog", steps=4, device_steps=4)


def driven(*batch: int, lead: tuple[int, ...] = (), where: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*lead, *batch, 5, generator=generator)
    theta = [spec.sample(lead, generator) for spec in oscillators(5, 3).parameters_spec]
    return [t.to(where) for t in (x, *theta)]


# ---- physics-aware training ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_forward_is_the_device_and_backward_the_model_at_the_devices_inputs(where: str, lead: tuple[int, ...]) -> None:
    recipe = partial(lab, oscillators(5, 3), gap=0.5, input_noise=0.1, output_noise=0.1, dac_bits=4, adc_bits=4, seed=3)
    device, twin, model = recipe(), recipe(), oscillators(5, 3).to(where)
    inputs = [t.requires_grad_() for t in driven(6, lead=lead, where=where)]
    y = physics_aware(device, model)(*inputs)
    assert torch.equal(y, twin.respond(*inputs)) and y.requires_grad
    assert (y - model(*inputs)).norm() > 0.05 * y.norm()  # they do differ
    calls = copy.copy(device.ledger)
    weight = torch.linspace(-1, 1, y.numel(), device=where).reshape(y.shape)
    found = torch.autograd.grad(y, inputs, weight)
    assert device.ledger == calls == twin.ledger  # backward never calls the device
    for mine, theirs in zip(found, torch.autograd.grad(model(*inputs), inputs, weight), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("where", WHERE)
def test_closed_form_jacobians(where: str) -> None:
    """f_p = tanh(a x), f_m = a x²: y = tanh(a x), g_x = 2 a x g, g_a = Σ x² g."""
    device = Bench(lambda x, a: torch.tanh(a * x))
    x = torch.linspace(-1, 1, 5, device=where).requires_grad_()
    a = torch.tensor(1.5, device=where).requires_grad_()
    y = physics_aware(device, lambda x, a: a * x**2)(x, a)
    assert torch.equal(y, torch.tanh(1.5 * x))
    loss = 0.5 * ((y - 1) ** 2).sum()
    gx, ga = torch.autograd.grad(loss, (x, a))
    error = (y - 1).detach()  # at the measured output
    torch.testing.assert_close(gx, 3 * x.detach() * error)
    torch.testing.assert_close(ga, (x.detach() ** 2 * error).sum())
    assert device.calls == 1


def test_in_a_chain_the_model_is_evaluated_at_what_the_device_emitted() -> None:
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return x**3

    device = Bench(lambda x: x + 1)
    f = physics_aware(device, model)
    x = torch.tensor([0.5, 2.0], requires_grad=True)
    y = f(f(f(x)))
    assert torch.equal(y, x + 3) and not seen  # forward: the device only
    y.sum().backward()
    assert [s.tolist() for s in seen] == [[2.5, 4.0], [1.5, 3.0], [0.5, 2.0]]
    torch.testing.assert_close(x.grad, torch.tensor([27 * (0.5 * 1.5 * 2.5) ** 2, 27 * (2.0 * 3 * 4) ** 2]))
    assert device.calls == 3


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("data", [False, True], ids=["data", "hidden"])
def test_any_number_of_parameters_and_frozen_ones_get_none(count: int, data: bool) -> None:
    def law(x: Tensor, *theta: Tensor) -> Tensor:
        return sum(((n + 2) * t * x for n, t in enumerate(theta)), x * 1.0)

    device = Bench(law)
    for frozen in range(count + 1):  # the first `frozen` parameters
        x = torch.tensor([1.0, -2.0], requires_grad=data)
        theta = [torch.tensor(0.5, requires_grad=n >= frozen) for n in range(count)]
        y = physics_aware(device, law)(x, *theta)
        assert y.requires_grad == (data or frozen < count)
        if not y.requires_grad:
            continue
        y.square().sum().backward()
        truth = torch.autograd.grad(law(x, *theta).square().sum(), [t for t in (x, *theta) if t.requires_grad])
        found = [t.grad for t in (x, *theta) if t.requires_grad]
        assert all(torch.equal(a, b) for a, b in zip(found, truth, strict=True))  # type: ignore[arg-type]
        assert all(t.grad is None for t in (x, *theta) if not t.requires_grad)


def test_a_parameter_that_the_model_does_not_know_gets_none() -> None:
    x, a, b = (torch.tensor([n], requires_grad=True) for n in (1.0, 2.0, 3.0))
    physics_aware(Bench(lambda x, a, b: a * x + b), lambda x, a, b: a * x)(x, a, b).sum().backward()
    assert b.grad is None and a.grad.item() == 1 and x.grad.item() == 2


def test_gradients_accumulate_over_calls() -> None:
    device, model = lab(oscillators(5, 3), gap=0.3, output_noise=0.1), oscillators(5, 3)
    x, *theta = (t.requires_grad_() for t in driven(6))
    f = physics_aware(device, model)
    start, apart = device.state_dict(), []
    for part in (x[:2], x[2:]):
        apart.append(torch.autograd.grad(f(part, *theta).square().sum(), (x, *theta)))
    device.load_state_dict(start)
    for part in (x[:2], x[2:]):
        f(part, *theta).square().sum().backward()
    for t, first, second in zip((x, *theta), *apart, strict=True):
        torch.testing.assert_close(t.grad, first + second)
    # and two uses in one graph add up as well
    once = torch.autograd.grad(model(x, *theta).sum(), theta)
    twice = torch.autograd.grad(f(x, *theta).sum() + f(x, *theta).sum(), theta)
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(2 * a, b)


def test_there_is_no_second_derivative() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    y = physics_aware(Bench(torch.square), torch.square)(x)
    (gradient,) = torch.autograd.grad(y**2, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.backward()


@pytest.mark.parametrize("where", WHERE)
def test_autocast_reaches_the_model_as_it_was_in_the_forward_pass(where: str) -> None:
    seen: list[bool] = []

    def model(x: Tensor, W: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled(where))
        return torch.tanh(x @ W)

    x, W = (torch.randn(8, 8, generator=torch.Generator().manual_seed(n)).to(where).requires_grad_() for n in range(2))
    f = physics_aware(Bench(model), model)
    gradients = {}
    for enabled in (False, True):
        seen.clear()
        with torch.autocast(where, torch.bfloat16, enabled=enabled):
            y = f(x, W)
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        gradients[enabled] = torch.autograd.grad(y.float().square().sum(), (x, W))  # outside the context
        assert seen == [enabled, enabled]
    for exact, half in zip(gradients[False], gradients[True], strict=True):
        assert half.dtype == torch.float32
        assert (exact - half).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("mode", MODES)
def test_a_network_trains_under_autocast(where: str, mode: str) -> None:
    network, _ = small(MODES[mode], gap=0.3, output_noise=0.01, dtype=torch.float32)
    network.to(where)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(where)
    with torch.autocast(where, torch.bfloat16):
        logits = network(x)
        loss = functional.cross_entropy(logits.float(), torch.arange(6, device=where) % 3)
    loss.backward()
    for parameter in network.parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0


# ---- the other modes -------------------------------------------------------------------------------------------------


def test_in_silico_never_meets_the_device() -> None:
    device, model = lab(oscillators(5, 3), gap=0.5), oscillators(5, 3)
    inputs = [t.requires_grad_() for t in driven(6)]
    y = in_silico(device, model)(*inputs)
    assert torch.equal(y, model(*inputs))
    y.sum().backward()
    assert device.ledger.calls == 0


def test_ideal_is_the_device_forward_and_backward() -> None:
    device, model = lab(oscillators(5, 3), gap=0.5, output_noise=0.1), oscillators(5, 3)
    inputs = [t.requires_grad_() for t in driven(6)]
    y = ideal(device, model)(*inputs)
    assert torch.equal(y, lab(oscillators(5, 3), gap=0.5, output_noise=0.1).respond(*inputs))
    found = torch.autograd.grad(y.sum(), inputs)
    for mine, theirs in zip(found, torch.autograd.grad(device.system(*inputs).sum(), inputs), strict=True):
        assert torch.equal(mine, theirs)


def test_ideal_needs_a_simulated_device() -> None:
    with pytest.raises(ValueError, match=r"training=ideal needs a simulated device, and Bench .*use training=pat"):
        ideal(Bench(torch.sin), torch.sin)


TASK = SimpleNamespace(features=5, classes=3, image_shape=None)


def small(
    mode: Any, *, lead: tuple[int, ...] = (), dtype: torch.dtype = torch.float64, **device: Any
) -> tuple[Multilayer, list[SimulatedDevice]]:
    """Two layers of oscillators, two devices."""
    torch.manual_seed(5)
    laboratory = Laboratory(oscillators, partial(lab, **device), nominal, mode)
    network = Multilayer(laboratory, TASK, depth=2, scale=3.0, lead=lead).to(dtype)
    return network, laboratory.devices


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_without_a_gap_all_modes_give_the_same_gradients(where: str, lead: tuple[int, ...]) -> None:
    gradients = []
    for mode in MODES.values():
        network, devices = small(mode, lead=lead)
        network.to(where)
        x = torch.randn(*lead, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(where)
        x.requires_grad_()
        network(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in network.parameters())])
        assert [d.ledger.calls for d in devices] == [0 if mode is in_silico else 1] * 2
    for mine, *others in zip(*gradients, strict=True):
        assert mine.abs().max() > 0
        for other in others:
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-13)


def test_with_a_gap_the_modes_differ() -> None:
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = []
    for mode in MODES.values():
        network, _ = small(mode, gap=0.4)
        network(x).square().sum().backward()
        first.append(next(p.grad for n, p in network.named_parameters() if n.endswith("coupling")))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (first[a] - first[b]).norm() > 0.01 * first[a].norm()


def test_quantisation_aware_training_is_physics_aware_training() -> None:
    """f_p = quantised, f_m = full precision: the straight-through estimator, y + (Q(y) − y) without its gradient."""
    device = SimulatedDevice(Masked(4, 4), dac_bits=5, dac_range=3.0, adc_bits=4, adc_range=4.0)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(*shape, generator=generator).requires_grad_() for shape in ((7, 4), (4,), (4,))]
    target = torch.rand(7, 4, generator=generator)

    def straight_through(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y = (x + (quantise(x, 5, 3.0) - x).detach()) * a + b
        return y + (quantise(y, 4, 4.0) - y).detach()

    def model(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return x * a + b

    y = physics_aware(device, model)(*inputs)
    assert torch.equal(y, straight_through(*inputs)) and not torch.equal(y, model(*inputs))
    found = torch.autograd.grad((y - target).square().sum(), inputs)
    truth = torch.autograd.grad((straight_through(*inputs) - target).square().sum(), inputs)
    oracle = torch.autograd.grad((device.differentiable(*inputs) - target).square().sum(), inputs)
    torch.testing.assert_close(found[0], truth[0])  # g_x = a g and g_b = Σ g do not see the converters
    torch.testing.assert_close(found[2], truth[2])
    torch.testing.assert_close(oracle, truth)
    # g_a = Σ x g takes x as it was set, before the drive's converter: within half a level of the other
    error = 2 * (y - target).detach()
    torch.testing.assert_close(found[1], (inputs[0].detach() * error).sum(0))
    assert ((found[1] - truth[1]).abs() <= error.abs().sum(0) * (3.0 / 30 + 1e-6)).all()


# ---- a toy in closed form: f(x) = 2 x^θ, f_m(x) = 2.01 x^θ -----------------------------------------------------------


def power(gain: float) -> Transform:
    return lambda x, theta: gain * x**theta


REAL, MODEL = power(2.0), power(2.01)


def applied(f: Transform, x: Tensor, theta: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = f(x, theta)
    return x


def slope(mode: Any, times: int, model: Transform = MODEL) -> tuple[float, float]:
    """x_n and dx_n/dx_0 after n applications from x_0 = 1."""
    x, theta = (torch.tensor(value, dtype=torch.float64, requires_grad=value == 1) for value in (1.0, 1.1))
    y = applied(mode(Simulator(REAL), model), x, theta, times)
    return y.item(), float(torch.autograd.grad(y, x)[0])


@pytest.mark.parametrize(("times", "gap"), [(1, 0.50), (5, 3.09), (10, 8.27), (20, 33.06)])
def test_gaps_of_a_chain(times: int, gap: float) -> None:
    """In silico the gap of the output and of the gradient is 1.005^(1 + 1.1 + … + 1.1^(n−1)) − 1, with PAT 1.005ⁿ − 1."""
    y, g = slope(ideal, times)
    assert g == pytest.approx(1.1**times * y, rel=1e-12)  # x_0 = 1
    modelled, apart = slope(in_silico, times)
    measured, aware = slope(physics_aware, times)
    law = 1.005 ** ((1.1**times - 1) / 0.1) - 1
    assert modelled / y - 1 == pytest.approx(law, rel=1e-10) == pytest.approx(gap / 100, abs=5e-5)
    assert apart / g - 1 == pytest.approx(law, rel=1e-10)
    assert measured == y
    assert aware / g - 1 == pytest.approx(1.005**times - 1, rel=1e-9)


@pytest.mark.parametrize(("times", "per_cent"), [(1, 0.50), (5, 2.53), (10, 5.11), (20, 10.49)])
def test_the_gradient_gap_of_physics_aware_training(times: int, per_cent: float) -> None:
    assert slope(physics_aware, times)[1] / slope(ideal, times)[1] - 1 == pytest.approx(per_cent / 100, abs=5e-5)


def learned(mode: Any, model: Transform = MODEL, rate: float = 1e-15) -> tuple[float, float]:
    """The shared exponent after 150 steps towards 1e5 = f¹⁰(1), and what the device then gives."""
    f = mode(Simulator(REAL), model)
    x, theta = torch.ones((), dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    for _ in range(150):
        (gradient,) = torch.autograd.grad((applied(f, x, theta, 10) - 1e5) ** 2, theta)
        with torch.no_grad():
            theta -= rate * gradient
    return theta.item(), applied(REAL, x, theta.detach(), 10).item()


def test_learning_one_exponent() -> None:
    """Physics-aware training ends where the device is right, in-silico training where the model is."""
    solution = brentq(lambda t: (t**10 - 1) / (t - 1) - math.log2(1e5), 1.05, 1.2)  # f¹⁰(1) = 2^(1 + θ + … + θ⁹)
    assert solution == pytest.approx(1.10860, abs=5e-6)
    for mode in (ideal, physics_aware):
        theta, reached = learned(mode)
        assert theta == pytest.approx(solution, abs=3e-6) and reached == pytest.approx(1e5, rel=2e-4)
    theta, reached = learned(in_silico)
    assert theta == pytest.approx(1.10711, abs=5e-6) and reached == pytest.approx(92_100, abs=100)


def test_a_poor_model_costs_accuracy_in_silico_but_only_speed_on_the_device() -> None:
    poor = power(1.8)
    assert learned(physics_aware, poor)[1] == pytest.approx(1e5, rel=5e-3)
    assert learned(in_silico, poor)[1] > 1.9e5


def test_a_model_of_the_wrong_sign_leads_away() -> None:
    """What decides is the sign of the inner product with the true gradient; here the output falls with θ: 2 x^(2.2 − θ)."""
    theta, reached = learned(physics_aware, lambda x, theta: 2 * x ** (2.2 - theta))
    assert theta < 1.1 and reached < 0.9 * float(applied(REAL, torch.ones(()), torch.tensor(1.1), 10))


# ---- gradient alignment ----------------------------------------------------------------------------------------------


def batches(count: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(6, 5, generator=generator, dtype=torch.float64), torch.arange(6) % 3) for _ in range(count)]


def by_layer(found: list[Any]) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    return {(a.layer, a.mode): (a.cosine, a.ratio) for a in found}


def test_without_a_gap_every_gradient_is_aligned() -> None:
    network, devices = small(physics_aware)
    found = gradient_alignment(network, devices, batches())
    assert {(a.layer, a.mode) for a in found} == {(f"layers.{n}", m) for n in (0, 1) for m in MODES}
    for a in found:
        assert a.cosine.shape == a.ratio.shape == ()
        assert float(a.cosine) == pytest.approx(1, abs=1e-10) and float(a.ratio) == pytest.approx(1, abs=1e-10)
    assert len(table(found).splitlines()) == 7 and "1.000" in table(found)


def test_every_mode_meets_the_same_noise() -> None:
    """Without a gap, PAT and ideal differ by nothing; in silico knows no noise."""
    network, devices = small(in_silico, output_noise=0.3)
    found = by_layer(gradient_alignment(network, devices, batches()))
    for layer in ("layers.0", "layers.1"):
        assert [float(v) for v in found[layer, "pat"]] == pytest.approx([1, 1], abs=1e-10)
        assert float(found[layer, "in_silico"][0]) < 1 - 1e-4


def test_alignment_is_the_cosine_of_the_training_gradients() -> None:
    network, devices = small(physics_aware, gap=0.4)
    found = by_layer(gradient_alignment(network, devices, batches()))
    flat = {}
    for name, mode in MODES.items():
        other, _ = small(mode, gap=0.4)
        loss = sum(functional.cross_entropy(other(x), y, reduction="sum") for x, y in batches())
        loss.backward()  # type: ignore[union-attr]
        flat[name] = [torch.cat([t.grad.flatten() for t in layer.theta]) for layer in other.layers]
    for n in range(2):
        for name in MODES:
            cosine, ratio = found[f"layers.{n}", name]
            a, b = flat[name][n], flat["ideal"][n]
            torch.testing.assert_close(cosine, functional.cosine_similarity(a, b, 0))
            torch.testing.assert_close(ratio, a.norm() / b.norm())
    assert float(found["layers.0", "in_silico"][0]) < 0.999 and float(found["layers.0", "pat"][0]) < 0.9999


def test_seeds_are_kept_apart() -> None:
    network, devices = small(physics_aware, lead=(3,), gap=0.4)
    stacked = [(x.expand(3, 6, 5), y) for x, y in batches(1)]
    found = gradient_alignment(network, devices, stacked, lead=1)
    for a in found:
        assert a.cosine.shape == a.ratio.shape == (3,)
        assert a.mode != "pat" or len(a.cosine.unique()) == 3
        assert a.mode != "ideal" or a.cosine.numpy() == pytest.approx([1] * 3)


def test_alignment_leaves_network_and_devices_as_they_were() -> None:
    network, devices = small(in_silico, gap=0.4, output_noise=0.1, drift=0.1)
    x, target = batches(1)[0]
    functional.cross_entropy(network(x), target).backward()
    modes = [m.mode for m in network.modules() if isinstance(m, PhysicalLayer)]
    weights, gradients = (
        [t.clone() for t in row] for row in zip(*((p, p.grad) for p in network.parameters()), strict=True)
    )
    states = [copy.deepcopy(device.state_dict()) for device in devices]
    logits = network(x)
    gradient_alignment(network, devices, batches())
    assert [m.mode for m in network.modules() if isinstance(m, PhysicalLayer)] == modes
    assert all(torch.equal(p, w) for p, w in zip(network.parameters(), weights, strict=True))
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))  # type: ignore[arg-type]
    for device, state in zip(devices, states, strict=True):
        now = device.state_dict()
        assert torch.equal(now.pop("generator"), state.pop("generator")) and now == state
    assert torch.equal(network(x), logits)


def test_alignment_refuses_a_device_that_can_only_be_measured() -> None:
    network, devices = small(physics_aware)
    layer = network.layers[1]
    assert isinstance(layer, PhysicalLayer)
    layer.device = Bench(lambda x, *theta: x[..., :3])
    with pytest.raises(ValueError, match="training=ideal needs a simulated device"):
        gradient_alignment(network, devices, batches(1))
    assert all(layer.mode is physics_aware for layer in network.layers)
    assert [d.ledger.calls for d in devices] == [0, 0]


# ---- layers and wiring -----------------------------------------------------------------------------------------------


class Bounded(Masked):
    input_range = (-1.0, 1.0)


def test_inputs_out_of_range_are_clamped_straight_through_and_penalised() -> None:
    laboratory = Laboratory(Bounded, partial(lab), nominal, physics_aware)
    layer = laboratory.layer(3, 3)
    x = torch.tensor([[-2.0, 0.3, 4.0]], requires_grad=True)
    y = layer(x, "device")
    assert torch.equal(y, x.detach().clamp(-1, 1) * layer.mask + layer.offset)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(gradient, layer.mask.detach()[None])  # the clamp is not in it
    assert layer.penalty is not None and layer.penalty.item() == pytest.approx((1 + 3) / 3, abs=1e-3)
    (pull,) = torch.autograd.grad(layer.penalty, x)
    assert pull[0, 0] < 0 < pull[0, 2] and abs(pull[0, 1]) < 1e-5  # descending it leads back into the range


def test_every_layer_has_a_device_of_its_own_and_its_routes() -> None:
    network, devices = small(physics_aware, gap=0.4, lead=(2,))
    assert len(devices) == 2 and not torch.equal(devices[0].system.onsite[:5], devices[1].system.onsite[:5])
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    measured, modelled, trained = (network(x, via) for via in ("device", "model", "train"))
    assert measured.shape == (2, 4, 3) and torch.equal(measured, trained) and not torch.equal(measured, modelled)
    names = {name for name, p in network.named_parameters() if p.requires_grad}
    assert names == {"scale", *(f"layers.{n}.{p}" for n in (0, 1) for p in ("coupling", "drive"))}


def test_patches_share_one_network() -> None:
    task = SimpleNamespace(features=24, classes=2, image_shape=(4, 6))
    torch.manual_seed(0)
    mixer = Mixer(Laboratory(Identity, partial(lab), nominal, physics_aware), task, patch=2, width=4)
    x = torch.arange(24.0).reshape(1, 24)
    image = x.reshape(4, 6)
    expected = [image[r : r + 2, c : c + 2].flatten() for r in (0, 2) for c in (0, 2, 4)]
    assert torch.equal(mixer.patches(x)[0], torch.stack(expected))
    assert (
        mixer(x).shape == (1, 2) and mixer.shared.device.ledger.samples == 6 and mixer.last.device.ledger.samples == 1
    )


def test_weight_decay_is_apart_from_the_gradient() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    start = network.weight.detach().clone()
    optimiser, _ = Adam(lr=0.1, weight_decay=0.5).build(network, steps=1)
    network(torch.zeros(1, 3)).sum().backward()  # no gradient at the weights
    optimiser.step()
    torch.testing.assert_close(network.weight.detach(), start * (1 - 0.1 * 0.5))
