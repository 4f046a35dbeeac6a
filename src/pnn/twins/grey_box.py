"""The nominal physics with its constants fitted to the device."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from pnn.errors import UserError
from pnn.systems.system import Constant, System
from pnn.twins.measurements import Measurements
from pnn.twins.twin import Twin

#: The largest number of constants: every iteration evaluates the system once for each.
LARGEST = 600


class GreyBox(Twin):
    """y = f(x, θ; c ⊙ e^p): the system itself, every perturbed constant c times a factor of its own.

    p minimises Σ‖f − y‖²/σ_y² + (ν/0.3)² ‖p‖² over `records` random records by trust-region least squares (finite
    differences, float64); ν is the noise of a measurement relative to σ_y, from repeats (0.01 without), 0.3 the prior
    spread of p: constants that the data do not see stay nominal. Factors are positive, and a constant that is nominally
    0 (a part that the model lacks) stays 0. Symmetric constants have one factor per pair. It cannot learn what its
    equation lacks: the bias on the twin card shows that.

    Raises UserError for a system without constants, or with more than 600.
    """

    def __init__(self, system: System, records: int = 64):
        super().__init__(system)
        if records < 1:
            raise UserError(f"model.records={records} must be >= 1; use 64")
        self.records = records
        self.system = copy.deepcopy(system).requires_grad_(False)
        self.rules = {
            name: rule
            for name, rule in system.constants.items()
            if rule.perturbed and bool(getattr(system, name).any())
        }
        for name, rule in self.rules.items():
            setattr(self.system, name, getattr(system, name).expand(rule.shape).clone())
        self.sizes = {name: factors(rule) for name, rule in self.rules.items()}
        count = sum(self.sizes.values())
        if not 0 < count <= LARGEST:
            raise UserError(
                f"model=grey_box fits 1 to {LARGEST} constants, and {self.system_name} of {self.input_size} inputs has "
                f"{count}; use model=mlp, or model=nominal"
            )

    @property
    def options(self) -> dict[str, Any]:
        return {"records": self.records}

    def _fit(self, data: Measurements, seed: int, progress: bool) -> None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        some = data.rows(order[: self.records])
        x, theta, y = some.x.double(), [t.double() for t in some.theta], some.mean.double()
        spread = float((y - y.mean(0)).square().mean().sqrt()) or 1.0
        noise = data.noise if data.noise is not None else 0.01
        prior = max(noise, 1e-6) / 0.3
        trial = copy.deepcopy(self.system).double()
        nominal = {name: getattr(trial, name) for name in self.rules}

        def residuals(p: np.ndarray) -> np.ndarray:
            for name, factor in self._factors(torch.from_numpy(p).to(x)):
                setattr(trial, name, nominal[name] * factor)
            with torch.no_grad():
                error = (trial(x, *theta) - y).flatten() / spread
            return np.concatenate([error.cpu().numpy(), prior * p])

        start = np.zeros(sum(self.sizes.values()))
        fit = least_squares(residuals, start, bounds=(-3.0, 3.0), x_scale=1.0, xtol=1e-10, ftol=1e-10, max_nfev=50)
        for name, factor in self._factors(torch.from_numpy(fit.x).to(x)):
            constant = getattr(self.system, name)
            setattr(self.system, name, (nominal[name] * factor).to(constant))

    def _factors(self, p: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each constant's factors e^p in its shape."""
        for (name, rule), part in zip(self.rules.items(), p.split(list(self.sizes.values())), strict=True):
            if rule.symmetric:
                whole = p.new_zeros(rule.shape)
                rows, columns = torch.triu_indices(*rule.shape)
                whole[rows, columns] = whole[columns, rows] = part
                yield name, whole.exp()
            else:
                yield name, part.reshape(rule.shape).exp()

    def model(self, x: Tensor, *theta: Tensor) -> Tensor:
        return self.system(x, *theta)


def factors(rule: Constant) -> int:
    """The number of independent factors of a constant."""
    return rule.shape[0] * (rule.shape[0] + 1) // 2 if rule.symmetric else math.prod(rule.shape)
