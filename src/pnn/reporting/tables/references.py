"""One experiment's kinds of runs side by side, and every run, as tables and CSV."""

from __future__ import annotations

from collections.abc import Sequence

from pnn.reporting.folders import Run
from pnn.reporting.groups import Group, bases, differences, kind_of, replica, representatives
from pnn.reporting.tables.table import Table, csv_text
from pnn.reporting.text import DASH, accuracy, duration, range_of, settings_text

HEADS = (
    "network and training",
    "gap",
    "on the device",
    "on its model",
    "n",
    "parameters",
    "of them physical",
    "device calls a run",
    "epochs",
    "wall time a run",
    "differs from the first choice of its kind by",
)


def reference_table(groups: Sequence[Group]) -> Table:
    """One experiment: every kind, gap and configuration; rows that stand for their kind are marked."""
    shown, base = representatives(groups).values(), bases(groups)
    rows, classes = [], []
    for one in groups:
        parameters = one.values("parameters")
        physical = [float(r.physical) for r in one.runs if r.physical is not None]
        rows.append(
            [
                one.label,
                one.device,
                accuracy(one.on_device),
                accuracy(one.on_model),
                str(one.on_device.n),
                range_of(parameters),
                range_of(physical) if physical and max(physical) <= max(parameters) else DASH,
                range_of(one.values("device_calls")),
                DASH if one.epochs is None else str(one.epochs),
                duration(one.seconds / len(one.runs)),
                settings_text(differences(one, base[one.experiment, one.kind])) or DASH,
            ]
        )
        standing = any(one is s for s in shown)
        classes.append("shown" if standing else "variant" if rows[-1][-1] != DASH else "")
    return Table(HEADS, rows, classes, frozenset({0, 10}))


def references_csv(groups: Sequence[Group]) -> str:
    rows, base = [], bases(groups)
    for g in groups:
        d, m = g.on_device, g.on_model
        means = [sum(g.values(key)) / len(g.runs) for key in ("parameters", "device_calls", "wall_seconds")]
        other = "; ".join(f"{k}={v}" for k, v in differences(g, base[g.experiment, g.kind]).items())
        mine = (g.experiment, g.kind, g.gap, g.settings.get("device._target_"))
        model = (m.mean, m.half) if m else (None, None)
        rows.append((*mine, d.mean, d.half, *model, d.n, g.repeats, *means, " ".join(g.commits), other))
    heads = (
        "experiment kind gap device accuracy_device half_width_device_95 accuracy_model half_width_model_95 n "
        "repeats_left_out parameters device_calls wall_seconds commits differs_by"
    )
    return csv_text(heads.split(), rows)


def runs_csv(runs: Sequence[Run]) -> str:
    keys = ("test_accuracy_device", "test_accuracy_model", "val_accuracy_device", "best_epoch", "gap_output_error")
    more = ("device_calls", "device_samples", "parameters", "wall_seconds", "commit")
    rows = [
        (
            r.folder,
            r.config["name"],
            kind_of(r.config),
            r.config["training"].get("name"),
            r.config.get("reference"),
            r.config["device"].get("gap"),
            *replica(r.config),
            *(r.summary.get(k) for k in (*keys, *more)),
            r.physical,
            r.environment.get("command"),
        )
        for r in runs
    ]
    heads = ("folder", "experiment", "kind", "training", "reference", "gap")
    seeds = ("seed", "device_seed", "task_seed", "split_seed")
    return csv_text((*heads, *seeds, *keys, *more, "parameters_physical", "command"), rows)
