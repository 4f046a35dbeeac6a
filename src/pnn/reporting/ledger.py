"""The ledger: results in one text file, a line of JSON each, so that they outlive their folders and machines.

A group of runs is a line with what they share, `config` (of the first run) and `devices`, and `runs`: of each its folder,
seeds, summary, environment, curves, the time when it was written, and what a transfer study found. A twin card, a demo and
an alignment are a line each: `kind`, the `path` of the file it was read from, `content`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.reporting.checks import (
    Damaged,
    checked_alignment,
    checked_card,
    checked_config,
    checked_summary,
    checked_transfer,
)
from pnn.reporting.folders import Found, Run
from pnn.reporting.groups import SEEDS, Group, flat, replica, settings_of

#: Columns of metrics.csv that are kept, for curves and the length of a training.
CURVES = ("epoch", "step", "val_accuracy_device", "val_accuracy_model")
#: Epochs of a curve that are kept at most: evenly spread, the first and the last among them.
KEPT = 50
#: Lists of Found that are kept file by file, and how a file of each is checked.
FILES = {"twins": checked_card, "demos": checked_card, "alignments": checked_alignment}
#: Parts of them that no table shows: the points of a picture, and of every output its own error.
UNSHOWN = ("scatter", "error_by_output")


def read(path: Path) -> Found:
    """What a ledger keeps; nothing where there is no file. Raises UserError for one with a line that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise UserError(f"--ledger {path} cannot be read ({error})") from error
    kept = Found()
    for number, written in enumerate(lines, 1):
        try:
            content = json.loads(written)
            if "kind" in content:
                place = Path(content["path"])
                getattr(kept, content["kind"]).append((place, FILES[content["kind"]](place, content["content"])))
            else:
                kept.runs += restored(content)
        except (Damaged, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"line {number} cannot be read ({type(error).__name__}: {error})"
            raise UserError(f"--ledger {path}: {what}; restore the file, nothing was written") from error
    return kept


def add(found: Found, kept: Found) -> None:
    """Add to `found` what is only in `kept`: other runs, parts that a folder has lost since, and files of other places."""
    before = {identity(run): run for run in kept.runs}
    found.runs = [completed(run, before.pop(identity(run), None)) for run in found.runs] + list(before.values())
    for kind in FILES:
        mine = getattr(found, kind)
        places = {path.resolve() for path, _ in mine}
        mine += [(path, content) for path, content in getattr(kept, kind) if path.resolve() not in places]
        mine.sort(key=lambda item: item[0])


def completed(run: Run, kept: Run | None) -> Run:
    """`run` with its curves, devices and transfer as they were kept, where its folder has none any more."""
    lost = [name for name in ("metrics", "devices", "transfer") if not getattr(run, name)]
    return replace(run, **{name: getattr(kept, name) for name in lost}) if kept else run


def text(groups: Sequence[Group], found: Found) -> str:
    """The ledger of these groups, and of the twin cards, demos and alignments of `found`."""
    files = [
        {"kind": kind, "path": str(path), "content": shown(content)}
        for kind in FILES
        for path, content in getattr(found, kind)
    ]
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in [*map(line, groups), *files])


def shown(content: Any) -> Any:
    """What tables show of a file: without the points of pictures; numbers with all digits, for tables to round once."""
    if isinstance(content, dict):
        return {key: shown(value) for key, value in content.items() if key not in UNSHOWN}
    if isinstance(content, list):
        return [shown(value) for value in content]
    return content


def line(group: Group) -> dict[str, Any]:
    known = next((run.devices for run in group.runs if run.devices), {})
    devices = {key: value for key, value in known.items() if key != "recipe"}  # the recipe is in the config
    config = {key: value for key, value in group.runs[0].config.items() if key != "out"}
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
    if not math.isfinite(value):
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
