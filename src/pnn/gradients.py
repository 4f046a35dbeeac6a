"""Every autograd.Function and gradient estimator: the training modes, and the oscillators' hand-written adjoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pnn.integrate import Scheme, adjoint_from_rest, positions_from_rest

Transform = Callable[..., Tensor]


class Responds(Protocol):
    """The one method of a device that training needs."""

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        """Drive the device with x and θ and measure y; no gradients."""


class PhysicsAware(Function):
    """Forward y = f_p(x, θ) on the device; backward gᵀ ∂f_m/∂(x, θ) of the digital model at the same x, θ."""

    @staticmethod
    def forward(ctx: Any, device: Responds, model: Transform, x: Tensor, *theta: Tensor) -> Tensor:
        ctx.model = model
        ctx.autocast = torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type)
        ctx.save_for_backward(x, *theta)
        return device.respond(x, *theta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        inputs = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, needed, strict=True)]
        enabled, dtype = ctx.autocast
        with torch.enable_grad(), torch.autocast(gradient.device.type, dtype=dtype, enabled=enabled):
            y = ctx.model(*inputs)
        wanted = [t for t in inputs if t.requires_grad]
        grads = iter(torch.autograd.grad(y, wanted, gradient.to(y.dtype), allow_unused=True))
        return None, None, *(next(grads) if need else None for need in needed)


def physics_aware(device: Responds, model: Transform) -> Transform:
    """Physics-aware training (PAT): a differentiable callable (x, *θ) → y.

    Forward: y = f_p(x, θ), the device's measured output, bit for bit. Backward: the vector-Jacobian products of the
    digital model f_m at the device's own inputs, g_x = [∂f_m/∂x (x, θ)]ᵀ g_y and g_θ = [∂f_m/∂θ (x, θ)]ᵀ g_y, which
    never call the device. `device` is anything with respond(x, *θ); `model` any differentiable callable with the same
    shapes. Source: Wright, Onodera et al., Nature 601, 549 (2022), eqs. (1)-(4).
    """

    def transform(x: Tensor, *theta: Tensor) -> Tensor:
        return PhysicsAware.apply(device, model, x, *theta)

    return transform


def in_silico(device: Responds, model: Transform) -> Transform:
    """In-silico training: forward and backward on the digital model f_m; the device is met only at the test."""

    def transform(x: Tensor, *theta: Tensor) -> Tensor:
        return model(x, *theta)

    return transform


def ideal(device: Any, model: Transform) -> Transform:
    """Ideal backpropagation through the simulated device itself: the oracle that no laboratory has.

    Raises ValueError for a device that cannot be differentiated.
    """
    if not hasattr(device, "differentiable"):
        name = type(getattr(device, "device", device)).__name__
        raise ValueError(f"training=ideal needs a simulated device, and {name} can only be measured; use training=pat")
    return device.differentiable


class StraightThroughClamp(Function):
    """clamp(x, low, high), with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient, None, None


class CouplingMatrix(Function):
    """P = J' − diag(κ + Σ_j J'_ij), J' = G ∘ (C + Cᵀ)/2 + O: the force matrix of the oscillators, symmetric.

    C (..., N, N); gain G and offset O broadcast against it and are symmetric; on-site strength κ (..., N or 1). With
    `keep_diagonal` the sum includes J'_ii, an on-site term −J'_ii sin q_i as in the paper's code; else it does not.
    """

    @staticmethod
    def forward(ctx: Any, C: Tensor, gain: Tensor, offset: Tensor, kappa: Tensor, keep_diagonal: bool) -> Tensor:
        P = plus_transpose(C).mul_(gain).mul_(0.5)
        if offset.numel() > 1 or bool(offset.any()):
            P.add_(offset)
        rows = P.sum(-1)
        diagonal = P.diagonal(dim1=-2, dim2=-1)
        diagonal.copy_(-(kappa + rows if keep_diagonal else kappa + rows - diagonal))
        ctx.save_for_backward(gain)
        ctx.keep_diagonal = keep_diagonal
        return P

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gP: Tensor) -> tuple[Tensor | None, ...]:
        (gain,) = ctx.saved_tensors
        d = gP.diagonal(dim1=-2, dim2=-1)
        gC = plus_transpose(gP).sub_(d.unsqueeze(-1)).sub_(d.unsqueeze(-2))
        gC.diagonal(dim1=-2, dim2=-1).copy_(-2 * d if ctx.keep_diagonal else torch.zeros_like(d))
        return gC.mul_(gain).mul_(0.5), None, None, None, None


def plus_transpose(M: Tensor) -> Tensor:
    """M + Mᵀ; a blocked transposing copy first, for reading both at once jumps through memory (twice the time)."""
    return M.mT.clone(memory_format=torch.contiguous_format).add_(M)


class OscillatorFlow(Function):
    """q(T) of q̈ = sin(q) P + e from rest, on the columns read out, with its exact discrete adjoint.

    q (*lead, B, N), P (*lead, N, N), e (*lead, 1, N) → (*lead, B, len(columns)). With `linear`, sin(q) is replaced by q.
    The adjoint needs one product with Pᵀ per stage and one product over all stages for gP. `products` is the precision
    in which factors enter these products; sums and all else keep the precision of q.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        P: Tensor,
        e: Tensor,
        duration: float | Tensor,
        steps: int,
        scheme: Scheme,
        columns: slice,
        linear: bool,
        products: torch.dtype,
    ) -> Tensor:
        keep = any(ctx.needs_input_grad)
        count = scheme.evaluations(steps)
        P = P.to(products)
        sines = q.new_empty((*q.shape[:-2], count if keep else 1, *q.shape[-2:]), dtype=products)
        phases: list[Tensor] = []

        def force(Q: Tensor, read: slice) -> Tensor:
            s = sines[..., len(phases), :, :]
            if linear or products != Q.dtype:
                s.copy_(Q if linear else torch.sin(Q))
            else:
                torch.sin(Q, out=s)
            if keep:
                phases.append(Q)
            return product(s, P[..., read], e[..., read])

        y = positions_from_rest(force, q, duration, steps, scheme, columns, overwrite=not keep)
        if keep:
            ctx.save_for_backward(P, sines, *phases)
            ctx.run = duration, steps, scheme, columns, linear
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        P, sines, *phases = ctx.saved_tensors
        duration, steps, scheme, columns, linear = ctx.run
        need_q, need_P, need_e = ctx.needs_input_grad[:3]
        count = len(phases)
        forces = torch.empty_like(sines)[..., : count - 1, :, :]
        read_out: list[Tensor] = []

        def pullback(step: int, stage: int, ga: Tensor, propagate: bool) -> Tensor | None:
            index = step * scheme.stages + stage
            if index == count - 1:
                read_out.append(ga := ga.to(P.dtype))
                gs = ga @ P[..., columns].mT if propagate else None
            else:
                ga = forces[..., index, :, :].copy_(ga)
                gs = ga @ P.mT if propagate else None
            if gs is None:
                return None
            gs = gs.to(gradient.dtype)
            return gs if linear else gs.mul_(torch.cos(phases[index]))

        zero = torch.zeros_like(phases[0])
        gq = adjoint_from_rest(pullback, gradient, zero, duration, steps, scheme, columns, need_initial=need_q)
        gP = ge = None
        if need_P:
            gP = outer(sines[..., : count - 1, :, :].flatten(-3, -2), forces.flatten(-3, -2))
            gP[..., columns] += sines[..., count - 1, :, :].mT @ read_out[0]
            gP = gP.to(gradient.dtype)
        if need_e:
            ge = forces.sum((-3, -2), dtype=gradient.dtype).unsqueeze(-2)
            ge[..., columns] += read_out[0].sum(-2, keepdim=True, dtype=gradient.dtype)
        return gq, gP, ge, *(None,) * 6


def outer(a: Tensor, b: Tensor, rows: int = 160) -> Tensor:
    """aᵀ b: a (*lead, K, N), b (*lead, K, M) → (*lead, N, M), some rows of the result at a time.

    The result is larger than the fast memory where the factors are not: a fifth to a third less time than in one product.
    """
    if a.device.type != "cpu" or a.dim() > 2:
        return a.mT @ b
    out = a.new_empty(a.shape[1], b.shape[1])
    for i in range(0, len(out), rows):
        torch.mm(a[:, i : i + rows].mT, b, out=out[i : i + rows])
    return out


def product(s: Tensor, P: Tensor, e: Tensor) -> Tensor:
    """s P + e in the precision of e: s (*lead, B, N), P (*lead, N, M), e (*lead, 1, M)."""
    if s.dtype != e.dtype:
        return (s @ P).to(e.dtype).add_(e)
    return torch.addmm(e, s, P) if s.dim() == 2 else s @ P + e


class CircuitFlow(Function):
    """Coil voltage v_L (S, B, N) of the electronic oscillator driven by u (S, B, N), V, with its exact discrete adjoint.

    `table` (S, columns) holds the coefficients of S circuits, `substeps` their Runge-Kutta steps per sample; native code
    for the CPU, imported at the first use because it brings a compiler along.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, table: Tensor, substeps: list[int]) -> Tensor:
        from pnn import circuit_kernel

        v_L, states = circuit_kernel.record(u, table, substeps, keep=ctx.needs_input_grad[0])
        ctx.save_for_backward(u, table, states)
        ctx.substeps = substeps
        return v_L

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from pnn import circuit_kernel

        u, table, states = ctx.saved_tensors
        return circuit_kernel.adjoint(gradient, u, table, ctx.substeps, states), None, None
