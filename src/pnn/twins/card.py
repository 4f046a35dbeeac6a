"""The twin card: how far a digital model is from its device, and how much of that is the device's own noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pnn.twins.measurements import Measurements
from pnn.twins.twin import Twin

Model = Callable[..., Tensor]
#: Inputs at which Jacobians are compared, and the most directions in which an output is probed.
POINTS, PROBES = 16, 64
#: What makes a simulated device's measurements of one input differ.
NOISES = ("input_noise", "output_noise", "relative_noise", "timing_jitter", "drift")
#: Points of the picture's scatter plot.
SCATTER = 400


def judge(model: Model, data: Measurements) -> dict[str, Any]:
    """Relative error ε = ‖ŷ − y‖/‖y − ȳ‖ of a single measurement y, ε² = bias² + noise²; R² = 1 − ε².

    ȳ: mean of each output over the rows. noise: repeatability √(⟨(y − y2)²⟩/2)/‖y − ȳ‖, from the repeats; without them
    noise and bias are None. `bias_squared_error` is the standard error of bias² over the rows: a bias below its root is not
    distinguishable from 0. `r2_worst_output` is the smallest R² of an output that varies.
    """
    with torch.no_grad():
        predicted = _in_pieces(model, data).double()
    y, n = data.mean.double(), len(data)
    spread = float(data.spread)
    spread = spread or math.nan
    half = torch.zeros_like(y) if data.y2 is None else (data.y - data.y2).double().square() / 4
    squared = (predicted - y).square() + half  # per single measurement
    per_output = (y - y.mean(0)).square().sum(0) + half.sum(0)
    varies = per_output > 1e-12 * float(per_output.max())
    r2 = 1 - squared.sum(0)[varies] / per_output[varies]
    error = math.sqrt(float(squared.sum()) / spread)
    result: dict[str, Any] = {
        "error": error,
        "noise": data.noise,
        "bias": None,
        "bias_squared": None,
        "bias_squared_error": None,
        "r2": 1 - error**2,
        "r2_worst_output": float(r2.min()) if len(r2) else None,
        "error_by_output": (squared.sum(0) * squared.shape[1] / spread).sqrt().tolist(),
    }
    if data.y2 is not None:
        rows = (squared - 2 * half).sum(1)  # ‖ŷ − f‖² + noise of zero mean
        bias_squared = float(rows.sum()) / spread
        result |= {
            "bias": math.sqrt(max(bias_squared, 0.0)),
            "bias_squared": bias_squared,
            "bias_squared_error": float(rows.std()) * math.sqrt(n) / spread if n > 1 else None,
        }
    return result


def _in_pieces(model: Model, data: Measurements, size: int = 256) -> Tensor:
    pieces = zip(data.x.split(size), *(t.split(size) for t in data.theta), strict=True)
    return torch.cat([model(*piece) for piece in pieces])


def jacobian_error(model: Model, device: Any, data: Measurements, names: Sequence[str]) -> dict[str, float]:
    """‖J_m − J_p‖_F/‖J_p‖_F of ∂f/∂x and of ∂f/∂θ, each over 16 inputs of `data`, and the cosine between them.

    J_p is the simulated device's (`device.differentiable`) with its noise switched off; the device is left as it was.
    More than 64 outputs are probed in 64 random ± 1 directions, an unbiased estimate of the norms.
    """
    some = data.rows(slice(0, POINTS))
    outputs = some.y.shape[1]
    probes = torch.eye(outputs)
    if outputs > PROBES:
        probes = torch.randint(2, (PROBES, outputs), generator=torch.Generator().manual_seed(0)).float() * 2 - 1
    state = device.state_dict()
    try:
        theirs = _pullbacks(_quiet(device).differentiable, some, probes)
    finally:
        device.load_state_dict(state)
    result = {}
    for name, mine, truth in zip(("x", *names), _pullbacks(model, some, probes), theirs, strict=True):
        result[name] = float((mine - truth).norm() / truth.norm()) if truth.any() else math.nan
        result[f"{name}_cosine"] = float((mine * truth).sum() / (mine.norm() * truth.norm()).clamp(min=1e-300))
    return result


def _quiet(device: Any) -> Any:
    """The same device without noise; shares its physics, ledger and random state."""
    quiet = copy.copy(device)
    for name in NOISES:
        if hasattr(quiet, name):
            setattr(quiet, name, 0.0)
    return quiet


def _pullbacks(model: Model, data: Measurements, probes: Tensor) -> list[Tensor]:
    """vᵀJ for every probe v, (probes, n, …) for x and each θ; rows do not see each other, so one pass serves them all."""
    inputs = [t.clone().requires_grad_() for t in (data.x, *data.theta)]
    with torch.enable_grad():
        y = model(*inputs)
    found = []
    for probe in probes.to(y):
        found.append(
            torch.autograd.grad(
                y, inputs, probe.expand_as(y), retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )
    return [torch.stack(part).double() for part in zip(*found, strict=True)]


def learning_curve(
    make: Callable[[], Twin], train: Measurements, test: Measurements, *, seed: int = 0, progress: bool = True
) -> list[dict[str, Any]]:
    """Held-out error of new twins fitted to the first n/8, n/4 and n/2 measurements."""
    curve = []
    for part in (8, 4, 2):
        count = len(train) // part
        if count < 2:
            continue
        twin = make().fit(train.rows(slice(0, count)), seed=seed, progress=progress)
        score = judge(twin, test)
        curve.append({"measurements": count, "error": score["error"], "bias": score["bias"]})
    return curve


def twin_card(
    models: dict[str, Model],
    test: Measurements,
    *,
    visited: Measurements | None = None,
    device: Any = None,
    names: Sequence[str] = (),
    curves: dict[str, list[dict[str, Any]]] | None = None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of card.json: every model judged on held-out and on visited inputs, Jacobians, curves, a verdict.

    The first of `models` is the twin that the card is about; `names` are the names of θ. Jacobians are compared where the
    device is a simulated one.
    """
    fits: dict[str, Any] = {}
    for name, model in models.items():
        fits[name] = judge(model, test)
        fits[name]["visited"] = judge(model, visited) if visited is not None else None
        simulated = hasattr(device, "differentiable")
        fits[name]["jacobian"] = jacobian_error(model, device, test, names) if simulated else None
    first = next(iter(models))
    with torch.no_grad():
        some = test.rows(slice(0, max(1, SCATTER // test.y.shape[1])))
        pairs = {
            "measured": some.y.flatten().tolist(),
            "predicted": models[first](some.x, *some.theta).flatten().tolist(),
        }
    verdict = [_beside(first, other, fits) for other in list(models)[1:]]
    return {
        "model": first,
        **(about or {}),
        "fits": fits,
        "learning_curve": curves or {},
        "verdict": verdict,
        "scatter": {key: values[:SCATTER] for key, values in pairs.items()},
    }


def _beside(first: str, other: str, fits: dict[str, Any]) -> str:
    """How two models compare: in bias where the noise is known, by 5 % and two standard errors; else in error, by 5 %."""
    a, b = fits[first], fits[other]
    key, sure = "error", 0.0
    if a["bias"] is not None:
        key, sure = "bias", 2 * math.hypot(a["bias_squared_error"] or 0.0, b["bias_squared_error"] or 0.0)
    gain, numbers = b[key] ** 2 - a[key] ** 2, f"{key} {a[key]:.2%} and {b[key]:.2%}"
    if abs(gain) <= sure or not abs(a[key] - b[key]) > 0.05 * max(a[key], b[key]):
        return f"{first} is no better than {other}: {numbers}"
    return f"{first} is {'better' if gain > 0 else 'worse'} than {other}: {numbers}"
