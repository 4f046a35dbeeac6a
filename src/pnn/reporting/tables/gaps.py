"""Gap curves as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from pnn.reporting.gaps import gains, gap_series, studies
from pnn.reporting.groups import Group, by_experiment
from pnn.reporting.tables.table import csv_text


def gaps_csv(groups: Sequence[Group]) -> str:
    """One line a kind and gap of every series: mean, half width, n."""
    rows = [
        (name, g.kind, g.gap, g.on_device.mean, g.on_device.half, m and m.mean, m and m.half, g.on_device.n)
        for name, members in by_experiment(groups).items()
        for series in gap_series(members)
        for g in series.members
        for m in (g.on_model,)
    ]
    heads = "experiment kind gap accuracy_device half_width_95 accuracy_model half_width_model_95 n"
    return csv_text(heads.split(), rows)


def gap_gains_csv(groups: Sequence[Group]) -> str:
    """One line a gap and comparison: PAT − in silico and ideal − PAT."""
    rows = [
        (name, ours, against, g, found.estimate.mean, found.estimate.half, found.estimate.n, found.how)
        for name, members in by_experiment(groups).items()
        for modes in studies(members)
        for ours, against in (("pat", "in_silico"), ("ideal", "pat"))
        for g, found in gains(modes, ours, against)
    ]
    return csv_text(["experiment", "ours", "against", "gap", "difference", "half_width_95", "n", "interval"], rows)
