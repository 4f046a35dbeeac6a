"""The transfer matrix: networks trained on devices of gap g, judged on fresh devices at distance d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from pnn.reporting.statistics import estimate
from pnn.reporting.transfer import tolerated
from pnn.sweeps import figures, runs
from pnn.sweeps.grid import REPEATS, SPLIT, Repetition, Study, independent, repetition
from pnn.sweeps.table import write_csv

COLUMNS = ("training", "trained_gap", "distance", "accuracy", "half_width_95", "n", "seeds", "interval_over")


@dataclass(frozen=True)
class Tolerance:
    """How far fresh devices may be: the largest distance up to which the mean stays within a point of that at 0."""

    training: str
    gap: float
    distance: float
    furthest: float  # the largest distance that was tried


def matrix(plan: Study) -> list[dict[str, Any]]:
    """One row per (training mode and whatever else was varied, gap, distance): mean accuracy over seeds and devices, 95 %
    interval, counts.

    The devices of one seed share a network, so the interval is over the seeds' means (over those of the splits where there are
    several); over devices where there is one seed.
    """
    own = (*REPEATS, "training", "device.gap")
    further = [axis.key for axis in plan.axes if len(axis.values) > 1 and axis.key not in own]
    found: dict[tuple[str, float, float], dict[Repetition, list[float]]] = {}
    for point in plan.points:
        wanted = set(point.transfers)
        label = " ".join([point.config["training"]["name"], *(f"{key}={point.values[key]}" for key in further)])
        for row in runs.transfers(point.folder):
            if (row["distance"], row["distance_seed"]) in wanted:
                key = (label, float(point.config["device"]["gap"]), row["distance"])
                found.setdefault(key, {}).setdefault(repetition(point.values), []).append(row["accuracy"])
    table = []
    for (training, gap, distance), by_seed in sorted(found.items()):
        values = [value for own in by_seed.values() for value in own]
        means = independent({seed: fmean(own) for seed, own in by_seed.items()})
        one = len(means) == 1
        half = estimate(values if one else means).half
        splits = {dict(seed).get(SPLIT) for seed in by_seed}
        over = "devices" if one else "splits" if len(splits) > 1 else "seeds"
        counts = (fmean(means), half, len(values), len(means), over)
        table.append(dict(zip(COLUMNS, (training, gap, distance, *counts), strict=True)))
    return table


def tolerances(table: Sequence[dict[str, Any]]) -> list[Tolerance]:
    """The tolerance of the networks of every training mode and gap."""
    rows: dict[tuple[str, float], dict[float, float]] = {}
    for row in table:
        rows.setdefault((row["training"], row["trained_gap"]), {})[row["distance"]] = row["accuracy"]
    found = []
    for (training, gap), by_distance in rows.items():
        if 0.0 not in by_distance:
            continue
        found.append(Tolerance(training, gap, tolerated(by_distance), max(by_distance)))
    return found


def verdict(tolerated: Sequence[Tolerance]) -> str:
    """Whether the tolerated distance tracks the gap trained on: it grows with it, and is at least as large."""
    judged = [t for t in tolerated if 0 < t.gap <= t.furthest]
    if len(judged) < 2 or len({t.gap for t in judged}) < 2:
        return "not judged: needs two gaps > 0, and distances as large as they are"
    judged = sorted(judged, key=lambda t: t.gap)
    reaches = all(t.distance >= t.gap for t in judged)
    grows = all(a.distance < b.distance for a, b in pairwise(judged))
    if reaches and grows:
        return "the tolerated distance tracks the gap trained on"
    short = ", ".join(f"{t.distance:g} at gap {t.gap:g}" for t in judged)
    return f"the tolerated distance does not track the gap trained on: {short}"


def report(plan: Study) -> str:
    """Write transfer.csv and transfer.png; returns the matrix and the verdict in words."""
    table = matrix(plan)
    if not table:
        return "no network has been evaluated elsewhere yet"
    write_csv(plan.folder / "transfer.csv", table, COLUMNS)
    figures.transfer_figure(plan.name, table, plan.folder / "transfer.png")
    over = " or ".join(dict.fromkeys(row["interval_over"] for row in table))
    lines = [f"accuracy on fresh devices (%, ± 95 % interval over {over}):"]
    distances = sorted({row["distance"] for row in table})
    lines.append(f"{'trained on gap':>24}" + "".join(f"{f'distance {d:g}':>16}" for d in distances))
    for training, gap in dict.fromkeys((row["training"], row["trained_gap"]) for row in table):
        cells = {r["distance"]: r for r in table if (r["training"], r["trained_gap"]) == (training, gap)}
        lines.append(f"{f'{training} {gap:g}':>24}" + "".join(f"{_cell(cells.get(d)):>16}" for d in distances))
    found = tolerances(table)
    for training in dict.fromkeys(t.training for t in found):
        own = [t for t in found if t.training == training]
        lines += [f"{training}, gap {t.gap:g}: within one point up to distance {t.distance:g}" for t in own]
        lines.append(f"{training}: {verdict(own)}")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "—"
    return f"{100 * row['accuracy']:.2f}" + (
        f" ± {100 * row['half_width_95']:.2f}" if row["half_width_95"] is not None else ""
    )
