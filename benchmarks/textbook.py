"""The textbook formulation of the oscillators and of PAT, as the speed baseline.

First-order state (q, p), classical RK4, the coupling matrix rebuilt in every right-hand side, plain autograd, device and
model evaluated separately.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


def coupling(C: Tensor, noise: Tensor | None = None) -> Tensor:
    """J = (C + Cᵀ)/2 + noise with −Σ_j J_ij on its diagonal."""
    J = (C + C.T) / 2
    J = J if noise is None else J + noise
    rows, diagonal = -J.sum(0), range(len(J))
    J[diagonal, diagonal] = rows
    return J


def rhs(z: Tensor, C: Tensor, e: Tensor, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """d(q, p)/dt; z (..., N, 2)."""
    s = torch.sin((1 + eta) * z[..., 0])
    return torch.stack([z[..., 1], -s + e + s @ coupling(C, noise)], -1)


def rk4(z: Tensor, h: float, steps: int, *constants: Any) -> Tensor:
    """Classical Runge-Kutta."""
    for _ in range(steps):
        k1 = rhs(z, *constants)
        k2 = rhs(z + h / 2 * k1, *constants)
        k3 = rhs(z + h / 2 * k2, *constants)
        k4 = rhs(z + h * k3, *constants)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return z


class Oscillators(nn.Module):
    """`size` oscillators for T = 0.5: the model, and a device that differs as in the paper's notebook."""

    def __init__(self, size: int, solver: Any = None):
        super().__init__()
        self.C = nn.Parameter((2 * torch.rand(size, size) - 1) / size**0.5)
        self.e = nn.Parameter((2 * torch.rand(size) - 1) / size**0.5)
        R = 0.2 * torch.randn(size, size)
        self.noise, self.solver = (R + R.T) / 2, solver

    def model(self, x: Tensor, C: Tensor, e: Tensor) -> Tensor:
        z = torch.stack([x, torch.zeros_like(x)], -1)
        return self.solver(z, C, e)[..., 0] if self.solver else rk4(z, 0.1, 5, C, e)[..., 0]

    def device(self, x: Tensor, C: Tensor, e: Tensor) -> Tensor:
        x = x + 0.02 * torch.randn_like(x)
        return rk4(torch.stack([x, torch.zeros_like(x)], -1), 0.1, 5, C, e, 0.1, self.noise)[..., 0]

    def forward(self, x: Tensor, via: str) -> Tensor:
        if via == "model":
            return self.model(x, self.C, self.e)
        return TextbookPAT.apply(self, x, self.C, self.e)


class TextbookPAT(Function):
    """Device forward, model backward."""

    @staticmethod
    def forward(ctx: Any, owner: Oscillators, x: Tensor, C: Tensor, e: Tensor) -> Tensor:
        ctx.owner = owner
        ctx.save_for_backward(x, C, e)
        return owner.device(x, C, e)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
        with torch.enable_grad():
            y = ctx.owner.model(*inputs)
        return None, *torch.autograd.grad(y, inputs, gradient)


class Fig3(nn.Module):
    """16 patches of 49 pixels → one shared network of 100 → 1,610 oscillators → the last 10."""

    def __init__(self, solver: Any = None):
        super().__init__()
        self.shared, self.last = Oscillators(100, solver), Oscillators(1610, solver)

    def forward(self, x: Tensor, via: str) -> Tensor:
        x = x.unflatten(-1, (4, 7, 4, 7)).transpose(-3, -2).reshape(-1, 16, 49)
        x = self.shared(nn.functional.pad(x, (0, 51)), via)
        return self.last(nn.functional.pad(x.flatten(1), (0, 10)), via)[:, -10:]


def torchdiffeq_solver(z: Tensor, C: Tensor, e: Tensor) -> Tensor:
    """torchdiffeq's fixed-step rk4, five steps; the matrix is built once per pass, as its user would write it."""
    from torchdiffeq import odeint

    Q, times = coupling(C), torch.linspace(0, 0.5, 6)

    def field(t: Tensor, z: Tensor) -> Tensor:
        s = torch.sin(z[..., 0])
        return torch.stack([z[..., 1], -s + e + s @ Q], -1)

    return odeint(field, z, times, method="rk4")[-1]
