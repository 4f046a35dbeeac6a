"""The cost sheet as tables and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields

from pnn.reporting.costs import (
    MARKS,
    NO_PHYSICS,
    REPLACED,
    Cost,
    Prices,
    laboratory_seconds,
    newest_cost,
    samples,
    sheet,
)
from pnn.reporting.groups import Group, by_experiment
from pnn.reporting.tables.table import Table, csv_text
from pnn.reporting.text import DASH, accuracy, count, duration, metric, range_of

INFERENCE = (
    "network",
    "accuracy",
    "parameters: in memory + in the apparatus",
    "MACs: digital",
    "done by physics",
    "DAC + ADC",
    "record time",
    "energy",
    "of it converters",
    "instrument",
    "digital part",
)
TRAINING = ("training", "n", "device calls", "records", "record time in the laboratory", "computing time")


def inference_table(groups: Sequence[Group], rate: Prices) -> Table:
    """One experiment: counts and energy of one inference; — where a run folder does not say, or nothing has a scale."""
    rows, classes = [], list[str]()
    for line in sheet(groups, rate):
        c, energies = line.cost, [DASH] * 4
        if c is not None:
            energies = [metric(e, "J") for e in (c.energy, c.converters, c.instrument, c.digital)]
        counts = [DASH] * 4
        if c is not None:
            counts = [
                both(c.stored, c.physical),
                large(c.digital_macs),
                large(c.physical_macs),
                both(c.dac, c.adc),
            ]
        time = metric(c.seconds, "s") if c else DASH
        rows.append([named(line.group), accuracy(line.group.on_device), *counts, time, *energies])
        classes.append("shown" if not classes else "")
    return Table(INFERENCE, rows, classes)


def named(group: Group) -> str:
    """The network of a line, with the gap of its device where it has one."""
    return group.label if group.kind in (*NO_PHYSICS, *REPLACED) else f"{group.label}, gap {group.device}"


def large(value: int | None) -> str:
    """A count with three digits and a prefix, whole below a thousand."""
    return count(value) if value is None or value < 1000 else metric(value, "")


def both(first: int | None, second: int | None) -> str:
    return f"{count(first)} + {count(second)}"


def training_table(groups: Sequence[Group], rate: Prices) -> Table:
    """One experiment: what the training of every configuration took, a mean over its runs."""
    rows = []
    for g in groups:
        measured = samples(g)
        seconds = laboratory_seconds(g, rate)
        if not any(g.values("device_calls")):
            continue
        rows.append(
            [
                named(g),
                str(len(g.runs)),
                range_of(g.values("device_calls")),
                DASH if measured is None else range_of(measured),
                DASH if seconds is None else duration(seconds),
                duration(g.seconds / len(g.runs)),
            ]
        )
    return Table(TRAINING, rows)


def price_table(rate: Prices) -> Table:
    """Every constant with its source."""
    rows = [[p.name, metric(p.value, p.unit), MARKS[p.mark], p.source] for p in rate.constants.values()]
    for name, i in rate.instruments.items():
        seconds = "" if i.seconds is None else f", {metric(i.seconds, 's')} a record"
        rows.append([f"power of {name}", metric(i.power, "W") + seconds, MARKS[i.mark], i.source])
    return Table(("constant", "value", "how sure", "source"), rows, left=frozenset({0, 2, 3}))


def costs_csv(groups: Sequence[Group], rate: Prices) -> str:
    """One line a group: the counts and energies of one inference, and of its training."""
    names = [f.name for f in fields(Cost)]
    rows = []
    for experiment, members in by_experiment(groups).items():
        for g in members:
            c = newest_cost(g, rate)
            measured = samples(g)
            rows.append(
                (
                    *(experiment, g.kind, g.device, g.on_device.mean, g.on_device.n),
                    *(astuple(c) if c else (None,) * len(names)),
                    c.energy if c else None,
                    sum(g.values("device_calls")) / len(g.runs),
                    None if measured is None else sum(measured) / len(measured),
                    laboratory_seconds(g, rate),
                    g.seconds / len(g.runs),
                )
            )
    heads = ("experiment", "kind", "gap", "accuracy", "n", *names, "energy")
    more = ("training_device_calls", "training_records", "training_record_seconds", "training_wall_seconds")
    return csv_text((*heads, *more), rows)
