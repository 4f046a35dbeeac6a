"""Each scheme converges as fast as it says, counts what it costs, and is differentiated exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from pnn.integrate import (
    LEAPFROG,
    NYSTROM4,
    RK4,
    SCHEMES,
    Scheme,
    adjoint_from_rest,
    combine,
    integrate,
    positions_from_rest,
)

#: A nonlinear, coupled, driven test problem q̈ = sin(q) P + e.
P = torch.tensor([[-2.0, 0.6, 0.3], [0.6, -1.7, -0.4], [0.3, -0.4, -1.2]], dtype=torch.float64)
E = torch.tensor([0.4, -1.9, -1.3], dtype=torch.float64)
Q0 = torch.tensor([1.2, 0.2, 0.7], dtype=torch.float64)
V0 = torch.tensor([0.5, 0.8, -0.6], dtype=torch.float64)
#: Duration, and the numbers of steps from which the order is measured; a from-rest scheme is measured in T instead.
SETTING = {"leapfrog": (2.0, 40), "rk4": (2.0, 80), "nystrom4": (0.6, 1)}


def force(q: Tensor, columns: slice) -> Tensor:
    return torch.sin(q) @ P[:, columns] + E[columns]


@cache
def exact(duration: float, at_rest: bool) -> np.ndarray:
    """q(T), q̇(T) by an eighth-order method of another kind."""
    start = np.concatenate([Q0, torch.zeros(3) if at_rest else V0])
    p, e = P.numpy(), E.numpy()

    def rhs(_: float, y: np.ndarray) -> np.ndarray:
        return np.concatenate([y[3:], np.sin(y[:3]) @ p + e])

    return solve_ivp(rhs, (0, duration), start, "DOP853", rtol=2.3e-14, atol=1e-16, max_step=0.05).y[:, -1]


def measured_orders(scheme: Scheme) -> tuple[float, ...]:
    """The exponents of the errors of q(T) and q̇(T) as the step is halved (q(T) alone for a scheme from rest)."""
    duration, steps = SETTING[scheme.name]
    if scheme.from_rest_only:
        ends = [(T, integrate(force, Q0, None, T, 1, scheme)[0]) for T in (duration, duration / 2)]
        coarse, fine = (np.abs(q.numpy() - exact(T, True)[:3]).max() for T, q in ends)
        return (float(np.log2(coarse / fine)) - 1,)  # a local error of T^(order + 1)
    truth, errors = exact(duration, False), []
    for n in (steps, 2 * steps):
        found = torch.cat(integrate(force, Q0, V0, duration, n, scheme)).numpy()  # type: ignore[arg-type]
        errors.append(np.abs(found - truth).reshape(2, 3).max(1))
    return tuple(np.log2(errors[0] / errors[1]))


def wrong_by_one_per_cent(scheme: Scheme) -> list[tuple[str, Scheme]]:
    """Every way to spoil one coefficient."""
    found = []
    for field in ("b", "c", "d"):
        row = getattr(scheme, field) or ()
        for k in (k for k, value in enumerate(row) if value):
            spoilt = (*row[:k], row[k] * 1.01, *row[k + 1 :])
            found.append((f"{scheme.name} {field}{k}", replace(scheme, **{field: spoilt})))
    for i, row in enumerate(scheme.A):
        for k in (k for k, value in enumerate(row) if value):
            rows = (*scheme.A[:i], (*row[:k], row[k] * 1.01, *row[k + 1 :]), *scheme.A[i + 1 :])
            found.append((f"{scheme.name} A{i}{k}", replace(scheme, A=rows)))
    return found


SPOILT = [case for scheme in SCHEMES.values() for case in wrong_by_one_per_cent(scheme)]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda s: s.name)
def test_order_of_convergence(scheme: Scheme) -> None:
    assert measured_orders(scheme) == pytest.approx([scheme.order] * (1 if scheme.from_rest_only else 2), abs=0.1)


@pytest.mark.parametrize("scheme", [spoilt for _, spoilt in SPOILT], ids=[name for name, _ in SPOILT])
def test_one_per_cent_in_any_coefficient_shows_in_the_order(scheme: Scheme) -> None:
    assert max(abs(order - scheme.order) for order in measured_orders(scheme)) > 0.2


def test_the_harmonic_oscillator_in_closed_form() -> None:
    q = torch.linspace(-1, 1, 5, dtype=torch.float64)
    for scheme, steps, error in ((LEAPFROG, 200, 2e-6), (RK4, 200, 1e-10), (NYSTROM4, 1, 1e-8)):
        found, speed = integrate(lambda Q, columns: -Q[..., columns], q, None, 0.7, steps, scheme)
        torch.testing.assert_close(found, q * np.cos(0.7), atol=error, rtol=0)
        if speed is not None:
            torch.testing.assert_close(speed, -q * np.sin(0.7), atol=error, rtol=0)


def counted(calls: list[int]) -> Callable[[Tensor, slice], Tensor]:
    def counting(q: Tensor, columns: slice) -> Tensor:
        calls.append(len(range(*columns.indices(3))))
        return force(q, columns)

    return counting


@pytest.mark.parametrize(
    ("scheme", "steps", "calls"),
    [(LEAPFROG, 1, 1), (LEAPFROG, 8, 8), (RK4, 1, 3), (RK4, 5, 19), (NYSTROM4, 1, 4)],
    ids=lambda v: getattr(v, "name", v),
)
def test_force_evaluations(scheme: Scheme, steps: int, calls: int) -> None:
    made: list[int] = []
    positions_from_rest(counted(made), Q0, 1.0, steps, scheme, slice(1, 3))
    assert len(made) == calls == scheme.evaluations(steps)
    assert made == [3] * (calls - 1) + [2]  # the last one on the columns that are read out
    made.clear()
    integrate(counted(made), Q0, None, 1.0, steps, scheme)
    assert len(made) == scheme.stages * steps


def test_leapfrog_is_reversible_in_time() -> None:
    def there_and_back(scheme: Scheme) -> float:
        q, v = integrate(force, Q0, V0, 10.0, 25, scheme)
        assert v is not None
        q, v = integrate(force, q, -v, 10.0, 25, scheme)
        assert v is not None
        return float(torch.cat([q - Q0, v + V0]).abs().max())

    assert there_and_back(LEAPFROG) < 1e-12
    assert there_and_back(RK4) > 1e-3  # the steps are coarse: nothing but the symmetry brings leapfrog back


@pytest.mark.parametrize(
    ("scheme", "steps"), [(LEAPFROG, 7), (RK4, 1), (RK4, 4), (NYSTROM4, 1)], ids=lambda v: getattr(v, "name", v)
)
@pytest.mark.parametrize("columns", [slice(None), slice(2, 3), slice(0, 2)], ids=str)
def test_positions_from_rest_are_those_of_integrate(scheme: Scheme, steps: int, columns: slice) -> None:
    q = Q0 * torch.linspace(0.5, 1.5, 4, dtype=torch.float64)[:, None]
    duration = torch.tensor([[0.4], [0.7], [1.0], [1.3]], dtype=torch.float64)
    for T in (0.9, duration):
        whole, _ = integrate(force, q, torch.zeros_like(q) if scheme.d else None, T, steps, scheme)
        found = positions_from_rest(force, q, T, steps, scheme, columns)
        torch.testing.assert_close(found, whole[..., columns], rtol=1e-14, atol=1e-15)
    one_by_one = [positions_from_rest(force, q[i], float(duration[i]), steps, scheme, columns) for i in range(4)]
    torch.testing.assert_close(found, torch.stack(one_by_one), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("scheme", "steps"), [(LEAPFROG, 5), (RK4, 3), (NYSTROM4, 1)], ids=lambda v: getattr(v, "name", v)
)
@pytest.mark.parametrize("columns", [slice(None), slice(1, 3)], ids=str)
def test_the_discrete_adjoint_is_backpropagation(scheme: Scheme, steps: int, columns: slice) -> None:
    stages: list[tuple[Tensor, Tensor]] = []

    def recorded(Q: Tensor, read: slice) -> Tensor:
        leaf = Q.detach().requires_grad_()
        with torch.enable_grad():
            stages.append((leaf, force(leaf, read)))
        return stages[-1][1].detach()

    asked: list[bool] = []

    def pullback(step: int, stage: int, ga: Tensor, propagate: bool) -> Tensor | None:
        asked.append(propagate)
        leaf, a = stages[step * scheme.stages + stage]
        return torch.autograd.grad(a, leaf, ga, retain_graph=True)[0] if propagate else None

    leaf = Q0.clone().requires_grad_()
    y = positions_from_rest(force, leaf, 1.2, steps, scheme, columns)
    gradient = torch.linspace(1, 2, len(y), dtype=torch.float64)
    (truth,) = torch.autograd.grad(y, leaf, gradient)
    assert torch.equal(positions_from_rest(recorded, Q0, 1.2, steps, scheme, columns), y)
    found = adjoint_from_rest(pullback, gradient, torch.zeros(3).double(), 1.2, steps, scheme, columns)
    torch.testing.assert_close(found, truth, rtol=1e-13, atol=1e-14)
    assert len(asked) == scheme.evaluations(steps) and all(asked)
    asked.clear()
    zero = torch.zeros(3, dtype=torch.float64)
    assert adjoint_from_rest(pullback, gradient, zero, 1.2, steps, scheme, columns, need_initial=False) is None
    assert asked == [True] * (scheme.evaluations(steps) - 1) + [False]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(scheme: Scheme, steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps={steps} must be >= 1"):
        integrate(force, Q0, None, 1.0, steps, scheme)
    with pytest.raises(ValueError, match=f"steps={steps} must be >= 1"):
        positions_from_rest(force, Q0, 1.0, steps, scheme)


def test_a_scheme_from_rest_takes_one_step_from_rest() -> None:
    for run in (
        lambda: integrate(force, Q0, None, 1.0, 2, NYSTROM4),
        lambda: positions_from_rest(force, Q0, 1, 2, NYSTROM4),
    ):
        with pytest.raises(ValueError, match="steps=2 must be 1 with nystrom4"):
            run()
    with pytest.raises(ValueError, match="nystrom4 starts at rest only"):
        integrate(force, Q0, V0, 1.0, 1, NYSTROM4)
    assert integrate(force, Q0, None, 1.0, 1, NYSTROM4)[1] is None


def test_combine_skips_zeros_and_refuses_nothing() -> None:
    one, two = torch.ones(2), torch.full((2,), 2.0)
    assert torch.equal(combine(one, (3.0, 0.0, 5.0), [two, torch.full((2,), torch.nan), None], 0.5), one + 3)
    assert torch.equal(combine(None, (1.0, 2.0), [None, two], torch.tensor([1.0, 2.0])), torch.tensor([4.0, 8.0]))
    assert torch.equal(one, torch.ones(2))
    with pytest.raises(ValueError, match="combine needs"):
        combine(None, (0.0,), [one], 1.0)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_joined_half_drifts_are_the_same_leapfrog(steps: int, overwrite: bool) -> None:
    start = Q0.clone()
    found = positions_from_rest(force, start, 1.3, steps, LEAPFROG, slice(1, 3), overwrite=overwrite)
    expected, _ = integrate(force, Q0, None, 1.3, steps, LEAPFROG)
    torch.testing.assert_close(found, expected[1:], rtol=1e-13, atol=0)
    assert torch.equal(start, Q0)  # the initial positions belong to the caller
