"""Digital twins recover what they can represent, tell noise from bias, and refuse what they cannot use."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pnn.calibrate import adopt
from pnn.devices import SimulatedDevice, lab
from pnn.errors import UserError
from pnn.systems import SHG, CoupledOscillators
from pnn.systems.system import Constant, ParameterSpec, System, per_sample
from pnn.twins import MLP, GreyBox, Linear, Measurements, Quadratic, Twin, from_file, judge, load, sample, save
from pnn.twins.card import jacobian_error, learning_curve, twin_card
from pnn.twins.closed_form import ridge
from pnn.twins.files import inputs_from_file
from pnn.twins.measurements import Measured, lowpass


class Toy(System):
    """y = M x + N b + ε (M x) ∘ (N b) + ½ ε (M x)² + s tanh(3 M x), b a trainable vector; k multiplies M row by row."""

    def __init__(self, inputs: int = 5, outputs: int = 4, product: float = 0.0, bend: float = 0.0, theta: int = 3):
        super().__init__()
        self.input_size, self.output_size, self.product, self.bend, self.theta = inputs, outputs, product, bend, theta
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("M", torch.randn(inputs, outputs, generator=generator) / math.sqrt(inputs))
        self.register_buffer("N", torch.randn(max(theta, 1), outputs, generator=generator))
        self.register_buffer("k", torch.ones(1))

    @property
    def parameters_spec(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec("b", (self.theta,), "1", initial=1.0, centre=0.5),) if self.theta else ()

    @property
    def constants(self) -> dict[str, Constant]:
        return {"k": Constant((self.output_size,))}

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        h = per_sample(self.k, x) * (x @ self.M)  # type: ignore[operator]
        n = per_sample(theta[0] @ self.N, h) if theta else torch.zeros_like(h)  # type: ignore[operator]
        return h + n + self.product * (h * n + h * h / 2) + self.bend * torch.tanh(3 * h)


class Exact:
    """A device that is the system itself, in its own precision, with independent noise on every measurement."""

    def __init__(self, system: System, noise: float = 0.0, seed: int = 0):
        self.system, self.noise, self.calls = system, noise, 0
        self.generator = torch.Generator().manual_seed(seed)

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        self.calls += 1
        y = self.system(x, *theta)
        return y + self.noise * torch.randn(y.shape, generator=self.generator).to(y)


def double(data: Measurements, system: System) -> Measurements:
    """The same inputs in float64, measured exactly."""
    x, theta = data.x.double(), tuple(t.double() for t in data.theta)
    return Measurements(x, theta, system.double()(x, *theta))


def small(system: System) -> dict[str, Callable[[], Twin]]:
    return {
        "linear": lambda: Linear(system),
        "quadratic": lambda: Quadratic(system),
        "mlp": lambda: MLP(system, widths=(16, 16), epochs=2, noise=True, rank=2),
        "mlp of roots": lambda: MLP(system, widths=(16, 16), epochs=2, root=True, noise=True, rank=2),
        "grey_box": lambda: GreyBox(system, records=32),
    }


KINDS = tuple(small(Toy()))


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy(bend=0.5)


@pytest.fixture(scope="module")
def data(toy: Toy) -> Measurements:
    return sample(Exact(toy, noise=0.05), toy, 400, seed=1)


@pytest.fixture(params=KINDS)
def fitted(request: pytest.FixtureRequest, toy: Toy, data: Measurements) -> Twin:
    return small(toy)[request.param]().fit(data, progress=False)


def drawn(system: System, *batch: int, lead: tuple[int, ...] = (), seed: int = 3) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(*lead, *batch, system.input_size, generator=generator) - 1
    return (x, *(spec.sample(lead, generator) for spec in system.parameters_spec))


# --- what a twin can represent, it finds ---


@pytest.mark.parametrize("theta", [0, 3])
def test_linear_recovers_a_linear_device_to_round_off(theta: int) -> None:
    system = Toy(theta=theta)
    rows = double(sample(Exact(system), system, 60, repeats=1), system)
    twin = Linear(system).fit(rows)
    fresh = double(sample(Exact(system.float()), system, 50, repeats=1, seed=9), system)
    torch.testing.assert_close(twin(fresh.x, *fresh.theta), fresh.y, rtol=1e-9, atol=1e-9)
    assert judge(twin, fresh)["error"] < 1e-9
    fresh.y[:, 0] *= 1.01
    assert judge(twin, fresh)["error"] > 1e-3


@pytest.mark.parametrize("theta", [0, 3])
def test_quadratic_recovers_a_quadratic_device_to_round_off_and_linear_does_not(theta: int) -> None:
    system = Toy(theta=theta, product=0.7)
    rows = double(sample(Exact(system), system, 200, repeats=1), system)
    fresh = double(sample(Exact(system.float()), system, 50, repeats=1, seed=9), system)
    twin = Quadratic(system).fit(rows)
    assert twin.complete
    assert judge(twin, fresh)["error"] < 1e-8
    assert judge(Linear(system).fit(rows), fresh)["error"] > 0.05


def test_quadratic_of_few_components_has_products_of_the_leading_ones() -> None:
    """Inputs on a plane (plus a little): three products of its two directions are the whole quadratic."""
    system = Toy(inputs=30, theta=0, product=0.7)
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(2, 30, generator=generator)
    x = torch.randn(300, 2, generator=generator) @ plane
    rows = Measurements(x, (), system(x))
    twin = Quadratic(system, pairs=3).fit(rows)
    assert (twin.components, twin.complete, len(twin.products)) == (2, False, 3)
    assert judge(twin, rows)["error"] < 1e-4 < 0.05 < judge(Linear(system).fit(rows), rows)["error"]


def test_useless_products_vanish() -> None:
    """As many products as rows, on a linear device with noise: no worse than the linear fit."""
    system = Toy(inputs=20, theta=0)
    train, test = sample(Exact(system, 0.1), system, 260).split(0.2, 0)
    quadratic, linear = (judge(kind(system).fit(train), test)["bias"] for kind in (Quadratic, Linear))
    assert quadratic < linear + 0.02


def test_ridge_is_the_least_squares_solution_without_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    for n, p in ((50, 8), (8, 50)):
        A, W = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((n, p), (p, 3)))
        A, B = A - A.mean(0), (A - A.mean(0)) @ W
        truth = np.linalg.lstsq(A.numpy(), B.numpy(), rcond=None)[0]  # of least norm where there are many
        np.testing.assert_allclose(ridge(A, B).numpy(), truth, atol=1e-7)


def test_ridge_shrinks_what_noise_cannot_support() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(52, 50, generator=generator, dtype=torch.float64)
    W = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    B = A @ W + 5 * torch.randn(52, 3, generator=generator, dtype=torch.float64)
    plain = torch.linalg.lstsq(A, B).solution
    assert (ridge(A, B) - W).norm() < 0.3 * (plain - W).norm()


def test_mlp_beats_linear_where_the_device_bends() -> None:
    system = Toy(bend=1.0)
    train, test = sample(Exact(system), system, 2200, repeats=1).split(0.1, 0)
    linear = judge(Linear(system).fit(train), test)["error"]
    mlp = MLP(system, widths=(64,), epochs=60, lr=2e-2).fit(train, progress=False)
    assert judge(mlp, test)["error"] < 0.3 * linear
    (x, b, measured), base = (test.x, test.theta[0], test.y), mlp.bypass
    predicted, left = mlp(x, b) - base(x, b), measured - base(x, b)
    assert float((predicted * left).sum() / predicted.square().sum()) == pytest.approx(1, abs=0.03)
    alone = MLP(system, widths=(64,), epochs=50, lr=2e-2, bypass=False).fit(train, progress=False)
    assert judge(alone, test)["error"] < 0.9 * linear


def test_a_twin_of_roots_meets_weak_spectra() -> None:
    """Second-harmonic powers grow as the fourth power of the drive; a perceptron of powers sees only the bright ones."""
    system = SHG(1, 1, bins=12, output_bins=6, grid=64, device_grid=64)
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(3000, 12, generator=generator) * (0.2 + 0.8 * torch.rand(3000, 1, generator=generator))
    train, test = Measurements(x, (), system(x)).split(0.2, 0)
    weak = test.rows(test.y.sum(1) < test.y.sum(1).quantile(0.25))
    plain, roots = (
        MLP(system, widths=(64, 64), epochs=30, lr=1e-2, root=root).fit(train, progress=False) for root in (False, True)
    )
    assert judge(roots, weak)["error"] < 0.4 * judge(plain, weak)["error"]
    assert judge(roots, test)["error"] < judge(plain, test)["error"]


def test_a_twin_of_roots_predicts_signed_outputs_and_their_noise() -> None:
    system = Toy(bend=0.5, theta=0)
    data = sample(Exact(system, noise=0.05), system, 3000, seed=1)
    twin = MLP(system, widths=(64,), epochs=20, lr=1e-2, root=True, noise=True).fit(data, progress=False)
    fresh = sample(Exact(system, noise=0.05), system, 1000, repeats=1, seed=2)
    assert (fresh.y < 0).any()
    predicted = twin.distribution(fresh.x, *fresh.theta)  # of y, not of its root
    left = fresh.y - predicted.mean
    assert left.norm() < 0.25 * fresh.y.norm()
    assert float((left.square() / predicted.variance).mean()) == pytest.approx(1, abs=0.3)


def test_mlp_is_its_bypass_where_there_is_nothing_more_to_learn() -> None:
    """On a linear device with noise no epoch improves on the linear fit, so epoch 0 is kept."""
    system = Toy()
    data = sample(Exact(system, noise=0.3), system, 80)
    mlp = MLP(system, widths=(64, 64), epochs=3, lr=0.3).fit(data, progress=False)
    x, b = drawn(system, 6)
    assert torch.equal(mlp(x, b), mlp.bypass(x, b))


def test_grey_box_recovers_perturbed_constants() -> None:
    system = Toy(bend=0.5)
    device = system.perturbed(0.3, torch.Generator().manual_seed(4))
    twin = GreyBox(system).fit(sample(Exact(device), system, 100, repeats=2))
    torch.testing.assert_close(twin.system.k, device.k, rtol=1e-4, atol=0)
    assert torch.equal(system.k, torch.ones(1))


def test_grey_box_recovers_oscillators_that_can_be_told_apart() -> None:
    """κ, α and the couplings' gains, one factor per pair; the device's output follows to far below its reality gap."""
    system = CoupledOscillators(3, 3, duration=2.0)
    device = system.perturbed(0.3, torch.Generator().manual_seed(4))
    train, test = sample(Exact(device), system, 300, repeats=2).split(0.1, 0)
    twin = GreyBox(system, records=200).fit(train)
    assert sum(twin.sizes.values()) == 3 + 3 + 6 + 3
    assert torch.equal(twin.system.coupling_gain, twin.system.coupling_gain.mT)
    torch.testing.assert_close(twin.system.drive_gain, device.drive_gain, rtol=1e-2, atol=0)
    assert judge(twin, test)["error"] < 2e-3 < 0.05 < judge(system, test)["error"]


def test_grey_box_leaves_what_it_cannot_see_nominal_and_zeros_zero() -> None:
    class Blind(Toy):
        @property
        def constants(self) -> dict[str, Constant]:
            return {**super().constants, "unseen": Constant((2,)), "stray": Constant((1,))}

    system = Blind()
    system.register_buffer("unseen", torch.full((1,), 3.0))
    system.register_buffer("stray", torch.zeros(1))
    twin = GreyBox(system).fit(sample(Exact(system.perturbed(0.2, torch.Generator().manual_seed(0))), system, 80))
    assert torch.equal(twin.system.unseen, torch.full((2,), 3.0))
    assert torch.equal(twin.system.stray, torch.zeros(1))
    assert "stray" not in twin.rules


# --- what every twin owes ---


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("batch", [(), (1,), (4,), (3, 2)], ids=str)
def test_leading_and_batch_dimensions(fitted: Twin, toy: Toy, lead: tuple[int, ...], batch: tuple[int, ...]) -> None:
    x, b = drawn(toy, *batch, lead=lead)
    y = fitted(x, b)
    assert y.shape == (*lead, *batch, toy.output_size)
    flat_b = b.reshape(*lead, *(1,) * len(batch), 3).expand(*lead, *batch, 3).reshape(-1, 3)
    one_by_one = torch.stack([fitted(row, own) for row, own in zip(x.reshape(-1, 5), flat_b, strict=True)])
    torch.testing.assert_close(y.reshape(-1, toy.output_size), one_by_one, rtol=1e-5, atol=1e-5)


def test_gradients_of_x_and_theta_are_finite_differences(fitted: Twin, toy: Toy) -> None:
    twin = copy.deepcopy(fitted)
    inputs = tuple(t.double().requires_grad_() for t in drawn(toy, 2, lead=(2,)))
    assert torch.autograd.gradcheck(twin, inputs)
    for gradient in torch.autograd.grad(twin(*inputs).square().sum(), inputs):
        assert gradient.abs().max() > 1e-3


def test_a_twin_has_no_trainable_parameters_and_follows_the_precision(fitted: Twin, toy: Toy) -> None:
    assert not list(fitted.parameters())
    x, b = drawn(toy, 4)
    single = fitted(x, b)
    both = fitted(x.double(), b.double())
    assert (single.dtype, both.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(both.float(), single, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        cast = fitted(x.bfloat16(), b)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(fitted(x, b), single, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_names_a_fit_and_leaves_the_global_generator_alone(kind: str, toy: Toy, data: Measurements) -> None:
    before = torch.get_rng_state()
    one, same = (small(toy)[kind]().fit(data, seed=7, progress=False) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_unfitted_is_refused_and_the_state_carries_the_fit(
    kind: str, toy: Toy, fitted: Twin, data: Measurements
) -> None:
    fresh = small(toy)[kind]()
    assert not fresh.fitted
    with pytest.raises(UserError, match="is not fitted; call fit"):
        fresh(*drawn(toy, 2))
    if (type(fresh), fresh.options) == (type(fitted), fitted.options):
        fresh.load_state_dict(fitted.state_dict())
        assert fresh.fitted
        assert torch.equal(fresh(*drawn(toy, 4)), fitted(*drawn(toy, 4)))


@pytest.mark.parametrize("root", [True, False])
def test_a_plain_fit_is_never_taken_for_one_of_roots(root: bool, toy: Toy, data: Measurements, tmp_path: Path) -> None:
    fitted, other = (MLP(toy, widths=(8,), epochs=1, root=r) for r in (root, not root))
    save(fitted.fit(data, progress=False), tmp_path / "twin.pt", {})
    bench = SimpleNamespace(model=other, system=toy, device=None)
    with pytest.raises(UserError, match=rf"'root': {root}.* and model says .*'root': {not root}.*repeat those options"):
        adopt([bench], str(tmp_path / "twin.pt"))


def test_a_saved_twin_is_the_same_twin(fitted: Twin, toy: Toy, tmp_path: Path) -> None:
    save(fitted, tmp_path / "twin.pt", {"seed": 4})
    stored = torch.load(tmp_path / "twin.pt", weights_only=True)
    assert stored["pnn_twin"]["seed"] == 4 and stored["pnn_twin"]["options"] == fitted.options
    again = load(tmp_path / "twin.pt", Toy(bend=0.5))
    assert type(again) is type(fitted) and again.fitted
    assert torch.equal(again(*drawn(toy, 4)), fitted(*drawn(toy, 4)))


def test_a_twin_of_another_device_is_refused(toy: Toy, data: Measurements, tmp_path: Path) -> None:
    class Other(Toy):
        pass

    twin = Linear(toy).fit(data)
    save(twin, tmp_path / "twin.pt", {})
    with pytest.raises(UserError, match=r"with 5 inputs, 4 outputs and 3 parameters, and this Toy has 6, 4 and 3"):
        load(tmp_path / "twin.pt", Toy(inputs=6))
    with pytest.raises(UserError, match="is of Toy, and this system is Other"):
        load(tmp_path / "twin.pt", Other())
    with pytest.raises(UserError, match=r"twin=missing.pt does not exist"):
        load("missing.pt", toy)
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="was not written by pnn-twin"):
        load(tmp_path / "other.pt", toy)
    (tmp_path / "bad.pt").write_bytes((tmp_path / "twin.pt").read_bytes()[:300])
    with pytest.raises(UserError, match="cannot be read as a twin"):
        load(tmp_path / "bad.pt", toy)
    with pytest.raises(UserError, match="is not fitted and cannot be saved"):
        save(Linear(toy), tmp_path / "no.pt", {})
    assert not (tmp_path / "no.pt").exists()


def test_a_twin_of_measurements_from_a_file_serves_any_system_of_its_sizes(toy: Toy, data: Measurements) -> None:
    system = Measured(data)
    twin = Linear(system).fit(data)
    save(twin, "twin.pt", {})
    x, b = drawn(toy, 4)
    assert torch.equal(load("twin.pt", toy)(x, b), twin(x, b))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: MLP(s, widths=()), r"model.widths=\[\] must be one or more"),
        (lambda s: MLP(s, widths=(0,)), r"model.widths=\[0\] must be"),
        (lambda s: MLP(s, epochs=0), "model.epochs=0 must be >= 1; use 60"),
        (lambda s: MLP(s, batch_size=0), "model.batch_size=0 must be >= 1"),
        (lambda s: MLP(s, rank=0), "model.rank=0 must be >= 1"),
        (lambda s: MLP(s, lr=0.0), "model.lr=0.0 must be > 0"),
        (lambda s: MLP(s, lr=math.nan), "model.lr=nan must be > 0"),
        (lambda s: Quadratic(s, pairs=0), "model.pairs=0 must be >= 1"),
        (lambda s: GreyBox(s, records=0), "model.records=0 must be >= 1"),
        (lambda s: GreyBox(CoupledOscillators(40, 40)), "fits 1 to 600 constants.* has 940; use model=mlp"),
        (lambda s: GreyBox(Measured(Measurements(torch.rand(3, 2), (), torch.rand(3, 2)))), "has 0; use model=mlp"),
    ],
    ids=lambda value: str(value) if not callable(value) else "",
)
def test_options_that_cannot_be_are_refused(make: Callable[[System], Twin], message: str, toy: Toy) -> None:
    with pytest.raises(UserError, match=message):
        make(toy)


def test_measurements_of_another_device_are_refused(toy: Toy, data: Measurements) -> None:
    with pytest.raises(UserError, match="with 6 inputs and 4 outputs, and the measurements have 5 and 4"):
        Linear(Toy(inputs=6)).fit(data)
    with pytest.raises(UserError, match=r"takes parameters \{'b': \(2,\)\}, and .* θ of shapes \[\(3,\)\]"):
        Linear(Toy(theta=2)).fit(data)
    with pytest.raises(UserError, match="1 measurements; use at least 2"):
        Linear(toy).fit(data.rows(slice(0, 1)))
    with pytest.raises(UserError, match="6001 features .* exceeds the limit of 6000"):
        ridge(torch.zeros(1, 1).expand(7000, 6001), torch.zeros(7000, 1))


# --- noise ---


@pytest.fixture(scope="module")
def correlated() -> tuple[MLP, Tensor]:
    """A twin of a linear device whose noise is F ξ + √d ζ, and the covariance F Fᵀ + diag d."""
    system = Toy(outputs=4, theta=0)
    generator = torch.Generator().manual_seed(0)
    F = 0.2 * torch.randn(4, 2, generator=generator)
    d = torch.tensor([0.01, 0.02, 0.005, 0.01])
    x = 2 * torch.rand(4000, 5, generator=generator) - 1
    y, y2 = (
        system(x)
        + torch.randn(4000, 2, generator=generator) @ F.mT
        + d.sqrt() * torch.randn(4000, 4, generator=generator)
        for _ in range(2)
    )
    twin = MLP(system, widths=(8,), epochs=1, noise=True, rank=2).fit(Measurements(x, (), y, y2), progress=False)
    return twin, F @ F.mT + d.diag()


def test_the_noise_model_recovers_a_low_rank_covariance(correlated: tuple[MLP, Tensor]) -> None:
    twin, truth = correlated
    found = twin.distribution(torch.zeros(5)).covariance_matrix
    assert (found - truth).norm() < 0.1 * truth.norm()
    assert (found - truth.diagonal().diag()).norm() > 0.3 * truth.norm()  # a diagonal would not pass
    x = 2 * torch.rand(50, 5, generator=torch.Generator().manual_seed(1)) - 1
    torch.testing.assert_close(twin.distribution(x).mean, twin(x))


def test_the_noise_model_follows_the_input() -> None:
    """Noise of standard deviation 0.05 exp(x₀)."""
    system = Toy(theta=0)
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(4000, 5, generator=generator) - 1
    spread = 0.05 * x[:, :1].exp()
    y = system(x) + spread * torch.randn(4000, 4, generator=generator)
    twin = MLP(system, widths=(8,), epochs=1, noise=True, rank=1).fit(Measurements(x, (), y), progress=False)
    probe = torch.tensor([[-0.7, 0, 0, 0, 0], [0.7, 0, 0, 0, 0]])
    quiet, loud = twin.distribution(probe).variance.mean(1).sqrt()
    assert float(quiet) == pytest.approx(0.05 * math.exp(-0.7), rel=0.1)
    assert float(loud) == pytest.approx(0.05 * math.exp(0.7), rel=0.1)


def test_sampling_draws_from_the_noise_model(correlated: tuple[MLP, Tensor]) -> None:
    twin, truth = copy.deepcopy(correlated[0]), correlated[1]
    x = torch.zeros(20000, 5)
    assert torch.equal(twin(x), twin(x))
    twin.sampling = True
    state = copy.deepcopy(twin.state_dict())
    first, second = twin(x), twin(x)
    assert not torch.equal(first, second)
    covariance = torch.cov((first - twin.mean(x)).mT)
    own = twin.distribution(x[0]).covariance_matrix
    assert (covariance - truth).norm() < 0.12 * truth.norm()
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance), torch.linalg.eigvalsh(own), rtol=0.05, atol=0)
    twin.load_state_dict(state)  # a resumed run draws the same numbers
    assert torch.equal(twin(x), first)
    x = torch.zeros(3, 2, 5, requires_grad=True)
    twin(x).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0


def test_processes_of_a_run_draw_different_noise(
    correlated: tuple[MLP, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = copy.deepcopy(correlated[0])
    shape, start = (7, twin.output_size), twin.draws.clone()

    def drawn() -> Tensor:
        twin.draws.copy_(start)
        return twin._draw(shape)[0]

    alone = drawn()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    processes = []
    for rank in (0, 1, 2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        processes.append(drawn())
    assert torch.equal(processes[0], alone)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(processes, 2))


def test_sampling_needs_a_noise_model(toy: Toy, data: Measurements) -> None:
    twin = MLP(toy, widths=(4,), epochs=1).fit(data, progress=False)
    twin.sampling = True
    with pytest.raises(UserError, match="use model.noise=true"):
        twin(*drawn(toy, 2))


# --- measuring ---


def test_uniform_fills_the_range_and_repeats_are_measured_in_two_passes() -> None:
    system = Toy()
    system.input_range = (0.0, 3.0)
    device = Exact(system, noise=0.1)
    data = sample(device, system, 600, repeats=2, seed=1)
    assert data.x.min() >= 0 and data.x.max() <= 3 and data.x.mean() == pytest.approx(1.5, abs=0.05)
    assert data.x.std() == pytest.approx(3 / math.sqrt(12), rel=0.05)
    assert data.theta[0].min() >= -0.5 and data.theta[0].max() <= 1.5 and data.theta[0].std() > 0.5
    assert device.calls == 2 * math.ceil(600 / 256)
    assert data.y2 is not None and float((data.y - data.y2).std()) == pytest.approx(0.1 * math.sqrt(2), rel=0.1)
    torch.testing.assert_close(data.mean, (data.y + data.y2) / 2)
    assert sample(device, system, 10, repeats=1).y2 is None
    assert torch.equal(sample(device, system, 10, seed=4).x, sample(device, system, 10, seed=4).x)


def test_parameters_with_a_range_are_uniform_in_it() -> None:
    class Ranged(Toy):
        @property
        def parameters_spec(self) -> tuple[ParameterSpec, ...]:
            return (ParameterSpec("b", (3,), "1", initial=0.1, low=-2.0, high=4.0),)

    b = sample(Exact(Ranged()), Ranged(), 2000, repeats=1).theta[0]
    assert b.min() < -1.9 and b.max() > 3.9 and b.mean() == pytest.approx(1.0, abs=0.1)


def test_lowpass_inputs_are_smooth_and_keep_to_the_range() -> None:
    x = lowpass(500, 64, torch.Generator().manual_seed(0))
    assert x.abs().max() <= 1 and x.abs().amax(1).min() > 0
    roughness = (x[:, 1:] - x[:, :-1]).square().mean() / x.square().mean()
    assert roughness < 0.5  # white noise: 2
    assert x.mean(1).std() > 0.1  # a DC part, as images have; white noise: 0.07
    system = Toy(inputs=64)
    system.input_range = (0.0, 1.0)
    data = sample(Exact(system), system, 50, plan="lowpass")
    assert data.x.min() >= 0 and data.x.max() <= 1


def test_visited_inputs_are_rows_of_the_training_run(toy: Toy) -> None:
    visited = torch.arange(50.0).reshape(10, 5) / 50
    some = sample(Exact(toy), toy, 6, plan="visited", visited=visited)
    assert len({tuple(r.tolist()) for r in some.x}) == 6
    assert all((row == visited).all(1).any() for row in some.x)
    b = torch.arange(30.0).reshape(10, 3)
    both = sample(Exact(toy), toy, 40, plan="visited", visited=(visited, b))
    assert len(both.x) == len(both.y) == 10  # no row twice: what is held out must be new
    index = (both.x[:, 0] * 10).round().long()
    assert torch.equal(both.theta[0], b[index])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": "grid"}, "model.measure.plan=grid must be one of uniform, lowpass, visited"),
        ({"plan": "visited"}, "plan=visited needs the inputs of a training run"),
        ({"plan": "visited", "visited": torch.zeros(3, 2)}, r"shape \(3, 2\) and must have \(rows, 5\)"),
        ({"repeats": 3}, "model.measure.repeats=3 must be 1 or 2"),
        ({"count": 1}, "model.measure.samples=1 must be >= 2"),
        ({"count": 10**8}, "model.measure.samples=100000000 records .* use at most 62500000"),
    ],
    ids=lambda value: str(value) if not callable(value) else "",
)
def test_plans_that_cannot_be_are_refused(options: dict[str, Any], message: str, toy: Toy) -> None:
    device = Exact(toy)
    with pytest.raises(UserError, match=message):
        sample(device, toy, **{"count": 10, **options})
    assert device.calls == 0


# --- the card ---


def test_error_is_split_into_noise_and_bias() -> None:
    """A model that is off by a known amount, on a device of known noise."""
    system = Toy(theta=0)
    data = sample(Exact(system, noise=0.1), system, 20000, seed=2)
    signal = float((system(data.x) - system(data.x).mean(0)).square().mean())
    spread = math.sqrt(signal + 0.01)
    found = judge(lambda x: system(x) + 0.05, data)
    assert found["noise"] == pytest.approx(0.1 / spread, rel=0.02)
    assert found["bias"] == pytest.approx(0.05 / spread, rel=0.05)
    assert found["error"] == pytest.approx(math.sqrt(0.01 + 0.0025) / spread, rel=0.02)
    assert found["error"] ** 2 == pytest.approx(found["noise"] ** 2 + found["bias_squared"], rel=1e-6)
    assert found["r2"] == pytest.approx(1 - found["error"] ** 2)
    assert np.square(found["error_by_output"]).mean() == pytest.approx(found["error"] ** 2)
    exact = judge(system, data)
    assert abs(exact["bias_squared"]) < 4 * exact["bias_squared_error"] < 0.1 * exact["noise"] ** 2


def test_the_standard_error_of_the_bias_is_its_scatter() -> None:
    system = Toy(theta=0)
    found = [judge(system, sample(Exact(system, noise=0.1, seed=1000 + s), system, 100, seed=s)) for s in range(400)]
    scatter = np.std([f["bias_squared"] for f in found])
    assert np.mean([f["bias_squared_error"] for f in found]) == pytest.approx(scatter, rel=0.15)
    assert np.mean([f["bias_squared"] for f in found]) == pytest.approx(0, abs=4 * scatter / math.sqrt(400))


def test_without_repeats_the_floor_is_unknown(toy: Toy) -> None:
    found = judge(toy, sample(Exact(toy), toy, 50, repeats=1))
    assert found["noise"] is None and found["bias"] is None and found["error"] < 1e-6


@pytest.mark.parametrize("outputs", [4, 100])
def test_the_jacobian_error_is_a_known_one_and_leaves_the_device_alone(outputs: int) -> None:
    system = Toy(outputs=outputs, bend=0.5)
    device = SimulatedDevice(copy.deepcopy(system), input_noise=0.1, output_noise=0.1, relative_noise=0.1)
    data = sample(device, system, 40)
    before = device.state_dict()
    exact = jacobian_error(system, device, data, ["b"])
    assert exact["x"] < 1e-5 and exact["b"] < 1e-5 and exact["x_cosine"] == pytest.approx(1, abs=1e-6)
    scaled = jacobian_error(lambda x, b: 1.1 * system(x, b), device, data, ["b"])
    assert scaled["x"] == pytest.approx(0.1, rel=1e-3) and scaled["b_cosine"] == pytest.approx(1, abs=1e-6)
    after = device.state_dict()
    assert after["ledger"] == before["ledger"] and torch.equal(after["generator"], before["generator"])
    assert device.input_noise == device.output_noise == device.relative_noise == 0.1


def test_the_card_of_a_linear_twin_says_what_it_is_worth(toy: Toy) -> None:
    device = lab(CoupledOscillators(3, 3), gap=0.2, seed=1, output_noise=0.01)
    system = CoupledOscillators(3, 3)
    train, test = sample(device, system, 800).split(0.2, 0)
    twin = GreyBox(system).fit(train)
    linear = Linear(system).fit(train)
    curve = learning_curve(lambda: Linear(system), train, test)
    assert [point["measurements"] for point in curve] == [80, 160, 320]
    card = twin_card({"GreyBox": twin, "Linear": linear}, test, visited=test, device=device, names=list(twin.shapes))
    assert card["model"] == "GreyBox"
    fits = card["fits"]
    assert fits["GreyBox"]["visited"] == {k: v for k, v in fits["GreyBox"].items() if k not in ("visited", "jacobian")}
    assert fits["GreyBox"]["jacobian"]["x"] < 0.03 < fits["Linear"]["jacobian"]["x"]
    assert card["verdict"] == [card["verdict"][0]] and card["verdict"][0].startswith("GreyBox is better than Linear")
    worse = twin_card({"Linear": linear, "GreyBox": twin}, test)
    assert (
        worse["verdict"][0].startswith("Linear is worse than GreyBox") and worse["fits"]["Linear"]["jacobian"] is None
    )
    equal = twin_card({"Linear": linear, "Quadratic": linear}, test)
    assert equal["verdict"][0].startswith("Linear is no better than Quadratic")


# --- files ---


def table(n: int = 24) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x, theta = random.random((n, 2)), random.random((n, 3))
    return {"x": x, "theta": theta, "y": np.c_[x.sum(1), theta.sum(1)], "y2": np.c_[x.sum(1), theta.sum(1)] + 0.01}


def write_csv(path: Path, arrays: dict[str, np.ndarray], edit: Callable[[list[list[str]]], Any] = len) -> Path:
    """A CSV file of `arrays`; `edit` changes its cells, header first, before they are written."""
    prefix = {"x": "x", "theta": "theta", "y": "y", "y2": "repeat"}
    header = [f"{prefix[name]}{k}" for name, array in arrays.items() for k in range(array.shape[1])]
    rows = [header, *([f"{v!r}" for v in row] for row in np.concatenate(list(arrays.values()), 1).tolist())]
    edit(rows)
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".h5"])
def test_every_format_gives_the_same_measurements(suffix: str, tmp_path: Path) -> None:
    arrays, path = table(), tmp_path / f"measurements{suffix}"
    if suffix == ".csv":
        write_csv(path, arrays, lambda rows: [row.reverse() for row in rows])  # any order of columns
    elif suffix == ".npz":
        np.savez(path, **arrays)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    data = from_file(path)
    assert data.y2 is not None and len(data) == 24 and data.x.dtype == torch.float32
    for found, name in ((data.x, "x"), (data.theta[0], "theta"), (data.y, "y"), (data.y2, "y2")):
        np.testing.assert_allclose(found.numpy(), arrays[name].astype(np.float32))
    (x, theta) = inputs_from_file(path)
    assert torch.equal(x, data.x) and torch.equal(theta, data.theta[0])


def test_inputs_alone_are_enough_for_visited_inputs(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", {"x": np.zeros((4, 2))})
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 2)))
    for name in ("x.csv", "x.npz"):
        (x,) = inputs_from_file(tmp_path / name)
        assert x.shape == (4, 2)
    with pytest.raises(UserError, match="visited=nowhere.csv does not exist"):
        inputs_from_file("nowhere.csv")


def put(row: int, column: str, value: str) -> Callable[[list[list[str]]], None]:
    def edit(rows: list[list[str]]) -> None:
        rows[row][rows[0].index(column)] = value

    return edit


def drop(column: str) -> Callable[[list[list[str]]], None]:
    def edit(rows: list[list[str]]) -> None:
        index = rows[0].index(column)
        for row in rows:
            del row[index]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop("x0"), "column x0 is missing"),
        (drop("theta1"), "column theta1 is missing"),
        (lambda rows: (drop("y0")(rows), drop("y1")(rows)), "column y0 is missing"),
        (put(0, "x1", "voltage"), "unknown column 'voltage'; columns are x0"),
        (put(0, "x1", "x0"), "column x0 is there twice"),
        (put(7, "y1", "nan"), "column y1 is nan in row 7"),
        (put(3, "theta2", "inf"), "column theta2 is inf in row 3"),
        (put(5, "x1", "abc"), "column x1 is 'abc' in row 5, and must be a number"),
        (put(9, "x1", ""), "column x1 is '' in row 9"),
        (lambda rows: rows[4].pop(), "row 4 has 8 cells, and the header has 9"),
        (lambda rows: [put(n, "x1", "2.5")(rows) for n in range(1, 25)], "column x1 never changes"),
        (lambda rows: rows.__delitem__(slice(15, None)), "has 14 rows; at least 20"),
        (lambda rows: rows.clear(), "column x0 is missing"),
        (drop("repeat1"), r"repeat0 has shape \(24, 1\), and y has \(24, 2\)"),
    ],
    ids=lambda value: str(value) if not callable(value) else "",
)
def test_a_bad_table_is_refused_by_name_and_row(edit: Callable, message: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bad.csv", table(), edit)
    with pytest.raises(UserError, match=message):
        from_file(path)


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bad.csv", table(), lambda rows: (put(7, "y1", "nan")(rows), put(3, "x0", "inf")(rows)))
    with pytest.raises(UserError) as caught:
        from_file(path)
    assert "x0 is inf in row 3" in str(caught.value) and "y1 is nan in row 7" in str(caught.value)
    many = write_csv(tmp_path / "many.csv", table(), lambda rows: [put(n, "y1", "nan")(rows) for n in range(1, 25)])
    with pytest.raises(UserError) as caught:
        from_file(many)
    assert len(str(caught.value).splitlines()) == 4 and "and 21 more of y" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "has no array x; it has theta, y, y2"),
        ({"x": None, "y": None}, "has no array x and no array y"),
        ({"z": np.ones(3)}, "unknown array z; arrays are x, theta, y and y2"),
        ({"x": np.ones((23, 2))}, "same number of rows; x has 23, theta has 24"),
        ({"x": np.arange(24.0)}, r"array x has shape \(24,\), and must be \(rows, columns\)"),
        ({"x": np.ones((24, 2, 2))}, r"array x has shape \(24, 2, 2\)"),
        ({"y": np.array([["a", "b"]] * 24)}, "array y holds <U1, and must hold real numbers"),
        ({"y": np.full((24, 2), np.nan)}, "column 0 of y is nan in row 1"),
        ({"y": np.ones((24, 2))}, "column 0 of y, column 1 of y never changes"),
        ({"y2": np.random.default_rng(0).random((24, 3))}, r"array y2 has shape \(24, 3\), and y has \(24, 2\)"),
    ],
    ids=lambda value: str(value) if not callable(value) else "",
)
def test_bad_arrays_are_refused_by_name_and_row(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    arrays = {name: value for name, value in {**table(), **change}.items() if value is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=message):
        from_file(tmp_path / "bad.npz")


def test_files_that_are_not_measurements_are_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.txt", b"x0,y0", "must be a .csv, .npz or .h5 file"),
        ("a.npz", b"x0,y0", "cannot be read as .npz"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read as CSV"),
        ("a.h5", b"x0,y0", "cannot be read as .h5|needs the package h5py"),
        ("b.csv", b"", "column x0 is missing"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            from_file(tmp_path / name)
    with pytest.raises(UserError, match="data=nowhere.csv does not exist"):
        from_file("nowhere.csv")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, x=np.array([{}], dtype=object), y=np.zeros((1, 1)))
    with pytest.raises(UserError, match="cannot be read as .npz"):
        from_file(pickled)
