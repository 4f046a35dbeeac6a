"""The cost sheet: conversions, records, operations and energy of one inference, and what training took in the laboratory.

Counts come from devices.json and summary.json of the runs, prices from conf/costs.yaml with their sources. A run folder
that does not hold a count (older ones) has None there, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.reporting.folders import Run
from pnn.reporting.groups import DIGITAL, KINDS, Group, representatives
from pnn.reporting.text import metric, percent

MARKS = {
    "quoted": "quoted second-hand",
    "recalled": "recalled, unverified",
    "assumption": "assumption",
}
CONSTANTS = ("mac", "memory", "adc_step", "dac_step", "bits")
#: Kinds without any physical layer.
NO_PHYSICS = tuple(DIGITAL.values())
#: Kinds whose devices are replaced by digital stand-ins: they convert and record nothing.
REPLACED = ("identity", "clamped")


@dataclass(frozen=True)
class Price:
    """One constant: value, unit, and where it comes from."""

    name: str
    value: float
    unit: str
    mark: str
    source: str


@dataclass(frozen=True)
class Instrument:
    """What holds a system: its power while it records (W), and seconds a record where the system has no scale of its own."""

    power: float
    seconds: float | None
    mark: str
    source: str


@dataclass(frozen=True)
class Prices:
    """conf/costs.yaml."""

    constants: dict[str, Price]
    instruments: dict[str, Instrument]

    def __getitem__(self, name: str) -> float:
        return self.constants[name].value


@dataclass(frozen=True)
class Cost:
    """One inference of one network (counts a sample; energies in J; None: unknown or without an absolute scale)."""

    dac: int | None
    adc: int | None
    records: int | None
    seconds: float | None
    physical_macs: int | None  # to compute the physics digitally, at the resolution of the device
    digital_macs: int | None
    stored: int | None  # trainable parameters outside the physics, and in its drive
    physical: int | None  # trainable parameters that are constants of the apparatus
    converters: float | None
    instrument: float | None
    digital: float | None

    @property
    def energy(self) -> float | None:
        """All of it, J."""
        parts = (self.converters, self.instrument, self.digital)
        return None if any(p is None for p in parts) else sum(p for p in parts if p is not None)


def prices(path: Path) -> Prices:
    """The constants in `path`. Raises UserError for a file that cannot be understood."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
        constants = {name: Price(name, **entry) for name, entry in content["constants"].items()}
        instruments = {name: Instrument(**entry) for name, entry in content["instruments"].items()}
        for name in CONSTANTS:
            if not constants[name].value >= 0:
                raise ValueError(f"{name}={constants[name].value} must be >= 0")
        for name, one in instruments.items():
            for key, value in (("power", one.power), ("seconds", one.seconds)):
                if value is not None and not (isinstance(value, (int, float)) and value >= 0):
                    raise ValueError(f"{name}.{key}={value} must be a number >= 0; YAML wants a dot: 2.0e+1, not 2e1")
        for mark in [p.mark for p in constants.values()] + [i.mark for i in instruments.values()]:
            if mark not in MARKS:
                raise ValueError(f"{mark} must be one of {', '.join(MARKS)}")
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}") from error
    return Prices(constants, instruments)


def cost(run: Run, rate: Prices) -> Cost | None:
    """One inference of the network of `run`; None for folders that do not say what one takes."""
    card = run.devices
    try:
        uses = list(card["devices"].values())
        digital_macs = int(card["digital_macs"])
        if run.config.get("reference") in REPLACED:
            digital_macs += sum(int(u["macs"]) for u in uses)
            stand_ins, uses = uses, []
        else:
            stand_ins = []
        records = sum(u["records"] for u in uses)
        dac, adc = (sum(u["records"] * u[side] for u in uses) for side in ("drive", "record"))
        own = sum(u["trainable"] - u["encoder"] for u in (*uses, *stand_ins))
        stored = int(run.summary["parameters"]) - own
        macs = sum(u["macs"] for u in uses)
        times = [record_seconds(use, rate) for use in uses]
        seconds = None if None in times else sum(u["records"] * (t or 0.0) for u, t in zip(uses, times, strict=True))
        bits = [float(run.config["device"].get(f"{side}_bits") or rate["bits"]) for side in ("dac", "adc")]
        watts = [rate.instruments.get(u["system"]) for u in uses]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    steps = [2.0**b for b in bits]
    converters = dac * steps[0] * rate["dac_step"] + adc * steps[1] * rate["adc_step"]
    digital = digital_macs * rate["mac"] + stored * rate["memory"]
    instrument = None
    if seconds is not None and None not in watts:
        instrument = sum(
            u["records"] * (t or 0.0) * w.power for u, t, w in zip(uses, times, watts, strict=True) if w is not None
        )
    return Cost(dac, adc, records, seconds, macs, digital_macs, stored, own, converters, instrument, digital)


def record_seconds(use: dict[str, Any], rate: Prices) -> float | None:
    """Of one record: the system's own, or that of the instrument that holds it."""
    own = use["record_seconds"]
    instrument = rate.instruments.get(use["system"])
    return own if own is not None else instrument.seconds if instrument else None


def laboratory_seconds(group: Group, rate: Prices) -> float | None:
    """Record time of all the measurements of one run (training, validation, test, twin), a mean over runs, s.

    Every pass of a sample goes through every layer, so its records share the time in the proportion of one inference.
    """
    measured, times = samples(group), []
    for run, count in zip(group.runs, measured or (), strict=bool(measured)):
        c = cost(run, rate)
        if c is None or c.seconds is None or not c.records:
            return None
        times.append(count * c.seconds / c.records)
    return sum(times) / len(times) if times else None


def samples(group: Group) -> list[float] | None:
    """Samples that the devices of every run measured; None where one does not say."""
    counts = [run.summary.get("device_samples") for run in group.runs]
    known = [float(count) for count in counts if isinstance(count, int | float)]
    return known if len(known) == len(counts) else None


@dataclass(frozen=True)
class Line:
    """One line of the cost sheet."""

    group: Group
    cost: Cost | None


def sheet(groups: Sequence[Group], rate: Prices) -> list[Line]:
    """One experiment: its network on the device, once (training modes share it), then the networks without a device.

    Of several perceptrons the smallest that is at least as accurate as the physical network, else the most accurate.
    """
    shown = representatives(groups)
    physical = next((shown[k] for k in ("pat", "ideal", "in_silico") if k in shown), None)
    if perceptrons := [g for g in groups if g.kind == "perceptron"]:
        shown["perceptron"] = _equal(perceptrons, physical.on_device.mean if physical else math.inf, rate)
    digital = [shown[k] for k in (*NO_PHYSICS, *REPLACED) if k in shown]
    return [Line(g, newest_cost(g, rate)) for g in ([physical] if physical else []) + digital]


def _equal(groups: Sequence[Group], accuracy: float, rate: Prices) -> Group:
    """The cheapest group that reaches `accuracy`, else the most accurate one."""

    def macs(group: Group) -> float:
        found = newest_cost(group, rate)
        return math.inf if found is None or found.digital_macs is None else found.digital_macs

    enough = [g for g in groups if g.on_device.mean >= accuracy]
    return min(enough, key=macs) if enough else max(groups, key=lambda g: g.on_device.mean)


def newest_cost(group: Group, rate: Prices) -> Cost | None:
    """The cost of the newest run that says one; all runs of a group have one network."""
    runs = sorted(group.runs, key=lambda run: run.written, reverse=True)
    return next((found for run in runs if (found := cost(run, rate)) is not None), None)


def equal_accuracy(groups: Sequence[Group], rate: Prices) -> str | None:
    """The cheapest digital network that is at least as accurate as the physical one, or that none was run."""
    lines = sheet(groups, rate)
    if not lines or lines[0].group.kind in NO_PHYSICS or lines[0].group.kind in REPLACED:
        return None
    ours, *others = lines
    seen = ours.group.on_device.mean
    digital = [line for line in others if line.group.kind in NO_PHYSICS]
    run = {line.group.kind: f": {percent(line.group.on_device.mean)}" for line in digital}
    said = [KINDS[kind] + run.get(kind, ": not run") for kind in NO_PHYSICS]
    enough = [line for line in digital if line.group.on_device.mean >= seen]
    text = f"At least as accurate as the physical network ({percent(seen)}) without physics: "
    if not enough:
        return f"{text}none that was run ({'; '.join(said)})."
    best = min(enough, key=lambda line: line.cost.digital_macs or 0 if line.cost else float("inf"))
    text += f"{best.group.label} ({percent(best.group.on_device.mean)})"
    both = [line.cost.energy if line.cost else None for line in (ours, best)]
    if both[0] is None or not both[1]:
        return f"{text}; energies cannot be compared ({'no absolute scale' if ours.cost else 'older run folders'})."
    ratio = max(both[0] / both[1], both[1] / both[0])
    times = f"{float(f'{ratio:.3g}'):,.15g} times"
    more = f"{times} as much" if both[0] >= both[1] else f"{times} less"
    return f"{text}, {metric(both[1], 'J')} an inference; the physical network takes {metric(both[0], 'J')}, {more}."
