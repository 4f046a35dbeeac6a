"""The noise model of in-silico training: a network that gives the covariance of a measured output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal
from torch.nn import functional
from tqdm import tqdm


class NoiseModel(nn.Module):
    """Σ(u) = s² (F Fᵀ + diag d), F (outputs, rank) and d from [F, ln d] = base + silu(u U + b) H.

    u: standardised input and mean output. Fitted by the Gaussian likelihood of residuals e = y − f_m, starting from
    their constant covariance (its leading eigenvectors). s: r.m.s. of the residuals. Weights are buffers.
    Source: Wright, Onodera et al., Nature 601, 549 (2022), methods: the noise model of in-silico training.
    """

    first: Tensor
    second: Tensor
    bias: Tensor
    head: Tensor
    base: Tensor
    scale: Tensor

    def __init__(self, features: int, outputs: int, rank: int, width: int = 64):
        super().__init__()
        self.outputs, self.rank = outputs, min(rank, outputs)
        columns = outputs * (self.rank + 1)
        self.register_buffer("first", torch.zeros(features, width))
        self.register_buffer("second", torch.zeros(outputs, width))
        self.register_buffer("bias", torch.zeros(width))
        self.register_buffer("head", torch.zeros(width, columns))
        self.register_buffer("base", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(1))

    def covariance(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """s F (..., outputs, rank) and s² d (..., outputs) from u U + b (..., width)."""
        factor, diagonal = self._unit(functional.silu(hidden) @ self.head + self.base)
        return self.scale * factor, self.scale.square() * diagonal

    def _unit(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        factor, diagonal = raw.split([self.outputs * self.rank, self.outputs], -1)
        return factor.unflatten(-1, (self.outputs, self.rank)), diagonal.clamp(-14, 14).exp()

    def fit(
        self, z: Tensor, y: Tensor, residuals: Tensor, generator: torch.Generator, progress: bool, epochs: int = 30
    ) -> None:
        """From standardised inputs z (n, features), mean outputs y (n, outputs) and residuals (n, outputs)."""
        self.scale.copy_(residuals.square().mean().sqrt().clamp(min=1e-12))
        e = residuals / self.scale
        self.base.copy_(constant_covariance(e, self.rank))
        u = torch.cat([z, y], 1)
        U = torch.randn(u.shape[1], self.bias.shape[0], generator=generator).to(u) / u.shape[1] ** 0.5
        weights = [w.clone().requires_grad_() for w in (U, self.bias, self.head, self.base)]
        order = torch.randperm(len(u), generator=generator)
        held, rows = order[: max(1, len(u) // 10)], order[max(1, len(u) // 10) :]
        optimiser = torch.optim.Adam(weights, lr=1e-2)
        steps = epochs * -(-len(rows) // 256)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

        def loss(picked: Tensor) -> Tensor:
            U, b, H, base = weights
            factor, diagonal = self._unit(functional.silu(u[picked] @ U + b) @ H + base)
            return -LowRankMultivariateNormal(torch.zeros_like(e[picked]), factor, diagonal).log_prob(e[picked]).mean()

        with torch.no_grad():
            best, least = [w.clone() for w in weights], float(loss(held))
        for _ in tqdm(range(epochs), desc="noise", unit="epoch", leave=False, disable=None if progress else True):
            with torch.enable_grad():
                for picked in rows[torch.randperm(len(rows), generator=generator)].split(256):
                    optimiser.zero_grad(set_to_none=True)
                    value = loss(picked)
                    value.backward()
                    optimiser.step()
                    schedule.step()
            with torch.no_grad():
                if (score := float(loss(held))) < least:
                    best, least = [w.clone() for w in weights], score
        U, b, H, base = best
        first, second = U.split([z.shape[1], y.shape[1]])
        for buffer, value in (
            (self.first, first),
            (self.second, second),
            (self.bias, b),
            (self.head, H),
            (self.base, base),
        ):
            buffer.copy_(value)


def constant_covariance(e: Tensor, rank: int) -> Tensor:
    """base = [F, ln d] of residuals e (n, outputs): leading eigenvectors above the mean of the other eigenvalues."""
    C = e.double().mT @ e.double() / len(e)
    values, vectors = torch.linalg.eigh(C)
    rest = values[: len(values) - rank].mean() if rank < len(values) else values[0]
    factor = vectors[:, -rank:] * (values[-rank:] - rest).clamp(min=1e-6).sqrt()
    diagonal = (C.diagonal() - factor.square().sum(1)).clamp(min=1e-4)
    return torch.cat([factor.flatten(), diagonal.log()]).to(e)
