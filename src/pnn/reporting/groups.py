"""Runs that differ in nothing but their seeds belong together; everything else is another group."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pnn.modes import MODE_LABELS
from pnn.reporting import statistics
from pnn.reporting.folders import Run
from pnn.reporting.statistics import Estimate, difference, estimate, paired

#: The rows of a reference table (PHYSICS of the project, "what the physical part really contributes"), in this order.
KINDS = {
    "pat": MODE_LABELS["pat"],
    "in_silico": MODE_LABELS["in_silico"],
    "ideal": MODE_LABELS["ideal"],
    "identity": "identity in place of every device",
    "clamped": "identity within the device's range",
    "linear_physics": "linearised physics",
    "linear_classifier": "linear classifier, no physics",
    "perceptron": "perceptron with one hidden layer, no physics",
}
#: Architectures without any physical layer, by class, and their rows.
DIGITAL = {"LinearClassifier": "linear_classifier", "Perceptron": "perceptron"}
#: Keys that name a replica: runs that differ only here are the seeds of one group.
SPLIT = "task.split_seed"
SEEDS = ("seed", "device.seed", "task.seed", SPLIT)
#: Keys that change where and how a run is written, not what it computes.
IRRELEVANT = (
    "out",
    "ckpt_path",
    "logger",
    "twin",
    "task.path",
    "trainer.enable_progress_bar",
    "trainer.accelerator",
    "trainer.devices",
    "hydra",
)
#: Keys that a reference without physics does not read, beside its device's constants (its gap is kept: the row's place).
PHYSICS = (
    "system",
    "model",
    "architecture",
    "one_device",
    "training.name",
    "training.mode",
    "training.penalty",
    "optimizer.factors",
)


@dataclass(frozen=True)
class Group:
    """One experiment, kind of row, gap and configuration: a run a seed."""

    experiment: str
    kind: str
    settings: dict[str, Any]  # the flat configuration without seeds
    runs: tuple[Run, ...]
    repeats: int = 0  # older runs of a seed that is there already; not counted

    @property
    def label(self) -> str:
        label, hidden = KINDS.get(self.kind, self.kind), self.settings.get("hidden")
        return label if hidden is None else label.replace("one hidden layer", f"{hidden} hidden units")

    @property
    def gap(self) -> float | None:
        """device.gap; None for devices that are described otherwise."""
        value = self.settings.get("device.gap")
        return None if value is None else float(value)

    @property
    def device(self) -> str:
        """The gap as a number, or the device's recipe by name."""
        recipe = str(self.settings.get("device._target_", "?")).rpartition(".")[2].replace("_", " ")
        return f"{self.gap:g}" if self.gap is not None else recipe

    def values(self, key: str) -> list[float]:
        """A number of summary.json, run by run."""
        return [float(run.summary[key]) for run in self.runs]

    def units(self, key: str) -> dict[Any, float]:
        """Independent values of a number of summary.json."""
        return independent(self.runs, self.values(key))

    @cached_property
    def on_device(self) -> Estimate:
        return estimate(list(self.units("test_accuracy_device").values()))

    @cached_property
    def on_model(self) -> Estimate | None:
        """None where a ledger does not know it of all runs."""
        known = all(run.summary.get("test_accuracy_model") is not None for run in self.runs)
        return estimate(list(self.units("test_accuracy_model").values())) if known else None

    @property
    def seconds(self) -> float:
        return sum(self.values("wall_seconds"))

    @property
    def commits(self) -> list[str]:
        """The commits that ran, in the order of the runs: those at the start, before anyone changed the checkout."""
        both = [r.environment.get("commit", r.summary.get("commit", "unknown")) for r in self.runs]
        return list(dict.fromkeys(str(commit) for commit in both))

    @property
    def epochs(self) -> int | None:
        """Epochs that the shortest run went through; None where no run has a metrics.csv."""
        return min((int(max(run.metrics["epoch"])) + 1 for run in self.runs if run.metrics.get("epoch")), default=None)

    @property
    def samples_seen(self) -> float:
        """Training samples that one run went through: steps × batch size."""
        batch = float(self.settings.get("task.batch_size") or 1)
        steps = [max(run.metrics["step"]) for run in self.runs if run.metrics.get("step")]
        return max(steps, default=0.0) * batch

    @property
    def weight(self) -> tuple[float, int, float]:
        """What makes a group stand for its kind: the longest training, then the most seeds, then the newest. No accuracy."""
        return self.samples_seen, len(self.runs), max(run.written for run in self.runs)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested containers as dotted keys; lists as JSON text; what is null is left out, like what is not there."""
    if not isinstance(config, dict):
        value = json.dumps(config) if isinstance(config, list) else config
        return {} if value is None else {prefix: value}
    return {k: v for key, part in config.items() for k, v in flat(part, f"{prefix}.{key}" if prefix else key).items()}


def kind_of(config: dict[str, Any]) -> str:
    """The row of the reference table: a reference, or the training mode."""
    name = str(config["architecture"].get("_target_", "")).rpartition(".")[2]
    if name in DIGITAL:
        return DIGITAL[name]
    reference = config.get("reference")
    if reference is not None:
        return {"linear": "linear_physics"}.get(reference, str(reference))
    return str(config["training"].get("name", "?"))


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The flat configuration without seeds, places and what a reference without physics does not read; of a given twin only
    that there is one.
    """
    unread = (*IRRELEVANT, *unread_physics(config))
    kept = {
        key: value
        for key, value in flat(config).items()
        if key not in SEEDS and not any(key == i or key.startswith(f"{i}.") for i in unread)
    }
    return kept | ({"twin": "given"} if config.get("twin") else {})


def unread_physics(config: dict[str, Any]) -> tuple[str, ...]:
    """Keys that play no part because `reference` replaces the whole network; a perceptron without `hidden` reads them all,
    since it takes its size from the network that it stands for.
    """
    reference = config.get("reference")
    if reference not in DIGITAL.values() or (reference == "perceptron" and config.get("hidden") is None):
        return ()
    return (*PHYSICS, *(f"device.{key}" for key in config["device"] if key not in ("gap", "_target_")))


def replica(config: dict[str, Any]) -> tuple[Any, ...]:
    """What tells the seeds of a group apart."""
    everything = flat(config)
    return tuple(everything.get(key) for key in SEEDS)


def independent(runs: Sequence[Run], values: Sequence[float]) -> dict[Any, float]:
    """A number of each run → independent numbers, by split where several were run, else by replica."""
    by_replica = {replica(run.config): value for run, value in zip(runs, values, strict=True)}
    return statistics.independent(by_replica, lambda seeds: seeds[SEEDS.index(SPLIT)])


def group(runs: Iterable[Run]) -> list[Group]:
    """Groups by experiment, kind, gap and configuration, in the order of the reference table.

    Of runs with equal seeds the newest counts: a repetition is no independent sample.
    """
    gathered: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(
            [run.config["name"], kind_of(run.config), settings_of(run.config)], sort_keys=True, default=str
        )
        gathered.setdefault(key, []).append(run)
    groups = []
    for members in gathered.values():
        newest = {replica(r.config): r for r in sorted(members, key=lambda r: (r.written, str(r.folder)))}
        kept = tuple(newest[key] for key in sorted(newest, key=str))
        first = kept[0].config
        groups.append(Group(first["name"], kind_of(first), settings_of(first), kept, len(members) - len(kept)))
    order = list(KINDS)
    rank = {kind: n for n, kind in enumerate(order)}
    return sorted(
        groups,
        key=lambda g: (
            g.experiment,
            rank.get(g.kind, len(order)),
            g.kind,
            -1.0 if g.gap is None else g.gap,
            *(-w for w in g.weight),
        ),
    )


def by_experiment(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Experiment → its groups."""
    found: dict[str, list[Group]] = {}
    for one in groups:
        found.setdefault(one.experiment, []).append(one)
    return found


def representatives(groups: Sequence[Group]) -> dict[str, Group]:
    """Kind → its group, all on the device for which most kinds were run (then the longest training)."""
    devices: dict[str, list[Group]] = {}
    for one in groups:
        devices.setdefault(one.device, []).append(one)
    best = max(devices.values(), key=lambda gs: (len({g.kind for g in gs}), max(g.weight for g in gs)), default=[])
    return {kind: max((g for g in best if g.kind == kind), key=lambda g: g.weight) for kind in {g.kind for g in best}}


def differences(one: Group, base: Group, but: Sequence[str] = ("device.gap",)) -> dict[str, Any]:
    """Settings of `one` that `base` does not share, leaving out `but`; null where `one` has none."""
    keys = dict.fromkeys((*base.settings, *one.settings))
    return {k: one.settings.get(k) for k in keys if k not in but and one.settings.get(k) != base.settings.get(k)}


def bases(groups: Sequence[Group]) -> dict[tuple[str, str], Group]:
    """(experiment, kind) → the group that the others of its kind are described against."""
    found: dict[tuple[str, str], Group] = {}
    for name, members in by_experiment(groups).items():
        shown = representatives(members)
        for kind in {g.kind for g in members}:
            found[name, kind] = shown.get(kind) or max((g for g in members if g.kind == kind), key=lambda g: g.weight)
    return found


@dataclass(frozen=True)
class Gain:
    """Test accuracy of one group minus that of another, and how its interval was made."""

    estimate: Estimate
    paired: bool

    @property
    def shown(self) -> bool:
        """Whether the whole 95 % interval lies above zero."""
        return self.estimate.half is not None and self.estimate.mean > self.estimate.half

    @property
    def how(self) -> str:
        n = self.estimate.n
        return f"paired t over {n} seeds or splits" if self.paired else "unpaired, Welch"


def gain(ours: Group, against: Group, key: str = "test_accuracy_device") -> Gain:
    """ours − against: paired over the replicas (seeds, devices, splits) that both have, where these are all of one side's and
    several or all of both; Welch's interval otherwise.
    """
    a, b = ({replica(run.config): run for run in one.runs} for one in (ours, against))
    shared = [name for name in a if name in b]
    if len(shared) == min(len(a), len(b)) and (len(shared) > 1 or len(a) == len(b)):
        first, second = (
            independent(runs, [float(run.summary[key]) for run in runs])
            for runs in ([side[name] for name in shared] for side in (a, b))
        )
        return Gain(paired(list(first.values()), [second[name] for name in first]), True)
    return Gain(difference(list(ours.units(key).values()), list(against.units(key).values())), False)
