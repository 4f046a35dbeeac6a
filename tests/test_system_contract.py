"""What every physical system owes: a new file in conf/system inherits these tests."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from pnn.build import physics
from pnn.devices import lab
from pnn.gradients import physics_aware
from pnn.layers import Laboratory
from pnn.plugins import conf_folders
from pnn.systems import Identity, System, stack
from pnn.twins import nominal

CONF = Path(__file__).parents[1] / "conf"
FILES = [file for conf in (CONF, *conf_folders(CONF)) for file in sorted((conf / "system").glob("*.yaml"))]
Build = Callable[[int, int], System]


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def build(request: pytest.FixtureRequest) -> Build:
    """(inputs, outputs) → a system as its file says."""
    return physics(OmegaConf.to_container(OmegaConf.load(request.param)))["system"]


@pytest.fixture(params=[(4, 4), (5, 3), (3, 6)], ids=lambda size: f"{size[0]}-{size[1]}")
def system(build: Build, request: pytest.FixtureRequest) -> System:
    return build(*request.param)


def driven(system: System, *batch: int, lead: tuple[int, ...] = (), seed: int = 0) -> tuple[Tensor, ...]:
    """An allowed input and initial parameters, in the system's dtype."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (
        edge if math.isfinite(edge) else default for edge, default in zip(system.input_range, (-1, 1), strict=True)
    )
    x = low + (high - low) * torch.rand(*lead, *batch, system.input_size, generator=generator)
    theta = (spec.sample(lead, generator) for spec in system.parameters_spec)
    dtype = next((b.dtype for b in system.buffers()), torch.float32)
    return tuple(t.to(dtype) for t in (x, *theta))


def twin(system: System, gap: float = 0.3, seed: int = 0) -> System:
    return system.perturbed(gap, torch.Generator().manual_seed(seed))


def test_there_is_a_file() -> None:
    assert FILES


def test_sizes_are_natural_numbers_and_deterministic(build: Build) -> None:
    one, same = build(5, 3), build(5, 3)
    assert one.input_size >= 1 and one.output_size >= 1
    assert (one.input_size, one.output_size) == (same.input_size, same.output_size)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_encoder_and_read_out_adapt_any_sizes(file: Path, lead: tuple[int, ...]) -> None:
    """A layer of 7 features read out on 3 numbers, and one that passes its whole recording on."""
    parts = physics(OmegaConf.to_container(OmegaConf.load(file)))
    laboratory = Laboratory(**parts, device=lab, model=nominal, mode=physics_aware)
    x = torch.rand(*lead, 5, 7)
    for outputs in (3, None):
        layer = laboratory.layer(7, outputs, lead)
        y = layer(x)
        assert y.shape == (*lead, 5, layer.output_size) and layer.output_size == (outputs or y.shape[-1])
        y.square().sum().backward()
        trained = list(layer.parameters())
        assert trained and all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


def test_the_linear_reference_is_linear(system: System) -> None:
    linear = system.linearised().double()
    x, *theta = driven(linear, 3)
    a, b, middle = (linear(v, *theta) for v in (x[:1], x[1:2], 0.5 * (x[:1] + x[1:2])))
    torch.testing.assert_close(middle, 0.5 * (a + b), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("batch", [(), (1,), (4,), (3, 2)], ids=str)
def test_shapes(system: System, lead: tuple[int, ...], batch: tuple[int, ...]) -> None:
    y = system(*driven(system, *batch, lead=lead))
    assert y.shape == (*lead, *batch, system.output_size)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_samples_do_not_see_each_other(system: System, lead: tuple[int, ...]) -> None:
    x, *theta = driven(system.double(), 5, lead=lead)
    whole = system(x, *theta)
    for n in range(5):
        torch.testing.assert_close(
            system(x[..., n : n + 1, :], *theta), whole[..., n : n + 1, :], rtol=1e-12, atol=1e-13
        )
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(system(x, *theta)[..., 2, :].sum(), x)
    assert gradient[..., [0, 1, 3, 4], :].abs().max() == 0 and gradient[..., 2, :].abs().max() > 0


@pytest.mark.parametrize("batch", [(), (4,), (3, 2)], ids=str)
def test_leading_dimensions_are_independent_copies(system: System, batch: tuple[int, ...]) -> None:
    inputs = driven(system.double(), *batch, lead=(3,))
    one_by_one = torch.stack([system(*(t[n] for t in inputs)) for n in range(3)])
    torch.testing.assert_close(system(*inputs), one_by_one, rtol=1e-12, atol=1e-13)


def test_stacked_systems_are_the_systems_one_by_one(system: System) -> None:
    systems = [twin(system, seed=seed).double() for seed in range(3)]
    inputs = driven(systems[0], 4, lead=(3,))
    one_by_one = torch.stack([one(*(t[n] for t in inputs)) for n, one in enumerate(systems)])
    torch.testing.assert_close(stack(systems)(*inputs), one_by_one, rtol=1e-12, atol=1e-13)


def test_dtype_follows_the_system(system: System) -> None:
    single = system(*driven(system, 4))
    inputs = driven(system, 4)
    double = system.double()(*(t.double() for t in inputs))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert (single - double).norm() < 1e-5 * double.norm()


def test_the_same_input_gives_the_same_output_and_is_left_alone(system: System) -> None:
    inputs = driven(system, 4)
    before = [t.clone() for t in inputs]
    state = copy.deepcopy(system.state_dict())
    torch.manual_seed(0)
    first = system(*inputs)
    torch.manual_seed(1)
    assert torch.equal(first, system(*inputs))
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
    assert all(torch.equal(state[name], value) for name, value in system.state_dict().items())


@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_gradients_are_finite_differences(system: System, gap: float, lead: tuple[int, ...]) -> None:
    own = twin(system, gap).double()
    assert torch.autograd.gradcheck(own, tuple(t.requires_grad_() for t in driven(own, 2, lead=lead)))


def test_every_parameter_matters(system: System) -> None:
    inputs = [t.requires_grad_() for t in driven(system.double(), 4)]
    for gradient in torch.autograd.grad(system(*inputs).square().sum(), inputs):
        assert gradient.abs().max() > 0


def test_no_trainable_weights_of_its_own(system: System) -> None:
    assert not list(system.parameters())
    assert set(dict(system.named_buffers())) >= set(system.constants)


def test_parameters_are_drawn_within_their_ranges(system: System) -> None:
    specs = system.parameters_spec
    assert len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        assert spec.unit and spec.initial > 0
        assert spec.low <= spec.centre - spec.initial and spec.centre + spec.initial <= spec.high
        for lead in ((), (50,), (2, 3)):
            value = spec.sample(lead, torch.Generator().manual_seed(0))
            assert value.shape == (*lead, *spec.shape) and value.dtype == torch.float32
            assert ((value - spec.centre).abs() <= spec.initial * (1 + 1e-6)).all()
            assert torch.equal(value, spec.sample(lead, torch.Generator().manual_seed(0)))
        many = spec.sample((2000,), torch.Generator().manual_seed(1)) - spec.centre
        assert many.std() == pytest.approx(spec.initial / math.sqrt(3), rel=0.05)
        assert many.mean() == pytest.approx(0, abs=0.05 * spec.initial)


def test_a_gap_of_zero_is_the_nominal_system(system: System) -> None:
    inputs = driven(system, 4)
    assert torch.equal(twin(system, 0.0)(*inputs), system(*inputs))


def test_a_seed_names_a_device(system: System) -> None:
    inputs = driven(system, 4)
    before = copy.deepcopy(system.state_dict())
    one, same, other = twin(system, seed=1), twin(system, seed=1), twin(system, seed=2)
    assert torch.equal(one(*inputs), same(*inputs))
    assert not torch.equal(one(*inputs), other(*inputs)) and not torch.equal(one(*inputs), system(*inputs))
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


@pytest.mark.parametrize("gap", [0.1, 0.99])
def test_constants_move_by_at_most_the_gap(system: System, gap: float) -> None:
    assert any(rule.perturbed for rule in system.constants.values())
    own = [twin(system, gap, seed) for seed in range(40)]
    for name, rule in system.constants.items():
        nominal = getattr(system, name)
        if not rule.perturbed:
            assert all(torch.equal(getattr(one, name), nominal) for one in own)
            continue
        change = torch.stack([getattr(one, name) / nominal - 1 for one in own])
        assert change.shape[1:] == rule.shape
        assert change.abs().max() <= gap * (1 + 1e-5) and change.abs().max() > 0.7 * gap  # spread over ± gap
        assert change.min() < -0.5 * gap and change.max() > 0.5 * gap
        if rule.symmetric:
            assert torch.equal(change, change.mT)


@pytest.mark.parametrize("gap", [-0.1, 1.0, 1.5, math.nan, math.inf])
def test_a_gap_that_cannot_be_is_refused(system: System, gap: float) -> None:
    with pytest.raises(ValueError, match=r"gap=.* must be in \[0, 1\)"):
        twin(system, gap)


def test_copies_and_saved_constants_give_the_same_outputs(system: System) -> None:
    own, other = twin(system, seed=1), twin(system, seed=2)
    inputs = driven(own, 4)
    y = own(*inputs)
    assert torch.equal(copy.deepcopy(own)(*inputs), y)
    file = io.BytesIO()
    torch.save(own.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(*inputs), y)


def test_the_converged_copy_is_the_same_physics(system: System) -> None:
    own = twin(system).double()
    inputs = driven(own, 8)
    converged = own.converged()
    y, truth = own(*inputs), converged(*inputs)
    assert (y - truth).norm() < 0.05 * truth.norm()
    assert torch.equal(own(*inputs), y)
    for name in own.constants:
        assert torch.equal(getattr(own, name), getattr(converged, name))


def test_timing_is_offered_where_it_means_something(system: System) -> None:
    x, *theta = driven(system.double(), 4)
    if not system.has_timing:
        with pytest.raises(TypeError, match="stretch"):
            system(x, *theta, stretch=torch.zeros(4, 1))
        return
    stretch = torch.zeros(4, 1, dtype=torch.float64)
    y = system(x, *theta)
    torch.testing.assert_close(system(x, *theta, stretch=stretch), y, rtol=1e-13, atol=1e-14)
    stretch[1] = 0.1
    changed = (system(x, *theta, stretch=stretch) - y).abs().amax(-1)
    assert changed[1] > 1e-6 and changed[[0, 2, 3]].max() < 1e-12


def test_a_digital_computer_would_need_operations(system: System) -> None:
    assert isinstance(system.operations(), int)
    assert (system.operations() > 0) != isinstance(system, Identity)  # which computes nothing
