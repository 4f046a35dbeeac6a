"""What every digital twin is: an unfitted model of a device's sizes that measured pairs make into f_m(x, θ)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pnn.errors import UserError
from pnn.systems.system import System, per_sample
from pnn.twins.measurements import Measurements


class Twin(nn.Module):
    """f_m(x, θ), fitted to measurements of one device with the sizes and ranges of `system`.

    Shapes as for the system: x (*lead, ..., input_size), θ (*lead, *shape) → y (*lead, ..., output_size); differentiable
    in x and θ, computed in x's precision and place. A twin has no trainable parameters: what is fitted are buffers, so
    `state_dict` carries it and no optimiser finds it. Raises UserError when it is used before it is fitted.
    """

    _fitted: Tensor

    def __init__(self, system: System):
        super().__init__()
        self.input_size, self.output_size, self.input_range = system.input_size, system.output_size, system.input_range
        self.system_name = type(system).__name__
        self.shapes = {spec.name: spec.shape for spec in system.parameters_spec}
        self.register_buffer("_fitted", torch.zeros(1))

    @property
    def fitted(self) -> bool:
        """Whether the twin has seen measurements; saved with the state."""
        return bool(self._fitted)

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's arguments beside the system, as plain values."""
        return {}

    @property
    def theta_size(self) -> int:
        """Number of elements of all θ together."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def fit(self, data: Measurements, *, seed: int = 0, progress: bool = True) -> Twin:
        """Fit to `data`; `seed` draws splits and initial weights. Raises UserError for data of other sizes."""
        self._check(data)
        self.to(data.x)
        self._fit(data, seed, progress)
        self._fitted.fill_(1)
        return self

    def _fit(self, data: Measurements, seed: int, progress: bool) -> None:
        raise TypeError(f"{type(self).__name__} does not define _fit(data, seed, progress)")

    def _check(self, data: Measurements) -> None:
        name = type(self).__name__
        found, wanted = (data.x.shape[1], data.y.shape[1]), (self.input_size, self.output_size)
        if found != wanted:
            raise UserError(
                f"{name} is a twin of a device with {wanted[0]} inputs and {wanted[1]} outputs, and the measurements have "
                f"{found[0]} and {found[1]}; measure this device, or give the system their sizes"
            )
        shapes = [tuple(t.shape[1:]) for t in data.theta]
        if shapes != list(self.shapes.values()):
            raise UserError(f"{name} takes parameters {self.shapes}, and the measurements have θ of shapes {shapes}")
        if len(data) < 2:
            raise UserError(f"{name} was given {len(data)} measurements; use at least 2 (model.measure.samples)")

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        """y = f_m(x, θ)."""
        if not self.fitted:
            raise UserError(f"{type(self).__name__} is not fitted; call fit(measurements), or load one with twin=PATH")
        with torch.autocast(x.device.type, enabled=False):
            like = theta[0] if theta else x
            if like.dtype not in (torch.float32, torch.float64):  # a half-precision signal would ruin the constants
                like = like.float()
            if self._fitted.dtype != like.dtype or self._fitted.device != like.device:
                self.to(like)
            return self.model(x.to(like), *(t.to(like) for t in theta))

    def model(self, x: Tensor, *theta: Tensor) -> Tensor:
        """The fitted function; `forward` has checked and cast."""
        raise TypeError(f"{type(self).__name__} does not define model(x, *theta)")


class Regression(Twin):
    """A twin that knows nothing of the physics: a function of the standardised features z = ([x, θ] − c)/s.

    c: mean of each feature; s: its standard deviation, at least 1 % of the largest in its block (x or one θ), so that a
    pixel that hardly ever changes is not blown up. θ's share of a linear map is computed once per lead and broadcast.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, system: System):
        super().__init__(system)
        self.features = self.input_size + self.theta_size
        self.register_buffer("centre", torch.zeros(self.features))
        self.register_buffer("scale", torch.ones(self.features))

    def standardise(self, data: Measurements) -> Tensor:
        """Set c and s from `data`; returns z (n, features), float64."""
        blocks = [data.x, *(t.flatten(1) for t in data.theta)]
        spreads = [block.double().std(0) for block in blocks]
        scale = torch.cat([spread.clamp(min=0.01 * float(spread.max())) for spread in spreads])
        whole = torch.cat(blocks, 1).double()
        self.centre.copy_(whole.mean(0))
        self.scale.copy_(torch.where(scale > 0, scale, 1.0))
        return (whole - self.centre.double()) / self.scale.double()

    def project(self, x: Tensor, theta: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        """z W for W (features, k): (*lead, ..., k)."""
        n = self.input_size
        y = ((x - self.centre[:n]) / self.scale[:n]) @ weight[:n]
        if theta:
            flat = torch.cat(
                [t.flatten(t.dim() - len(s)) for t, s in zip(theta, self.shapes.values(), strict=True)], -1
            )
            share = ((flat - self.centre[n:]) / self.scale[n:]) @ weight[n:]  # (*lead, k)
            y = y + per_sample(share, y)
        return y
