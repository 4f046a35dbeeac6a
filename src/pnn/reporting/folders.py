"""Reading: what the given folders hold. A damaged file is named and the rest goes on."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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

#: Files that make a folder a training run's.
MARKS = ("summary.json", "metrics.csv", "devices.json")
#: JSON files that are read under their own names; any other may be what pnn-evaluate wrote.
KNOWN = {"summary.json", "devices.json", "environment.json", "card.json", "demo.json", "transfer.json"}
#: Folders of a run that hold no runs.
SKIPPED = {"checkpoints", "wandb", "tensorboard", "node_modules", "__pycache__"}
LARGEST_JSON = 5_000_000
#: The folder of a search's trial.
TRIAL = re.compile(r"trial-\d+")


@dataclass(frozen=True)
class Run:
    """A finished run: its resolved configuration, summary.json, columns of metrics.csv ({}: damaged), and pictures."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    metrics: dict[str, list[float]] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    devices: dict[str, Any] = field(default_factory=dict)  # devices.json
    pictures: tuple[Path, ...] = ()
    written: float = 0.0  # when summary.json was
    transfer: dict[str, Any] | None = None  # transfer.json: {"trained_gap", "rows": [{"distance", "accuracy", …}]}

    @property
    def physical(self) -> int | None:
        """Trainable parameters of all physical layers; None where devices.json does not say."""
        try:
            return sum(int(device["trainable"]) for device in self.devices["devices"].values())
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None


@dataclass(frozen=True)
class Problem:
    """A folder that could not be counted, or a part of one."""

    folder: Path
    state: str  # unfinished or damaged
    what: str


@dataclass
class Found:
    """Everything that lies in the given folders."""

    runs: list[Run] = field(default_factory=list)
    twins: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    demos: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    alignments: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    studies: list[tuple[Path, list[str]]] = field(default_factory=list)  # trials.csv and the state of every trial
    problems: list[Problem] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.runs, self.twins, self.demos, self.alignments, self.studies, self.problems))


def find(folders: Sequence[Path], may_be_empty: bool = False) -> Found:
    """All runs, twins, demos and alignments in and below `folders`, each once. Raises UserError where there are none."""
    if not folders:
        raise UserError("no folder given; name run folders or a folder of them, e.g. pnn-report outputs")
    missing = [str(f) for f in folders if not f.is_dir()]
    if missing:
        raise UserError(f"{', '.join(missing)} is not a folder; name run folders or a folder of them")
    found = Found()
    for folder in walk(folders):
        (read_study if is_study(folder) else read_folder)(folder, found)
    if not found and not may_be_empty:
        named = ", ".join(map(str, folders))
        raise UserError(f"no run in {named}; a run folder holds config.yaml and summary.json (pnn-train writes them)")
    return found


def near(path: Path) -> Path:
    """The path as seen from here, if it lies below: the same however the folder was named."""
    whole, here = path.resolve(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else path


def walk(folders: Sequence[Path]) -> Iterator[Path]:
    """Every folder in and below `folders`, once, in the order of their names."""
    seen = set()
    for top in map(near, folders):
        for place, below, _ in os.walk(top):
            below[:] = sorted(d for d in below if d not in SKIPPED and not d.startswith("."))
            if is_study(Path(place)):
                below[:] = [d for d in below if not TRIAL.fullmatch(d)]  # trials see no test data: they are no results
            if (real := Path(place).resolve()) not in seen:
                seen.add(real)
                yield Path(place)


def is_study(folder: Path) -> bool:
    """Whether pnn-sweep keeps a search there: sweep.yaml with trials; a grid's folder holds ordinary runs."""
    trials = any(TRIAL.fullmatch(place.name) for place in folder.iterdir())
    return (folder / "sweep.yaml").is_file() and (trials or (folder / "trials.csv").is_file())


def read_study(folder: Path, found: Found) -> None:
    """Add the study in `folder`, or say what it lacks."""
    path = folder / "trials.csv"
    if not path.is_file():
        found.problems.append(Problem(folder, "unfinished", "a search without trials.csv"))
        return
    try:
        with path.open(newline="") as file:
            found.studies.append((path, [row["state"] or "unknown" for row in csv.DictReader(file)]))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        found.problems.append(Problem(folder, "damaged", f"trials.csv cannot be read ({error})"))


def read_folder(folder: Path, found: Found) -> None:
    """Add what lies directly in `folder` to `found`."""
    if any((folder / mark).is_file() for mark in MARKS) and not (folder / "card.json").is_file():
        read_run(folder, found)
    for path in sorted(folder.glob("*.json")):
        kind = {"card.json": "twins", "demo.json": "demos"}.get(path.name)
        try:
            if kind is not None:
                getattr(found, kind).append((path, checked_card(path, read_json(path))))
            elif path.name not in KNOWN and path.stat().st_size < LARGEST_JSON and "alignment" in read_json(path):
                found.alignments.append((path, checked_alignment(path, read_json(path))))
        except Damaged as error:
            if kind is not None or "alignment" in str(error):
                found.problems.append(Problem(folder, "damaged", str(error)))


def read_run(folder: Path, found: Found) -> None:
    """Add the run in `folder`, or say what it lacks."""
    try:
        config = read_config(folder / "config.yaml")
    except Damaged as error:
        found.problems.append(Problem(folder, "damaged", str(error)))
        return
    metrics: dict[str, list[float]] = {}
    problem: Problem | None = None
    try:
        metrics = read_metrics(folder / "metrics.csv")
    except Damaged as error:
        problem = Problem(folder, "damaged", str(error))
    if not (folder / "summary.json").is_file():
        epochs, of = len(metrics.get("epoch", ())), config.get("trainer", {}).get("max_epochs", "?")
        found.problems.append(problem or Problem(folder, "unfinished", f"{epochs} of {of} epochs, no summary.json"))
        return
    try:
        summary = checked_summary(read_json(folder / "summary.json"))
    except Damaged as error:
        found.problems.append(Problem(folder, "damaged", str(error)))
        return
    if problem is not None:
        found.problems.append(Problem(folder, "damaged", f"{problem.what}; its test accuracy still counts"))
    found.runs.append(
        Run(
            folder,
            config,
            summary,
            metrics,
            lenient(folder / "environment.json"),
            lenient(folder / "devices.json"),
            tuple(sorted(folder.glob("signals-*.png"))),
            (folder / "summary.json").stat().st_mtime,
            transfer_of(folder, found),
        )
    )


def transfer_of(folder: Path, found: Found) -> dict[str, Any] | None:
    """transfer.json of a run; a damaged one is named, and the run still counts."""
    path = folder / "transfer.json"
    if not path.is_file():
        return None
    try:
        return checked_transfer(read_json(path))
    except Damaged as error:
        found.problems.append(Problem(folder, "damaged", f"{error}; the run still counts"))
        return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises Damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"{path.name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise Damaged(f"{path.name} holds no JSON object")
    return content


def lenient(path: Path) -> dict[str, Any]:
    """A JSON object that only adds detail: empty where it is missing or damaged."""
    try:
        return read_json(path)
    except Damaged:
        return {}


def read_config(path: Path) -> dict[str, Any]:
    """config.yaml as plain containers. Raises Damaged."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{path.name} cannot be read ({first})") from error
    return checked_config(content, path.name)


def read_metrics(path: Path) -> dict[str, list[float]]:
    """metrics.csv as columns; empty cells are NaN. {} before the first epoch. Raises Damaged."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames or ()
        columns = {name: [float(row[name] or "nan") for row in rows] for name in names}
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise Damaged(f"{path.name} cannot be read ({error})") from error
    if not all(math.isfinite(epoch) for epoch in columns.get("epoch", [math.nan])):
        raise Damaged(f"{path.name} has no column epoch, or epochs without a number")
    return columns
