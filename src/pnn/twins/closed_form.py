"""Twins with a closed-form solution: linear, and linear plus products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pnn.errors import UserError
from pnn.systems.system import System
from pnn.twins.measurements import Measurements
from pnn.twins.twin import Regression

#: The largest system of normal equations that is solved: minutes on one core.
LARGEST = 6000


def ridge(A: Tensor, B: Tensor, used: int = 0, penalty: bool = True) -> Tensor:
    """W = argmin ‖A W − B‖² + λ‖W‖², λ by generalised cross-validation, from s, V of AᵀA = V s Vᵀ (or AAᵀ if smaller).

    A (n, p), B (n, q), both centred, float64 → (p, q). GCV(λ) = ‖A W − B‖² / (n − 1 − used − df)², one λ for all
    outputs; `used` degrees of freedom went into an earlier fit. The grid starts at 1e-14 of the largest eigenvalue, so
    noise-free data are solved to round-off, and ends where hardly anything is fitted. Without `penalty` λ = 0: the solution
    of least norm.
    Source: Golub, Heath and Wahba, Technometrics 21, 215 (1979).
    """
    n, p = A.shape
    if min(n, p) > LARGEST:
        raise UserError(
            f"a closed-form fit of {p} features (inputs and parameters) to {n} measurements exceeds the limit of {LARGEST}; "
            "use fewer measurements (model.measure.samples), model=grey_box or model=nominal"
        )
    primal = p <= n
    s, V = torch.linalg.eigh(A.mT @ A if primal else A @ A.mT)
    if not s[-1] > 0:
        return A.new_zeros(p, B.shape[1])
    keep = s > 1e-14 * s[-1]
    s, V = s[keep], V[:, keep]
    c = (V.mT @ (A.mT @ B)) / s.sqrt()[:, None] if primal else V.mT @ B
    power = c.square().sum(1)
    unexplained = (B.square().sum() - power.sum()).clamp(min=0)
    strengths = s[-1] * torch.logspace(-14, 4, 37, dtype=s.dtype)
    shrink = strengths[:, None] / (strengths[:, None] + s)  # (λ, direction)
    residual = unexplained + (shrink.square() * power).sum(1)
    gcv = residual / (max(n - 1 - used - len(s), 0) + shrink.sum(1)).square()
    best = strengths[gcv.argmin()] if penalty else 0.0
    if primal:
        return V @ (c * (s.sqrt() / (s + best))[:, None])
    return A.mT @ (V @ (c / (s + best)[:, None]))


def rms(t: Tensor) -> Tensor:
    """Root mean square of all elements; 1 where they are all zero, so that one can divide by it."""
    value = t.double().square().mean().sqrt()
    return torch.where(value > 0, value, 1.0)


class Linear(Regression):
    """y = m + σ z W: the best linear map, z the standardised x and θ; ridge by cross-validation, outputs over one σ."""

    weight: Tensor
    offset: Tensor
    gain: Tensor

    def __init__(self, system: System):
        super().__init__(system)
        self.register_buffer("weight", torch.zeros(self.features, self.output_size))
        self.register_buffer("offset", torch.zeros(self.output_size))
        self.register_buffer("gain", torch.ones(1))

    def _fit(self, data: Measurements, seed: int, progress: bool) -> None:
        z, target = self.standardise(data), self.normalise(data)
        self.weight.copy_(ridge(z, target))

    def normalise(self, data: Measurements) -> Tensor:
        """Set m and σ; returns (y − m)/σ, float64."""
        y = data.mean.double()
        self.offset.copy_(y.mean(0))
        centred = y - y.mean(0)
        self.gain.copy_(rms(centred))
        return centred / self.gain.double()

    def model(self, x: Tensor, *theta: Tensor) -> Tensor:
        return self.offset + self.gain * self.project(x, theta, self.weight)


class Quadratic(Linear):
    """y = m + σ (z W + p Q): linear in all features, plus products p of pairs of the first k principal components of z.

    k is as large as `pairs` products k(k + 1)/2 allow. With k = all features the components are the features themselves:
    the complete quadratic. Otherwise only products of the leading components are there. The products are fitted to what
    the linear fit leaves, with a penalty of their own, so that useless ones vanish.
    """

    basis: Tensor
    products: Tensor
    pair_offset: Tensor

    def __init__(self, system: System, pairs: int = 2000):
        super().__init__(system)
        if pairs < 1:
            raise UserError(f"model.pairs={pairs} must be >= 1; use 2000, or model=linear for none")
        self.pairs = pairs
        self.components = min(self.features, int(((8 * pairs + 1) ** 0.5 - 1) / 2))
        self.left, self.right = torch.triu_indices(self.components, self.components).tolist()
        self.register_buffer("basis", torch.eye(self.features, self.components))
        self.register_buffer("products", torch.zeros(len(self.left), self.output_size))
        self.register_buffer("pair_offset", torch.zeros(len(self.left)))

    @property
    def options(self) -> dict[str, Any]:
        return {"pairs": self.pairs}

    @property
    def complete(self) -> bool:
        """Whether every product of two features is there."""
        return self.components == self.features

    def _fit(self, data: Measurements, seed: int, progress: bool) -> None:
        z, target = self.standardise(data), self.normalise(data)
        if not self.complete:
            if self.features > LARGEST:
                raise UserError(f"model=quadratic has {self.features} features; use at most {LARGEST}, or model=mlp")
            _, V = torch.linalg.eigh(z.mT @ z)
            self.basis.copy_(V.flip(1)[:, : self.components])
        products = self._products(z @ self.basis.double())
        self.pair_offset.copy_(products.mean(0))
        products -= products.mean(0)
        few = len(z) < 2 * self.features
        W = ridge(z, target, penalty=few)
        along = ridge(z, products, penalty=few)  # the part of the products that is linear
        Q = ridge(products - z @ along, target - z @ W, used=min(self.features, len(z) - 1))
        self.weight.copy_(W - along @ Q)
        self.products.copy_(Q)

    def _products(self, p: Tensor) -> Tensor:
        return p[..., self.left] * p[..., self.right]

    def model(self, x: Tensor, *theta: Tensor) -> Tensor:
        p = self._products(self.project(x, theta, self.basis)) - self.pair_offset
        return super().model(x, *theta) + self.gain * (p @ self.products)
