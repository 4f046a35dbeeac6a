"""A multilayer perceptron around a linear bypass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.distributions import LowRankMultivariateNormal
from torch.nn import functional
from tqdm import tqdm

from pnn.errors import UserError
from pnn.systems.system import System
from pnn.twins.closed_form import Linear, rms
from pnn.twins.measurements import Measurements
from pnn.twins.noise import NoiseModel
from pnn.twins.twin import Regression


class MLP(Regression):
    """y = L(x, θ) + r · N(z): the linear twin L, plus a perceptron N (SiLU) for what it leaves, over its one r.m.s. r.

    Adam with a cosine schedule on the mean squared error, in batches held in memory; nine tenths of the rows are fitted
    and the epoch is the one with the least error on the tenth, epoch 0 being the bypass alone: so the twin is never
    worse there than linear, and often, for weakly nonlinear devices, no better. `bypass=False` replaces L by the mean.

    `root=True` fits L + r N to the signed root of the output, sign(y) √|y|, and y is its signed square: for powers, which span
    decades and are quadratic in an amplitude, so that weak records are met as well as bright ones.

    With `noise`, a `NoiseModel` of `rank` is fitted to the residuals of single measurements; `sampling = True` then adds
    one draw of it to every output (gradients flow through the draw). Numbers come from the seed of the fit, a counter
    in the state and the process's rank, so that a resumed run continues with the same ones.
    """

    residual: Tensor
    draws: Tensor

    def __init__(
        self,
        system: System,
        widths: Sequence[int] = (500, 500),
        epochs: int = 60,
        lr: float = 3e-3,
        batch_size: int = 128,
        bypass: bool = True,
        root: bool = False,
        noise: bool = False,
        rank: int = 4,
    ):
        super().__init__(system)
        if not widths or any(width < 1 for width in widths):
            raise UserError(f"model.widths={list(widths)} must be one or more whole numbers >= 1; use [500, 500]")
        for key, value, remedy in (("epochs", epochs, 60), ("batch_size", batch_size, 128), ("rank", rank, 4)):
            if value < 1:
                raise UserError(f"model.{key}={value} must be >= 1; use {remedy}")
        if not 0 < lr < math.inf:
            raise UserError(f"model.lr={lr} must be > 0; use 3e-3")
        self.widths, self.epochs, self.lr, self.batch_size = tuple(widths), epochs, lr, batch_size
        self.with_bypass, self.root, self.with_noise, self.rank, self.sampling = bypass, root, noise, rank, False
        self.bypass = Linear(system)
        sizes = (self.features, *self.widths, self.output_size)
        self.depth = len(sizes) - 1
        for k, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            self.register_buffer(f"weight{k}", torch.zeros(fan_in, fan_out))
            self.register_buffer(f"bias{k}", torch.zeros(fan_out))
        self.register_buffer("residual", torch.ones(1))
        self.register_buffer("draws", torch.zeros(2, dtype=torch.int64))  # seed, number of draws so far
        if root:  # so that no state of a plain fit is taken for one of roots, nor the other way round
            self.register_buffer("of_roots", torch.ones(1))
        self.noise = NoiseModel(self.features, self.output_size, rank) if noise else None

    @property
    def options(self) -> dict[str, Any]:
        named = ("epochs", "lr", "batch_size", "rank")
        own = {key: getattr(self, key) for key in named}
        flags = {"bypass": self.with_bypass, "root": self.root, "noise": self.with_noise}
        return {"widths": list(self.widths), **own, **flags}

    @property
    def layers(self) -> list[Tensor]:
        """Weight and bias of every layer in turn."""
        return [getattr(self, f"{kind}{k}") for k in range(self.depth) for kind in ("weight", "bias")]

    def _fit(self, data: Measurements, seed: int, progress: bool) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows, held = self._fitted_to(data).split(0.1, seed)
        if self.with_bypass:
            self.bypass.fit(rows)
        else:
            self._mean_only(rows)
        z = self.standardise(rows).to(rows.x)
        z_held = self._features(held)
        target, target_held = (d.mean - self.bypass(d.x, *d.theta) for d in (rows, held))
        self.residual.copy_(rms(target))
        best = self._train(z, target / self.residual, z_held, target_held / self.residual, generator, progress)
        for buffer, value in zip(self.layers, best, strict=True):
            buffer.copy_(value)
        self.draws.copy_(torch.tensor([seed, 0]))
        if self.noise is not None:
            self._fit_noise(data, self.noise, generator, progress)

    def _fitted_to(self, data: Measurements) -> Measurements:
        """The measurements as the perceptron sees them: with `root`, signed roots."""
        if not self.root:
            return data
        return replace(data, y=signed_root(data.y), y2=None if data.y2 is None else signed_root(data.y2))

    def _mean_only(self, data: Measurements) -> None:
        self.bypass.to(data.x)
        self.bypass.normalise(data)
        self.bypass.weight.zero_()
        self.bypass._fitted.fill_(1)

    def _features(self, data: Measurements) -> Tensor:
        whole = torch.cat([data.x, *(t.flatten(1) for t in data.theta)], 1)
        return (whole - self.centre) / self.scale

    def _train(
        self, z: Tensor, target: Tensor, z_held: Tensor, held: Tensor, generator: torch.Generator, progress: bool
    ) -> list[Tensor]:
        """Weights of the epoch with the least held-out error; zeros (the bypass alone) if none improves on it."""
        layers = [w.clone().requires_grad_() for w in self._initial(generator)]
        steps = self.epochs * math.ceil(len(z) / self.batch_size)
        optimiser = torch.optim.Adam(layers, lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        best, least = [torch.zeros_like(w) for w in layers], float(held.square().mean())
        bar = tqdm(range(self.epochs), desc="fit", unit="epoch", leave=False, disable=None if progress else True)
        with torch.enable_grad():
            for _ in bar:
                for picked in torch.randperm(len(z), generator=generator).split(self.batch_size):
                    loss = functional.mse_loss(perceptron(z[picked] @ layers[0], layers), target[picked])
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    schedule.step()
                with torch.no_grad():
                    error = float(functional.mse_loss(perceptron(z_held @ layers[0], layers), held))
                bar.set_postfix_str(f"left of the linear fit's error {error**0.5:.3f}")
                if error < least:
                    best, least = [w.detach().clone() for w in layers], error
        return best

    def _initial(self, generator: torch.Generator) -> list[Tensor]:
        """He-uniform weights for SiLU, zero biases, a small last layer: the fit starts at the bypass."""
        initial = []
        for k, buffer in enumerate(self.layers):
            bound = (
                math.sqrt(6 / buffer.shape[0]) * (0.1 if k == 2 * self.depth - 2 else 1.0) if buffer.dim() > 1 else 0.0
            )
            initial.append(bound * (2 * torch.rand(buffer.shape, generator=generator) - 1).to(buffer))
        return initial

    def mean(self, x: Tensor, *theta: Tensor) -> Tensor:
        """The output without noise."""
        residual = perceptron(self.project(x, theta, self.layers[0]), self.layers)
        y = self.bypass.model(x, *theta) + self.residual * residual
        return y * y.abs() if self.root else y

    def model(self, x: Tensor, *theta: Tensor) -> Tensor:
        y = self.mean(x, *theta)
        if not self.sampling:
            return y
        factor, diagonal = self._covariance(x, theta, y)
        common, own = self._draw((*y.shape[:-1], factor.shape[-1]), y.shape)
        return y + (factor @ common.to(y)[..., None]).squeeze(-1) + diagonal.sqrt() * own.to(y)

    def distribution(self, x: Tensor, *theta: Tensor) -> LowRankMultivariateNormal:
        """The measured output's distribution: mean f_m(x, θ), covariance F Fᵀ + diag d."""
        y = self.mean(x, *theta)
        return LowRankMultivariateNormal(y, *self._covariance(x, theta, y))

    def _covariance(self, x: Tensor, theta: tuple[Tensor, ...], y: Tensor) -> tuple[Tensor, Tensor]:
        if self.noise is None:
            raise UserError("this twin was fitted without a noise model; use model.noise=true")
        hidden = self.project(x, theta, self.noise.first) + self._output(y) @ self.noise.second + self.noise.bias
        return self.noise.covariance(hidden)

    def _output(self, y: Tensor) -> Tensor:
        return ((signed_root(y) if self.root else y) - self.bypass.offset) / self.bypass.gain

    def _draw(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        """The next standard normal numbers, on the CPU, so that one seed means one noise anywhere."""
        rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
        own = [rank] if rank else []  # processes of one run have equal states and each a part of the batch
        seed = np.random.SeedSequence([*self.draws.tolist(), *own]).generate_state(1, np.uint64)[0] >> np.uint64(1)
        self.draws[1] += 1
        generator = torch.Generator().manual_seed(int(seed))
        return [torch.randn(shape, generator=generator) for shape in shapes]

    def _fit_noise(self, data: Measurements, noise: NoiseModel, generator: torch.Generator, progress: bool) -> None:
        """The noise model from the residuals of every single measurement."""
        with torch.no_grad():
            y, z = self.mean(data.x, *data.theta), self._features(data)
        single = [data.y] if data.y2 is None else [data.y, data.y2]
        residuals = torch.cat([measured - y for measured in single])
        noise.fit(z.repeat(len(single), 1), self._output(y).repeat(len(single), 1), residuals, generator, progress)


def signed_root(y: Tensor) -> Tensor:
    """sign(y) √|y|, whose inverse is y |y|."""
    return y.sign() * y.abs().sqrt()


def perceptron(first: Tensor, layers: Sequence[Tensor]) -> Tensor:
    """The network from its first product z W₀; `layers` are weight and bias of each layer in turn."""
    h = first + layers[1]
    for weight, bias in zip(layers[2::2], layers[3::2], strict=True):
        h = functional.silu(h) @ weight + bias
    return h
