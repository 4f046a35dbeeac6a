"""Between data and drive, and between recording and numbers: what happens digitally on either side of a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from pnn.systems.system import System, per_sample

#: (features, system, lead) → the encoder of one layer.
Encoder = Callable[[int, System, tuple[int, ...]], nn.Module]


def resample(x: Tensor, size: int) -> Tensor:
    """(..., n) → (..., size): the mean of each of `size` equal stretches of the sequence; longer ones repeat values."""
    if x.shape[-1] == size:
        return x
    if size % x.shape[-1] == 0:  # the same numbers, five times as fast
        return x.repeat_interleave(size // x.shape[-1], dim=-1)
    return functional.adaptive_avg_pool1d(x.reshape(1, -1, x.shape[-1]), size).reshape(*x.shape[:-1], size)


class Direct(nn.Module):
    """u = x, resampled to the drive's length: for systems whose trainable parameters are physical."""

    def __init__(self, features: int, system: System, lead: tuple[int, ...] = ()):
        super().__init__()
        self.size = system.input_size

    def forward(self, x: Tensor) -> Tensor:
        return resample(x, self.size)


class Mask(nn.Module):
    """u = a ⊙ x + b, element by element, with a, b (*lead, input_size) trainable; x is resampled to the drive's length.

    Initially a = `scale` ± `scale_spread` and b = `offset` ± `offset_spread`, uniform. Source: Nature 601, 549 (2022), Methods.
    """

    def __init__(
        self,
        features: int,
        system: System,
        lead: tuple[int, ...] = (),
        *,
        scale: float = 1.0,
        scale_spread: float = 0.0,
        offset: float = 0.0,
        offset_spread: float = 0.0,
    ):
        super().__init__()
        self.size = system.input_size
        shape = (*lead, self.size)
        self.mask = nn.Parameter(uniform(shape, scale, scale_spread))
        self.offset = nn.Parameter(uniform(shape, offset, offset_spread))

    def forward(self, x: Tensor) -> Tensor:
        x = resample(x, self.size)
        return x * per_sample(self.mask, x) + per_sample(self.offset, x)


class SideBySide(nn.Module):
    """u = [α x + β | p]: data on one half of the drive, trainable amplitudes p (*lead, rest) on the other.

    α, β are trainable scalars (*lead, 1); initially α = `scale` ± `scale_spread`, β = `offset` ± `offset_spread` and
    p = `amplitude` ± `amplitude_spread`, uniform.
    `layout`: `interleaved` (data, p, data, p, …) or `blocks` (all data, then all p, as in the paper's vowel network).
    """

    order: Tensor

    def __init__(
        self,
        features: int,
        system: System,
        lead: tuple[int, ...] = (),
        *,
        layout: Literal["interleaved", "blocks"] = "interleaved",
        scale: float = 1.0,
        scale_spread: float = 0.0,
        offset: float = 0.0,
        offset_spread: float = 0.0,
        amplitude: float = 0.5,
        amplitude_spread: float = 0.5,
    ):
        super().__init__()
        if layout not in ("interleaved", "blocks"):
            raise ValueError(f"system.encoding.layout={layout} must be interleaved or blocks")
        total = system.input_size
        if total < 2:
            raise ValueError(
                f"system.encoding: a drive of {total} value has no room for parameters; use pnn.encodings.Mask"
            )
        self.size = (total + 1) // 2
        order = torch.cat([torch.arange(0, total, 2), torch.arange(1, total, 2)])
        self.register_buffer(
            "order", order.argsort() if layout == "interleaved" else torch.arange(total), persistent=False
        )
        self.scale = nn.Parameter(uniform((*lead, 1), scale, scale_spread))
        self.offset = nn.Parameter(uniform((*lead, 1), offset, offset_spread))
        self.amplitudes = nn.Parameter(uniform((*lead, total - self.size), amplitude, amplitude_spread))

    def forward(self, x: Tensor) -> Tensor:
        x = resample(x, self.size)
        data = x * per_sample(self.scale, x) + per_sample(self.offset, x)
        p = per_sample(self.amplitudes, x).expand(*x.shape[:-1], -1)
        return torch.cat([data, p], -1)[..., self.order]


class Readout(Protocol):
    """(recording, outputs) → numbers: (..., output_size) → (..., outputs), or all of the recording with None."""

    def __call__(self, y: Tensor, outputs: int | None) -> Tensor: ...


class Windows:
    """The means of `outputs` equal windows at the end of a recording.

    `tail`: the last so many samples (a whole number), the last part of the recording (a fraction < 1), or all of it (null).
    `normalise="max"` first divides each recording by its largest magnitude, as one does with spectra; of a linearised
    system, whose spectra may dip below 0, so that none is divided by next to nothing. Without a number of
    outputs (a hidden layer) the whole recording is passed on. Raises ValueError for another tail, one shorter than the
    outputs or longer than the recording, and an unknown `normalise`.
    """

    def __init__(self, tail: float | None = None, normalise: Literal["none", "max"] = "none"):
        if tail is not None and (tail <= 0 or (tail >= 1 and tail != int(tail))):
            raise ValueError(
                f"system.readout.tail={tail} must be a whole number of samples >= 1, or a fraction of the recording < 1; "
                "use null for the whole recording"
            )
        if normalise not in ("none", "max"):
            raise ValueError(f"system.readout.normalise={normalise} must be none or max")
        self.tail, self.normalise = tail, normalise

    def __call__(self, y: Tensor, outputs: int | None) -> Tensor:
        if self.normalise == "max":
            y = y / y.abs().amax(-1, keepdim=True).clamp_min(1e-6)
        return y if outputs is None else resample(self.end(y, outputs), outputs)

    def end(self, y: Tensor, outputs: int) -> Tensor:
        """The part of a recording that is read: of a fraction no less than one sample an output."""
        if self.tail is None:
            return y
        if self.tail < 1:
            return y[..., -max(outputs, round(self.tail * y.shape[-1])) :]
        if not outputs <= self.tail <= y.shape[-1]:
            raise ValueError(
                f"system.readout.tail={self.tail:g} must be from {outputs}, the number of outputs, to {y.shape[-1]}, the "
                "samples of a recording"
            )
        return y[..., -int(self.tail) :]


class Energy(Windows):
    """The energies of `outputs` equal windows at the end of a recording: the means of y², as a square-law detector reads.

    `tail` as in `Windows`. `normalise="total"` divides by their sum: the share of the energy that arrives in each window.
    Without a number of outputs (a hidden layer) the whole recording is passed on as it is.
    Source: T. W. Hughes et al., Sci. Adv. 5, eaay6946 (2019).
    """

    def __init__(self, tail: float | None = None, normalise: Literal["none", "total"] = "none"):
        if normalise not in ("none", "total"):
            raise ValueError(f"system.readout.normalise={normalise} must be none or total")
        super().__init__(tail)
        self.share = normalise == "total"

    def __call__(self, y: Tensor, outputs: int | None) -> Tensor:
        if outputs is None:
            return y
        energy = resample(self.end(y, outputs).square(), outputs)
        return energy / energy.sum(-1, keepdim=True).clamp_min(1e-12) if self.share else energy


def uniform(shape: tuple[int, ...], centre: float, spread: float) -> Tensor:
    """centre + U(±spread)."""
    return centre + spread * (2 * torch.rand(shape) - 1)
