"""Fixed-step Runge-Kutta-Nyström schemes for q̈ = a(q): tableaus as data, one loop forward, one loop back.

A step of size h takes (q, v) to (q⁺, v⁺) (Hairer, Nørsett & Wanner, Solving ODEs I, §II.14):

    Q_k = q + c_k h v + h² Σ_{j<k} A_kj a_j,   a_k = a(Q_k),
    q⁺  = q + h v + h² Σ_k b_k a_k,            v⁺ = v + h Σ_k d_k a_k.

Because a depends on q only, leapfrog, the classical RK4 and the four-evaluation rest scheme are all of this form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scheme:
    """One Nyström tableau.

    `order` is the order of convergence of q(T) in the step size. A scheme without `d` yields no velocity: it takes one
    step from rest, and its `order` is that of q(T) in T (the local error is O(T^(order+1)) then).
    """

    name: str
    order: int
    c: tuple[float, ...]
    A: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    d: tuple[float, ...] | None

    @property
    def stages(self) -> int:
        """Force evaluations per step."""
        return len(self.b)

    @property
    def position_stages(self) -> int:
        """Evaluations that q⁺ needs: trailing stages with b = 0 serve the velocity only."""
        return max(k + 1 for k, b in enumerate(self.b) if b != 0.0)

    @property
    def from_rest_only(self) -> bool:
        return self.d is None

    def evaluations(self, steps: int) -> int:
        """Force evaluations for q(T) after `steps` steps."""
        return self.stages * (steps - 1) + self.position_stages


# Drift-kick-drift Störmer-Verlet: symplectic and time-reversible.
LEAPFROG = Scheme("leapfrog", order=2, c=(0.5,), A=((),), b=(0.5,), d=(1.0,))

# The classical Runge-Kutta method, written for q̈ = a(q).
RK4 = Scheme(
    "rk4",
    order=4,
    c=(0.0, 0.5, 0.5, 1.0),
    A=((), (0.0,), (0.25, 0.0), (0.0, 0.5, 0.0)),
    b=(1 / 6, 1 / 6, 1 / 6, 0.0),
    d=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)

# Four evaluations from rest, exact through T⁸ for q̇(0) = 0 (even powers only, so the local error is O(T¹⁰)).
# Conditions: Σb = 1/2, bc = 1/24, bAc = 1/720, bc² = 1/120 with c = Σ_j A_kj, and those of T⁸.
NYSTROM4 = Scheme(
    "nystrom4",
    order=9,
    c=(0.0, 0.0, 0.0, 0.0),
    A=(
        (),
        (0.06192148210556215,),
        (0.06400614067375816, 0.08922350786101786),
        (0.19360004359962296, 0.050452488869028575, 0.10210131368519416),
    ),
    b=(0.17936570575772717, 0.17464292172020215, 0.10202430401266567, 0.043967068509404975),
    d=None,
)

SCHEMES = {scheme.name: scheme for scheme in (LEAPFROG, RK4, NYSTROM4)}

#: Acceleration at a stage, restricted to some columns of the state: force(Q, columns) → (..., len(columns)).
Force = Callable[[Tensor, slice], Tensor]
#: Vector-Jacobian product of the force at one recorded stage: pullback(step, stage, ga, propagate) → gQ or None.
Pullback = Callable[[int, int, Tensor, bool], Tensor | None]
ALL = slice(None)


def combine(
    base: Tensor | None, weights: Sequence[float], vectors: Sequence[Tensor | None], scale: float | Tensor
) -> Tensor:
    """base + scale · Σ_j weights_j vectors_j, skipping zero weights; None stands for a zero vector."""
    for weight, vector in zip(weights, vectors, strict=False):
        if weight == 0.0 or vector is None:
            continue
        factor = scale * weight
        base = vector * factor if base is None else plus(base, vector, factor)
    if base is None:
        raise ValueError("combine needs a base vector or one non-zero weight")
    return base


def check(scheme: Scheme, steps: int) -> None:
    """Refuse what the scheme cannot do."""
    if steps < 1:
        raise ValueError(f"steps={steps} must be >= 1; use at least one integration step")
    if scheme.from_rest_only and steps != 1:
        raise ValueError(f"steps={steps} must be 1 with {scheme.name}, which has no velocity; use leapfrog or rk4")


def integrate(
    force: Force,
    q: Tensor,
    v: Tensor | None,
    duration: float | Tensor,
    steps: int,
    scheme: Scheme,
) -> tuple[Tensor, Tensor | None]:
    """Integrate q̈ = force(q) over `duration`; (..., N) → q(T), q̇(T), each (..., N). `v=None` starts at rest.

    Differentiable by autograd. `duration` may be a tensor that broadcasts against q. The velocity is None for a
    scheme that starts at rest only.
    """
    check(scheme, steps)
    if scheme.from_rest_only and v is not None:
        raise ValueError(f"{scheme.name} starts at rest only; use leapfrog or rk4 with an initial velocity")
    h = duration / steps
    for _ in range(steps):
        q, v = _step(force, q, v, h, scheme, scheme.stages, ALL)
    return q, v


def positions_from_rest(
    force: Force,
    q: Tensor,
    duration: float | Tensor,
    steps: int,
    scheme: Scheme,
    columns: slice = ALL,
    overwrite: bool = False,
) -> Tensor:
    """q(T) of q̈ = force(q), q̇(0) = 0, on the columns that are read out: (..., N) → (..., len(columns)).

    The last evaluation is needed on `columns` only, and evaluations that serve the velocity alone are skipped. With
    `overwrite`, a position may be overwritten once the force has been taken there (never q itself): less memory traffic.
    """
    check(scheme, steps)
    h, v = duration / steps, None
    if scheme == LEAPFROG:
        return _drifts_and_kicks(force, q, h, steps, columns, overwrite)
    for _ in range(steps - 1):
        q, v = _step(force, q, v, h, scheme, scheme.stages, ALL)
    return _step(force, q, v, h, scheme, scheme.position_stages, columns)[0]


def _drifts_and_kicks(
    force: Force, q: Tensor, h: float | Tensor, steps: int, columns: slice, overwrite: bool
) -> Tensor:
    """Leapfrog from rest with the two half-drifts between kicks as one, half as many passes over memory:

    u_k = u_{k−1} + h² a(Q_k),   Q_{k+1} = Q_k + u_k,   q(T) = Q_last + ½ u_last,   u = h q̇,  Q_0 = q(0),  u_{−1} = 0.
    """
    u: Tensor | None = None
    for k in range(steps - 1):
        a = force(q, ALL)
        u = a * (h * h) if u is None else plus_(u, a, h * h)
        q = q.add_(u) if overwrite and k > 0 else q + u
    a = force(q, columns)
    u = a * (h * h) if u is None else plus(u[..., columns], a, h * h)
    return torch.add(q[..., columns], u, alpha=0.5)


def plus(base: Tensor, vector: Tensor, factor: float | Tensor) -> Tensor:
    """base + factor · vector in one pass."""
    if isinstance(factor, Tensor):
        return torch.addcmul(base, vector, factor)
    return torch.add(base, vector, alpha=factor)


def plus_(base: Tensor, vector: Tensor, factor: float | Tensor) -> Tensor:
    """base ← base + factor · vector."""
    if isinstance(factor, Tensor):
        return base.addcmul_(vector, factor)
    return base.add_(vector, alpha=factor)


def _step(
    force: Force, q: Tensor, v: Tensor | None, h: float | Tensor, scheme: Scheme, stages: int, columns: slice
) -> tuple[Tensor, Tensor | None]:
    """One step of `stages` evaluations, the last of them on `columns`; v⁺ is meaningful only when all are made."""
    accelerations: list[Tensor] = []
    for k in range(stages):
        stage = combine(q, (scheme.c[k],), [v], h)
        stage = combine(stage, scheme.A[k], accelerations, h * h)
        accelerations.append(force(stage, columns if k == stages - 1 else ALL))
    accelerations[:-1] = [a[..., columns] for a in accelerations[:-1]]
    position = combine(q[..., columns], (1.0,), [None if v is None else v[..., columns]], h)
    position = combine(position, scheme.b, accelerations, h * h)
    if scheme.d is None or stages < scheme.stages or columns != ALL:
        return position, None
    return position, combine(v, scheme.d, accelerations, h)


def adjoint_from_rest(
    pullback: Pullback,
    gradient: Tensor,
    zero: Tensor,
    duration: float | Tensor,
    steps: int,
    scheme: Scheme,
    columns: slice = ALL,
    need_initial: bool = True,
) -> Tensor | None:
    """The exact (discrete) adjoint of `positions_from_rest`: gradient at q(T) (..., len(columns)) → gradient at q(0).

        ga_k = h² b_k gq + h d_k gv + h² Σ_{j>k} A_jk gQ_j,   gQ_k = (∂a/∂Q_k)ᵀ ga_k,
        gq ← gq + Σ_k gQ_k,   gv ← gv + h gq + h Σ_k c_k gQ_k.

    `zero` is a (..., N) tensor of zeros that is overwritten. Without `need_initial` the product at the very first
    stage is skipped and None returned.
    """
    h = duration / steps
    gq, gv = zero, None
    gq[..., columns] = gradient
    if scheme == LEAPFROG:
        return _kicks_and_drifts_back(pullback, gradient, gq, h, steps, need_initial)
    for step in reversed(range(steps)):
        last = step == steps - 1
        stages = scheme.position_stages if last else scheme.stages
        d = scheme.d or (0.0,) * scheme.stages
        pulled: list[Tensor | None] = [None] * stages
        for k in reversed(range(stages)):
            at_readout = last and k == stages - 1
            base = gradient if at_readout else gq
            ga = combine(None, (scheme.b[k],), [base], h * h) if scheme.b[k] else None
            ga = combine(ga, (d[k],), [gv], h) if gv is not None and d[k] else ga
            above = [scheme.A[j][k] for j in range(k + 1, stages)]
            ga = combine(ga, above, pulled[k + 1 :], h * h)
            propagate = need_initial or step > 0 or k > 0
            pulled[k] = pullback(step, k, ga, propagate)
        if step > 0:
            gv_before = combine(gv, (1.0,), [gq], h)
            gv = combine(gv_before, scheme.c, pulled, h)
        elif not need_initial:
            return None
        gq = combine(gq, (1.0,) * stages, pulled, 1.0)
    return gq


def _kicks_and_drifts_back(
    pullback: Pullback, gradient: Tensor, gq: Tensor, h: float | Tensor, steps: int, need_initial: bool
) -> Tensor | None:
    """The adjoint of `_drifts_and_kicks`, from gq at q(T): gu is the gradient at u = h v, h² gu that at the acceleration."""
    gu = 0.5 * gq
    for k in reversed(range(steps)):
        read_out = 0.5 * gradient if k == steps - 1 else gu
        pulled = pullback(k, 0, read_out * (h * h), need_initial or k > 0)
        if pulled is None:
            return None
        gq = gq + pulled
        gu = gu + gq
    return gq
