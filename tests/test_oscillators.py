"""The coupled oscillators obey their printed equation, its symmetries and invariants; the adjoint is exact."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import cosm, sqrtm
from torch import Tensor
from torch.func import vmap

from pnn.gradients import CouplingMatrix, outer
from pnn.integrate import LEAPFROG, RK4, integrate, positions_from_rest
from pnn.systems import CoupledOscillators, stack
from pnn.systems.coupled_oscillators import has_bfloat16

#: Fine enough that the integrator's own error is below 1e-9.
FINE: dict[str, Any] = {"scheme": "rk4", "steps": 100}
CONVENTIONS = ("physical", "reference")


def oscillators(inputs: int, outputs: int, gap: float = 0.0, seed: int = 1, **options: Any) -> CoupledOscillators:
    """A system in float64, its constants moved by `gap`, its couplings (diagonal included) shifted if there is one."""
    system = CoupledOscillators(inputs, outputs, **options)
    generator = torch.Generator().manual_seed(seed)
    if gap:
        system = system.perturbed(gap, generator)  # type: ignore[assignment]
        shift = 0.2 * torch.randn(system.size, system.size, generator=generator)
        system.coupling_offset = (shift + shift.mT) / 2
    return system.double()


def drawn(system: CoupledOscillators, *batch: int, lead: tuple[int, ...] = (), seed: int = 2) -> tuple[Tensor, ...]:
    """x, C, e: amplitudes of about a radian; couplings and drives of the on-site strength."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)

    n = system.size
    return normal(*batch, system.input_size), normal(n, n) / np.sqrt(n), normal(n)


def element(constant: Tensor, *index: int) -> float:
    """One element of a constant that may be a single number for all."""
    return float(constant[tuple(i if size > 1 else 0 for i, size in zip(index, constant.shape, strict=True))])


def accelerations(system: CoupledOscillators, C: Tensor, e: Tensor, q: np.ndarray) -> list[float]:
    """The equation as printed, pair by pair."""
    N = system.size

    def s(i: int) -> float:
        phase = element(system.nonlinearity, i) * q[i]
        return phase if system.linear else np.sin(phase)

    found = []
    for i in range(N):
        a = -element(system.onsite, i) * s(i) + element(system.drive_gain, i) * float(e[i])
        for j in range(N):
            J = element(system.coupling_gain, i, j) * float(C[i, j] + C[j, i]) / 2
            J += element(system.coupling_offset, i, j)
            a += J * (s(j) - s(i))
            if i == j and system.self_coupling == "reference":
                a -= J * s(i)
        found.append(a)
    return found


def solved(system: CoupledOscillators, x: Tensor, C: Tensor, e: Tensor, duration: float) -> np.ndarray:
    """q(T) of the oscillators read out, by an independent integrator."""
    padding = [0.0] * (system.size - system.input_size)
    start = np.array([*x.tolist(), *padding, *[0.0] * system.size])

    def rhs(_: float, y: np.ndarray) -> list[float]:
        q, v = np.split(y, 2)
        return [*v, *accelerations(system, C, e, q)]

    q = solve_ivp(rhs, (0, duration), start, "DOP853", rtol=1e-11, atol=1e-12).y[: system.size, -1]
    return q[system.size - system.output_size :]


@pytest.mark.parametrize("self_coupling", CONVENTIONS)
@pytest.mark.parametrize("gap", [0.0, 0.4])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (3, 2), (2, 4)])
def test_the_printed_equation(inputs: int, outputs: int, gap: float, self_coupling: str) -> None:
    system = oscillators(inputs, outputs, gap, duration=1.5, self_coupling=self_coupling, **FINE)
    assert system.size == {(3, 3): 3, (3, 2): 5, (2, 4): 4}[inputs, outputs]
    x, C, e = drawn(system, 2)
    truth = np.stack([solved(system, row, C, e, 1.5) for row in x])
    np.testing.assert_allclose(system(x, C, e).numpy(), truth, atol=2e-8)


def test_the_two_conventions_differ_and_every_constant_matters() -> None:
    """A comparison that could not see a constant would prove nothing."""
    one, other = (oscillators(3, 3, duration=1.5, self_coupling=c, **FINE) for c in CONVENTIONS)
    x, C, e = drawn(one, 4)
    assert (one(x, C, e) - other(x, C, e)).abs().max() > 0.01
    for name in one.constants:
        system = oscillators(3, 3, duration=1.5, self_coupling="reference", **FINE)
        setattr(system, name, getattr(system, name) + 0.01)
        assert (system(x, C, e) - other(x, C, e)).abs().max() > 1e-4, name


def test_the_default_integrators_follow_the_equation() -> None:
    system = oscillators(4, 2, 0.3)
    x, C, e = drawn(system, 2)
    truth = np.stack([solved(system, row, C, e, 0.5) for row in x])
    assert np.abs(system(x, C, e).numpy() - truth).max() < 1e-7  # Nyström, four evaluations
    assert np.abs(system.converged()(x, C, e).numpy() - truth).max() < 1e-3  # leapfrog, sixteen


def test_stretch_changes_the_duration_of_each_sample() -> None:
    system = oscillators(3, 2, 0.3, duration=1.0, **FINE)
    x, C, e = drawn(system, 3)
    stretch = torch.tensor([[-0.1], [0.0], [0.25]], dtype=torch.float64)
    truth = np.stack([solved(system, row, C, e, 1 + float(s)) for row, s in zip(x, stretch, strict=True)])
    np.testing.assert_allclose(system(x, C, e, stretch=stretch).numpy(), truth, atol=2e-8)


def test_energy_is_conserved() -> None:
    """H = −½ p P⁻¹ pᵀ + Σ(1 − cos q) + q P⁻¹ e."""
    system = oscillators(5, 5)
    q0, C, e = drawn(system, 3)
    q0, P, e = 0.5 * q0, system.force_matrix(0.3 * C), 0.1 * e  # every phase stays in its well

    def force(q: Tensor, columns: slice) -> Tensor:
        return torch.sin(q) @ P[:, columns] + e[columns]

    def energy(q: Tensor, p: Tensor) -> Tensor:
        kinetic = -0.5 * (p * torch.linalg.solve(P, p.mT).mT).sum(-1)
        return kinetic + (1 - torch.cos(q)).sum(-1) + q @ torch.linalg.solve(P, e)

    start = energy(q0, torch.zeros_like(q0))
    q, p = integrate(force, q0, None, 2.0, 1000, RK4)
    assert p is not None and (p**2).sum() > 0.1
    torch.testing.assert_close(energy(q, p), start, atol=1e-10, rtol=0)
    # leapfrog: an error that oscillates and does not grow
    q, p, errors = q0, torch.zeros_like(q0), []
    for _ in range(100):
        q, p = integrate(force, q, p, 1.0, 20, LEAPFROG)
        errors.append(float((energy(q, p) - start).abs().max()))
    assert max(errors) < 3e-3 and max(errors[50:]) < 1.5 * max(errors[:50])


@pytest.mark.parametrize("options", [{}, FINE, {"scheme": "leapfrog", "steps": 4}, {"linear": True}], ids=str)
def test_parity_is_exact(options: dict[str, Any]) -> None:
    system = oscillators(5, 3, 0.4, **options)
    x, C, e = drawn(system, 6)
    assert torch.equal(system(-x, C, -e), -system(x, C, e))


@pytest.mark.parametrize("self_coupling", CONVENTIONS)
def test_permuted_oscillators_give_permuted_outputs(self_coupling: str) -> None:
    system = oscillators(5, 5, 0.4, self_coupling=self_coupling)
    x, C, e = drawn(system, 4)
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = oscillators(5, 5, self_coupling=self_coupling)
    for name, constant in system.named_buffers():
        setattr(permuted, name, constant[order][:, order] if constant.dim() == 2 else constant[order])
    found = permuted(x[:, order], C[order][:, order], e[order])
    torch.testing.assert_close(found, system(x, C, e)[:, order], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("self_coupling", CONVENTIONS)
@pytest.mark.parametrize("gap", [0.0, 0.4])
def test_couplings_only_exchange_momentum(gap: float, self_coupling: str) -> None:
    """Σ q̈ = Σ(e − κ sin αq), and the extra term of `reference` is −Σ J_ii sin αq."""
    system = oscillators(6, 6, gap, self_coupling=self_coupling)
    q, C, e = drawn(system, 4)
    P = system.force_matrix(C)
    assert torch.equal(P, P.mT)
    s = torch.sin(system.nonlinearity * q)
    strength = system.onsite + torch.zeros(6).double()
    if self_coupling == "reference":
        strength = strength + system.coupling_gain.expand(6, 6).diagonal() * C.diagonal()
        strength = strength + system.coupling_offset.expand(6, 6).diagonal()
    torch.testing.assert_close((s @ P + e).sum(-1), (e - strength * s).sum(-1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("gap", [0.0, 0.4])
@pytest.mark.parametrize("self_coupling", CONVENTIONS)
def test_linear_oscillators_in_closed_form(gap: float, self_coupling: str) -> None:
    """q(T) = q₀ cos ΩT + e Ω⁻² (1 − cos ΩT), Ω² = −diag(α) P."""
    system = oscillators(4, 3, gap, linear=True, duration=2.0, self_coupling=self_coupling, scheme="rk4", steps=400)
    x, C, e = drawn(system, 5)
    squared = -(system.nonlinearity[:, None] * system.force_matrix(C)).numpy()
    cosine = cosm(2.0 * sqrtm(squared.astype(complex))).real
    drive = (e * system.drive_gain).numpy() @ np.linalg.inv(squared) @ (np.eye(7) - cosine)
    start = np.pad(x.numpy(), ((0, 0), (0, 3)))
    np.testing.assert_allclose(system(x, C, e).numpy(), (start @ cosine + drive)[:, 4:], rtol=1e-8, atol=1e-8)


def plain(system: CoupledOscillators, x: Tensor, C: Tensor, e: Tensor, stretch: Tensor | None = None) -> Tensor:
    """One sample x (inputs,) → y (outputs,) in operations that autograd knows."""
    J = system.coupling_gain * (C + C.mT) / 2 + system.coupling_offset
    counted = J if system.self_coupling == "reference" else J - torch.diag(J.diagonal())
    q = torch.cat([x, x.new_zeros(system.size - system.input_size)])

    def force(Q: Tensor, columns: slice) -> Tensor:
        s = system.nonlinearity * Q
        s = s if system.linear else torch.sin(s)
        off = J - torch.diag(J.diagonal())
        return (off @ s - (system.onsite + counted.sum(1)) * s + e * system.drive_gain)[columns]

    duration: Any = system.duration if stretch is None else system.duration * (1 + stretch)
    y, _ = integrate(force, q, None, duration, system.steps, system.scheme)
    return y[system.size - system.output_size :]


ADJOINT = [
    {"scheme": "nystrom4"},
    {"scheme": "nystrom4", "self_coupling": "reference"},
    {"scheme": "nystrom4", "linear": True},
    {"scheme": "leapfrog", "steps": 1},
    {"scheme": "leapfrog", "steps": 3},
    {"scheme": "rk4", "steps": 1, "self_coupling": "reference"},
    {"scheme": "rk4", "steps": 3},
]


@pytest.mark.parametrize("options", ADJOINT, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 4), (4, 2), (2, 3)])
@pytest.mark.parametrize("stretched", [False, True], ids=["", "stretched"])
def test_the_adjoint_is_backpropagation(options: dict[str, Any], inputs: int, outputs: int, stretched: bool) -> None:
    system = oscillators(inputs, outputs, 0.3, duration=1.2, **options)
    x, C, e = (t.requires_grad_() for t in drawn(system, 5))
    stretch = torch.linspace(-0.2, 0.3, 5).double()[:, None] if stretched else None
    weight = torch.randn(5, outputs, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = system(x, C, e, stretch=stretch)
    if stretch is None:
        truth = vmap(lambda row: plain(system, row, C, e))(x)
    else:
        truth = vmap(lambda row, s: plain(system, row, C, e, s))(x, stretch)
    torch.testing.assert_close(y, truth, rtol=1e-13, atol=1e-13)
    found, expected = (torch.autograd.grad(out, (x, C, e), weight) for out in (y, truth))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "options", [ADJOINT[0], ADJOINT[5], {"scheme": "leapfrog", "steps": 2, "linear": True}], ids=str
)
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
@pytest.mark.parametrize("stretched", [False, True], ids=["", "stretched"])
def test_the_adjoint_is_the_finite_difference(options: dict[str, Any], lead: tuple[int, ...], stretched: bool) -> None:
    system = oscillators(3, 2, 0.3, duration=1.2, **options)
    inputs = tuple(t.requires_grad_() for t in drawn(system, 2, lead=lead))
    stretch = torch.linspace(-0.2, 0.3, 2).double()[:, None].expand(*lead, 2, 1) if stretched else None
    assert torch.autograd.gradcheck(lambda *t: system(*t, stretch=stretch), inputs)


@pytest.mark.parametrize("needed", [n for n in product([True, False], repeat=3) if any(n)], ids=str)
@pytest.mark.parametrize("options", [ADJOINT[0], ADJOINT[3], ADJOINT[6]], ids=str)
def test_frozen_tensors_get_no_gradient_and_change_no_other(options: dict[str, Any], needed: tuple[bool, ...]) -> None:
    system = oscillators(4, 2, 0.3, **options)
    free = [t.requires_grad_() for t in drawn(system, 5)]
    some = [t.detach().clone().requires_grad_(need) for t, need in zip(free, needed, strict=True)]
    y, other = system(*free), system(*some)
    assert torch.equal(y, other) and torch.equal(y, system(*(t.detach() for t in free)))
    y.square().sum().backward()
    other.square().sum().backward()
    for whole, part, need in zip(free, some, needed, strict=True):
        assert part.grad is None if not need else torch.equal(part.grad, whole.grad)  # type: ignore[arg-type]


def test_no_graph_without_a_gradient_and_no_second_derivative() -> None:
    system = oscillators(3, 3)
    x, C, e = drawn(system, 2)
    assert system(x, C, e).grad_fn is None
    C.requires_grad_()
    (gradient,) = torch.autograd.grad(system(x, C, e).square().sum(), C, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_the_coupling_matrix_is_differentiated_exactly(keep: bool, lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    C = torch.randn(*lead, 4, 4, dtype=torch.float64, requires_grad=True)
    gain = torch.rand(4, 4, dtype=torch.float64)
    gain, offset, kappa = gain + gain.mT, gain @ gain.mT, torch.rand(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: CouplingMatrix.apply(c, gain, offset, kappa, keep), (C,))


@pytest.mark.parametrize("options", [ADJOINT[0], ADJOINT[4]], ids=str)
@pytest.mark.parametrize("stretched", [False, True], ids=["", "stretched"])
@pytest.mark.parametrize("gap", [0.0, 0.4])
def test_a_stack_is_its_systems_one_by_one(options: dict[str, Any], stretched: bool, gap: float) -> None:
    systems = [oscillators(4, 2, gap, seed=seed, **options) for seed in range(3)]
    inputs = [t.requires_grad_() for t in drawn(systems[0], 5, lead=(3,))]
    stretch = torch.linspace(-0.2, 0.3, 15).double().reshape(3, 5, 1) if stretched else None
    together = stack(systems)(*inputs, stretch=stretch)
    apart = torch.stack(
        [
            system(*(t[n] for t in inputs), stretch=None if stretch is None else stretch[n])
            for n, system in enumerate(systems)
        ]
    )
    torch.testing.assert_close(together, apart, rtol=1e-13, atol=1e-14)
    for mine, theirs in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (together, apart)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", ADJOINT, ids=lambda o: "-".join(map(str, o.values())))
def test_single_precision_is_close_to_double(options: dict[str, Any]) -> None:
    system = oscillators(12, 4, 0.3, **options)
    free = [t.requires_grad_() for t in drawn(system, 8)]
    single = [t.detach().float().requires_grad_() for t in free]
    y, short = system(*free), oscillators(12, 4, 0.3, **options).float()(*single)
    assert short.dtype == torch.float32
    y.square().sum().backward()
    short.square().sum().backward()
    for a, b in [(y, short), *((t.grad, u.grad) for t, u in zip(free, single, strict=True))]:
        assert (a - b).norm() < 3e-6 * a.norm()


def test_bfloat16_products_are_for_the_digital_model_and_close() -> None:
    torch.manual_seed(0)
    exact, coarse = (
        CoupledOscillators(300, 10, scheme="leapfrog", steps=4, products=p) for p in ("float32", "bfloat16")
    )
    x, (C, e) = torch.randn(40, 300), (spec.sample() for spec in exact.parameters_spec)
    target = torch.randn(40, 10)
    found = {}
    for name, system in (("exact", exact), ("coarse", coarse)):
        tensors = [t.clone().requires_grad_() for t in (x, C, e)]
        y = system(*tensors)
        found[name] = y.detach(), *torch.autograd.grad((y * target).sum(), tensors)
    for mine, theirs in zip(found["coarse"], found["exact"], strict=True):
        error = float((mine - theirs).norm() / theirs.norm())
        assert mine.dtype == torch.float32
        assert error < 0.02
        assert error > 1e-6 or not has_bfloat16(torch.device("cpu"))  # it is another precision
    with torch.no_grad():
        assert torch.equal(coarse.converged()(x, C, e), exact.converged()(x, C, e))


def test_rows_at_a_time_are_the_same_outer_product() -> None:
    a, b = torch.randn(37, 23, dtype=torch.float64), torch.randn(37, 41, dtype=torch.float64)
    torch.testing.assert_close(outer(a, b, rows=5), torch.einsum("ki,kj->ij", a, b), rtol=1e-12, atol=1e-12)


def test_autocast_leaves_the_physics_alone() -> None:
    system = oscillators(6, 3, 0.3).float()
    x, C, e = (t.float().requires_grad_() for t in drawn(system, 4))
    y = system(x, C, e)
    with torch.autocast("cpu", torch.bfloat16):
        cast = system(x, C, e)
    assert cast.dtype == torch.float32 and torch.equal(y, cast)


def test_only_the_columns_read_out_are_computed_at_the_end() -> None:
    system = oscillators(9, 1, 0.3, scheme="leapfrog", steps=2)
    assert system.operations() == 10**2 + 10
    x, C, e = drawn(system, 3)
    P, q = system.force_matrix(C), torch.nn.functional.pad(x, (0, 1))

    def force(Q: Tensor, columns: slice) -> Tensor:
        return torch.sin(system.nonlinearity * Q) @ P[:, columns] + (e * system.drive_gain)[columns]

    whole = positions_from_rest(force, q, 0.5, 2, LEAPFROG)
    torch.testing.assert_close(system(x, C, e), whole[:, 9:], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "euler"}, "system.scheme=euler must be one of leapfrog, rk4, nystrom4"),
        ({"device_scheme": "euler"}, "system.device_scheme=euler must be one of"),
        ({"steps": 0, "scheme": "rk4"}, "steps=0 must be >= 1"),
        ({"steps": 2}, "steps=2 must be 1 with nystrom4"),
        ({"device_steps": 0}, "steps=0 must be >= 1"),
        ({"device_scheme": "nystrom4"}, "steps=16 must be 1 with nystrom4"),
        ({"self_coupling": "none"}, "system.self_coupling=none must be 'reference' or 'physical'"),
        ({"products": "float8"}, "system.products=float8 must be 'float32' or 'bfloat16'"),
        ({"duration": 0.0}, "system.duration=0.0 must be > 0"),
        ({"duration": float("nan")}, "system.duration=nan must be > 0"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoupledOscillators(3, 3, **options)
