"""What a study leaves: points.csv, differences.csv, a picture, README.txt, and the same in words."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pnn.reporting.statistics import Estimate, estimate
from pnn.runs import write_atomically
from pnn.sweeps import runs
from pnn.sweeps.grid import REPEATS, Point, Repetition, Study, independent, repetition

#: Columns of points.csv behind those of the axes: name → key of summary.json.
RESULTS = {
    "test_accuracy_device": "test_accuracy_device",
    "test_accuracy_model": "test_accuracy_model",
    "val_accuracy_device": "val_accuracy_device",
    "gap_output_error": "gap_output_error",
    "device_calls": "device_calls",
    "parameters": "parameters",
    "seconds": "wall_seconds",
}
#: PAT minus these.
OTHERS = ("in_silico", "ideal")


def summary(point: Point) -> dict[str, Any]:
    """summary.json of a point; empty for one that is not finished."""
    try:
        return dict(json.loads((point.folder / "summary.json").read_text()))
    except FileNotFoundError:
        return {}


def rows(plan: Study) -> list[dict[str, Any]]:
    """One row per point, in the order of the grid: axes, seeds, state, results, reason of a failure, folder."""
    table = []
    for point in plan.points:
        found, claims = summary(point), runs.claims_of(point)
        reason = claims.failure(point.name)
        state = "finished" if runs.finished(point) else "failed" if reason is not None else "open"
        axes = {axis.key: point.values[axis.key] for axis in plan.axes}
        seeds = {"seed": point.config["seed"], "device_seed": point.config["device"].get("seed")}
        results = {name: found.get(key) for name, key in RESULTS.items()}
        table.append(axes | seeds | {"state": state} | results | {"reason": reason or "", "folder": point.name})
    return table


def write_csv(path: Path, table: Sequence[dict[str, Any]], names: Sequence[str] = ()) -> None:
    """Rows as CSV, whole or not at all; None is an empty cell."""

    def fill(place: Path) -> None:
        with place.open("w", newline="") as file:
            writer = csv.DictWriter(file, names or list(table[0]))
            writer.writeheader()
            writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in table)

    write_atomically(path, fill)


# means and differences


def cells(plan: Study, table: Iterable[dict[str, Any]]) -> dict[tuple[str, ...], dict[Repetition, float]]:
    """Values of every axis but the seeds → accuracy on the device by repetition, of finished points."""
    keys = [axis.key for axis in plan.axes if axis.key not in REPEATS]
    found: dict[tuple[str, ...], dict[Repetition, float]] = {}
    for row in table:
        if row["state"] == "finished":
            own = found.setdefault(tuple(row[key] for key in keys), {})
            own[repetition(row)] = row["test_accuracy_device"]
    return found


DIFFERENCES = ("at", "pair", "difference", "standard_error", "half_width_95", "n", "verdict")


def differences(plan: Study, table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """PAT minus in silico and minus ideal, paired over seeds, at every value of the other axes.

    A difference is shown when zero lies outside its 95 % interval (Student's t over the seeds, or over the splits where there
    are several). None without two modes.
    """
    keys = [axis.key for axis in plan.axes if axis.key not in REPEATS]
    if "training" not in keys:
        return []
    place, by_cell, found = keys.index("training"), cells(plan, table), []
    for values, pat in by_cell.items():
        if values[place] != "pat":
            continue
        at = " ".join(f"{k}={v}" for n, (k, v) in enumerate(zip(keys, values, strict=True)) if n != place)
        for other in OTHERS:
            rival = by_cell.get((*values[:place], other, *values[place + 1 :]), {})
            pairs = {seed: pat[seed] - rival[seed] for seed in pat if seed in rival}
            if pairs:
                found.append({"at": at, "pair": f"pat-{other}"} | _difference(independent(pairs)))
    return found


def _difference(pairs: Sequence[float]) -> dict[str, Any]:
    e = estimate(pairs)
    if e.half is None:
        return {"difference": e.mean, "standard_error": None, "half_width_95": None, "n": 1, "verdict": "one seed"}
    error = math.sqrt(math.fsum((p - e.mean) ** 2 for p in pairs) / (e.n - 1) / e.n)
    shown = error > 0 and abs(e.mean) > e.half  # equal differences of a few seeds are chance, not certainty
    sign = ("higher" if e.mean > 0 else "lower") if shown else "not shown"
    return {"difference": e.mean, "standard_error": error, "half_width_95": e.half, "n": e.n, "verdict": sign}


def render(plan: Study, table: Sequence[dict[str, Any]], paired: Sequence[dict[str, Any]]) -> str:
    """Means ± 95 % intervals of every cell, then the paired differences with theirs."""
    keys = [axis.key for axis in plan.axes if axis.key not in REPEATS]
    found = cells(plan, table)
    labels = {values: " ".join(f"{k}={v}" for k, v in zip(keys, values, strict=True)) for values in found}
    wide = max(len(label) for label in labels.values())
    lines = [f"{'':{wide}}  test accuracy on the device (%, ± 95 % interval over seeds or splits)"]
    lines += [f"{labels[values]:{wide}}  {shown(estimate(independent(scores)))}" for values, scores in found.items()]
    if paired:
        lines.append("paired differences (points, ± 95 % interval):")
    for row in paired:
        name = {"pat-in_silico": "PAT − in silico", "pat-ideal": "PAT − ideal"}[row["pair"]]
        half = "" if row["half_width_95"] is None else f" ± {100 * row['half_width_95']:.2f}"
        lines.append(
            f"  {row['at']:{wide}} {name:16} {100 * row['difference']:+6.2f}{half}  n = {row['n']}: {row['verdict']}"
        )
    return "\n".join(lines)


def shown(e: Estimate) -> str:
    """`84.91 ± 0.30  n = 5`."""
    half = "" if e.half is None else f" ± {100 * e.half:.2f}"
    return f"{100 * e.mean:6.2f}{half}  n = {e.n}"
