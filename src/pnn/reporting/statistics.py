"""Means with confidence intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds and the half width of its 95 % confidence interval; None where one run gives no interval."""

    mean: float
    half: float | None
    n: int


def half_width(error: float, freedom: float, level: float = 0.95) -> float:
    """t · s.e. with Student's t of `freedom` degrees at two-sided `level`."""
    return float(stdtrit(freedom, 0.5 + level / 2)) * error


def variance_of_mean(values: Sequence[float]) -> float:
    """s²/n with s² = Σ (v − v̄)²/(n − 1)."""
    n = len(values)
    mean = math.fsum(values) / n
    return math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n


def estimate(values: Sequence[float]) -> Estimate:
    """v̄ ± t(n − 1) √(s²/n), the 95 % interval of Student's t. Raises ValueError without values."""
    n = len(values)
    if n == 0:
        raise ValueError("a mean needs at least one value")
    mean = math.fsum(values) / n
    return Estimate(mean, half_width(math.sqrt(variance_of_mean(values)), n - 1) if n > 1 else None, n)


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of `first` minus mean of `second` with Welch's interval (unequal variances); n is the smaller count."""
    a, b, n = estimate(first), estimate(second), min(len(first), len(second))
    if n < 2:
        return Estimate(a.mean - b.mean, None, n)
    va, vb = variance_of_mean(first), variance_of_mean(second)
    total = va + vb
    if total == 0:
        return Estimate(a.mean - b.mean, 0.0, n)
    freedom = total**2 / (va**2 / (len(first) - 1) + vb**2 / (len(second) - 1))
    return Estimate(a.mean - b.mean, half_width(math.sqrt(total), freedom), n)


def paired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of first − second, pair by pair, with Student's interval of the n differences. Raises ValueError without pairs."""
    return estimate([a - b for a, b in zip(first, second, strict=True)])


def independent(values: Mapping[Any, float], split_of: Callable[[Any], Hashable]) -> dict[Hashable, float]:
    """A number of each run → independent numbers: of several splits one each, the mean over its runs, since these share its
    data; else one a run.
    """
    splits: dict[Hashable, list[float]] = {}
    for run, value in values.items():
        splits.setdefault(split_of(run), []).append(value)
    return {split: fmean(own) for split, own in splits.items()} if len(splits) > 1 else dict(values)
