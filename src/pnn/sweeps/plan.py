"""What a search is: its options, what its trials have in common, and how a trial is composed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnn.config import checked, compose, plain
from pnn.rules import Config, look_up
from pnn.sweeps.space import Entry

#: What a trial's value is, by the command it runs.
SCORES = {"train": "validation accuracy (%)", "twin": "held-out bias (%)"}


@dataclass(frozen=True)
class Plan:
    """A checked sweep: its own options, what every trial has in common, and the space."""

    options: Config
    overrides: tuple[str, ...]  # of every trial
    base: Config  # the configuration they give
    space: tuple[Entry, ...]
    written: dict[str, Any]  # the space as it was written
    config_dir: str | None
    records: int | None = None  # most device records that one inference of a trial may take

    @property
    def command(self) -> str:
        return str(self.options["sweep"]["command"])

    @property
    def maximise(self) -> bool:
        return self.command == "train"

    @property
    def folder(self) -> Path:
        return Path(self.options["out"])

    @property
    def repetitions(self) -> list[list[str]]:
        """The overrides of each of a trial's training runs: run n has the shared values of the keys `over` plus n."""
        first = {key: look_up(self.base, key) for key in self.options["over"]}
        return [[f"{key}={value + n}" for key, value in first.items()] for n in range(self.options["repeats"])]

    def trial_folder(self, place: int) -> Path:
        return self.folder / f"trial-{place:04d}"


def composed(plan: Plan, drawn: list[str]) -> Config:
    """The checked configuration with drawn overrides. An option that is drawn takes from the sweep's experiment only the keys
    that the option has itself: the depth of a row of layers means nothing to an ensemble.
    """
    groups = {k: o for o in drawn if isinstance(plan.base.get(k := o.partition("=")[0]), dict)}
    if not groups:
        return checked(plan.command, [*plan.overrides, *drawn], plan.config_dir)
    own = plain(compose(plan.command, list(groups.values()), plan.config_dir))
    merged = plain(compose(plan.command, [*plan.overrides, *groups.values()], plan.config_dir))
    dropped = [f"~{name}" for key in groups for name in foreign(merged[key], own[key], key)]
    return checked(plan.command, [*plan.overrides, *drawn, *dropped], plan.config_dir)


def foreign(node: Config, own: Config, key: str) -> list[str]:
    """Keys of `node` that `own` lacks; an empty mapping in `own` takes any."""
    found = [f"{key}.{name}" for name in node if name not in own]
    for name, inner in own.items():
        if isinstance(inner, dict) and inner and isinstance(node.get(name), dict):
            found += foreign(node[name], inner, f"{key}.{name}")
    return found
