"""What a run, a twin card, a demo, a transfer or an alignment must hold to be counted, whatever file it was read from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: What a summary must hold to be counted: name → kind of value.
NUMBERS = ("test_accuracy_device", "test_accuracy_model", "device_calls", "parameters", "wall_seconds")


class Damaged(Exception):
    """A file of a run folder cannot be used; the message says which and why."""


def number(value: Any) -> float:
    """`value` if it is a number, and not text that looks like one. Raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def checked_config(content: Any, source: str) -> dict[str, Any]:
    """The configuration of a run that has what groups are made of. Raises Damaged."""
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise Damaged(f"{source} names no experiment (key name)")
    for part in ("training", "device", "architecture", "trainer", "task"):
        if not isinstance(content.get(part), dict):
            raise Damaged(f"{source} has no {part}")
    for part, key in (("device", "gap"), ("task", "batch_size")):
        value = content[part].get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise Damaged(f"{source}: {part}.{key}={value} must be a number")
    return {str(key): value for key, value in content.items()}


def checked_summary(summary: dict[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
    """`summary`, if its numbers are numbers (`optional` ones may be missing), accuracies in [0, 1]. Raises Damaged."""
    for key in NUMBERS:
        value = summary.get(key)
        if value is None and key in optional:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Damaged(f"summary.json: {key}={value} must be a finite number")
        if "accuracy" in key and not 0 <= value <= 1:
            raise Damaged(f"summary.json: {key}={value} must lie in [0, 1]")
    return summary


def checked_card(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """A twin card or a demo that has what its table needs. Raises Damaged."""
    try:
        if path.name == "card.json":
            list(content.get("verdict", ()))
            (content.get("environment") or {}).get("command")
            curves = (content.get("learning_curve") or {}).values()
            for point in (point for curve in curves for point in curve):
                number(point["error"]), int(point["measurements"])
            cost = content.get("measurements") or {}
            for count in (cost.get("fitted", 0), cost.get("device_samples", 0)):
                int(count)
            for fit in content["fits"].values():
                number(fit["error"]), number(fit["r2"])
                jacobian = fit.get("jacobian") or {}
                visited = (fit.get("visited") or {}).get("error")
                for value in (fit.get("noise"), fit.get("bias"), visited, *jacobian.values()):
                    number(0 if value is None else value)
        else:
            [number(v) for v in (content.get("references") or {}).values()]
            for entry in content["gaps"]:
                number(entry["gap"])
                for pair in entry.get("pat_minus", {}).values():
                    number(pair["difference"]), number(pair["error"]), str(pair["verdict"])
                for row in entry["modes"].values():
                    if not (row["device"] and row["model"]):
                        raise ValueError("a mode without accuracies")
                    [number(v) for v in (*row["device"], *row["model"], row["output_gap"])]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Damaged(f"{path.name} is incomplete ({type(error).__name__}: {error})") from error
    return content


def checked_transfer(content: dict[str, Any]) -> dict[str, Any]:
    """What a transfer study wrote: accuracies in [0, 1] at distances >= 0. Raises Damaged."""
    try:
        numbers = [float(content["trained_gap"]), *(float(row["distance"]) for row in content["rows"])]
        seen = [float(row["accuracy"]) for row in content["rows"]]
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"transfer.json is incomplete ({type(error).__name__}: {error})") from error
    if not (seen and all(0 <= v <= 1 for v in seen) and all(0 <= v < math.inf for v in numbers)):
        raise Damaged("transfer.json must hold rows with distances >= 0 and accuracies in [0, 1]")
    return content


def checked_alignment(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What pnn-evaluate diagnose=gradients wrote. Raises Damaged."""
    try:
        for row in content["alignment"]:
            str(row["layer"]), str(row["mode"]), number(row["cosine"]), number(row["norm_ratio"])
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path.name}: its alignment is incomplete ({error})") from error
    return content
