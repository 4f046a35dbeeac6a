"""The ledger: finished runs in one text file, a line of JSON a group, so that results outlive their folders and machines.

A line holds what the runs of a group share, `config` (of the first run) and `devices`, and `runs`: of each its folder, seeds,
summary, environment, curves, the time when it was written, and what a transfer study found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.reporting.checks import Damaged, checked_config, checked_summary, checked_transfer
from pnn.reporting.folders import Run
from pnn.reporting.groups import SEEDS, Group, flat, replica, settings_of

#: Columns of metrics.csv that are kept, for curves and the length of a training.
CURVES = ("epoch", "step", "val_accuracy_device", "val_accuracy_model")
#: Epochs of a curve that are kept at most: evenly spread, the first and the last among them.
KEPT = 50


def read(path: Path) -> list[Run]:
    """The runs of a ledger; none where there is no file. Raises UserError for one with a line that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise UserError(f"--ledger {path} cannot be read ({error})") from error
    runs: list[Run] = []
    for number, written in enumerate(lines, 1):
        try:
            runs += restored(json.loads(written))
        except (Damaged, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"line {number} cannot be read ({type(error).__name__}: {error})"
            raise UserError(f"--ledger {path}: {what}; restore the file, nothing was written") from error
    return runs


def besides(runs: Sequence[Run], kept: Sequence[Run]) -> list[Run]:
    """Those of `kept` that are not among `runs`."""
    there = {identity(run) for run in runs}
    return [run for run in kept if identity(run) not in there]


def text(groups: Sequence[Group]) -> str:
    """The ledger of these groups."""
    return "".join(json.dumps(line(one), ensure_ascii=False) + "\n" for one in groups)


def line(group: Group) -> dict[str, Any]:
    first = group.runs[0]
    devices = {key: value for key, value in first.devices.items() if key != "recipe"}  # the recipe is in the config
    config = {key: value for key, value in first.config.items() if key != "out"}
    return {"config": config, "devices": devices, "runs": [entry(run) for run in group.runs]}


def entry(run: Run) -> dict[str, Any]:
    kept = {
        "folder": str(run.folder),
        "seeds": {key: value for key, value in flat(run.config).items() if key in SEEDS},
        "summary": run.summary,
        "environment": {key: value for key, value in run.environment.items() if key != "packages"},
        "curves": {name: [rounded(v) for v in thinned(run.metrics[name])] for name in CURVES if name in run.metrics},
        "written": round(run.written),
    }
    return kept | ({"transfer": run.transfer} if run.transfer else {})


def thinned(values: Sequence[float]) -> list[float]:
    last = len(values) - 1
    places = range(len(values)) if last < KEPT else sorted({round(n * last / (KEPT - 1)) for n in range(KEPT)})
    return [values[place] for place in places]


def rounded(value: float) -> float | int | None:
    if math.isnan(value):
        return None
    return int(value) if value == int(value) else round(value, 5)


def restored(content: dict[str, Any]) -> Iterator[Run]:
    """The runs of a line. Raises Damaged, or what Python raises for a part that is missing or of another kind."""
    for one in content["runs"]:
        config = json.loads(json.dumps(content["config"]))
        for key, value in one["seeds"].items():
            *above, last = str(key).split(".")
            node = config
            for part in above:
                node = node[part]
            node[last] = value
        curves = {
            str(name): [math.nan if v is None else float(v) for v in values] for name, values in one["curves"].items()
        }
        transfer = checked_transfer(one["transfer"]) if "transfer" in one else None
        yield Run(
            Path(one["folder"]),
            checked_config(config, "config"),
            checked_summary(one["summary"], optional=("test_accuracy_model",)),
            curves,
            dict(one["environment"]),
            dict(content["devices"]),
            written=float(one["written"]),
            transfer=transfer,
        )


def identity(run: Run) -> str:
    """The same for a run in its folder and in a ledger."""
    return json.dumps([settings_of(run.config), replica(run.config), run.summary], sort_keys=True, default=str)
