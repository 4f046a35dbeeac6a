"""Pictures of a study: accuracy against its axis with bands, and the transfer matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from pnn.figures import INK, MODE_COLOURS
from pnn.modes import MODE_LABELS
from pnn.reporting.statistics import estimate
from pnn.runs import write_atomically
from pnn.sweeps.grid import REPEATS, Study, independent
from pnn.sweeps.table import cells

#: Okabe-Ito colours, markers and dashes: distinguishable with any colour vision, and in grey.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
MOST_PANELS = 6


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def across(plan: Study) -> str | None:
    """The axis along the picture: the first with several values that are numbers, else any with several, else any at all."""
    axes = [axis for axis in plan.axes if axis.key not in (*REPEATS, "training")]
    several = [axis for axis in axes if len(axis.values) > 1]
    numeric = [axis for axis in several if all(number(value) is not None for value in axis.values)]
    return next((axis.key for axis in (*numeric, *several, *axes)), None)


def accuracy_figure(plan: Study, table: Sequence[dict[str, Any]], path: Path) -> None:
    """Test accuracy on the device: a line per training mode, a band of its 95 % interval, a panel per further axis."""
    keys = [axis.key for axis in plan.axes if axis.key not in REPEATS]
    found = cells(plan, table)
    axis_key = across(plan)
    texts = next((axis.values for axis in plan.axes if axis.key == axis_key), ("",))
    numeric = all(number(text) is not None for text in texts)
    place = {text: float(text) if numeric else float(n) for n, text in enumerate(texts)}
    referred = any(point.config["reference"] for point in plan.points)  # no training mode names those
    only = "" if referred else plan.points[0].config["training"]["name"]
    lines: dict[str, dict[str, list[tuple[float, Any]]]] = {}
    for values, scores in found.items():
        at = dict(zip(keys, values, strict=True))
        mode = at.pop("training", only)
        x = place[at.pop(axis_key, "") if axis_key else ""]
        panel = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in at.items() if _varies(plan, k))
        lines.setdefault(panel, {}).setdefault(mode, []).append((x, estimate(independent(scores))))
    panels = list(lines)[:MOST_PANELS]
    size = (max(6.5, 3.6 * len(panels)), 4.0)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for n, (mode, curve) in enumerate(lines[panel].items()):
            aside = 0.0 if numeric else 0.12 * (n - (len(lines[panel]) - 1) / 2)
            _curve(axis, [(x + aside, e) for x, e in sorted(curve, key=lambda p: p[0])], mode, n, joined=numeric)
        axis.set(xlabel=axis_key or "", title=panel or plan.name)
        xs = sorted(place.values())
        if numeric and xs[0] > 0 and xs[-1] / xs[0] >= 20:
            axis.set_xscale("log")
        if axis_key is None or not numeric:
            axis.set_xticks(list(place.values()), list(place))
            axis.set_xlim(min(xs) - 0.6, max(xs) + 0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("test accuracy on the device (%)")
    axes[0][0].legend(frameon=False, fontsize=8)
    write_atomically(path, lambda place: figure.savefig(place, dpi=150))
    plt.close(figure)


def _curve(axis: Any, curve: Sequence[tuple[float, Any]], mode: str, number: int, joined: bool) -> None:
    """A line with its band where the axis is one of numbers, else points with error bars: nothing lies between two names."""
    x = [place for place, _ in curve]
    mean = [100 * e.mean for _, e in curve]
    half = [100 * (e.half or 0.0) for _, e in curve]
    colour = MODE_COLOURS.get(mode, LINES[number % len(LINES)])
    counts = sorted({e.n for _, e in curve})
    n = f"n = {'-'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}"
    label = f"{MODE_LABELS.get(mode, mode)}, {n}" if mode else n
    joined = joined and len(x) > 1
    line = "-" if joined else "none"
    axis.plot(x, mean, color=colour, marker=MARKS[number % len(MARKS)], ms=4.5, lw=1.6, ls=line, label=label)
    if joined:
        low, high = [m - h for m, h in zip(mean, half, strict=True)], [m + h for m, h in zip(mean, half, strict=True)]
        axis.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    elif any(half):
        axis.errorbar(x, mean, half, color=colour, capsize=4, ls="none")


def _varies(plan: Study, key: str) -> bool:
    return any(axis.key == key and len(axis.values) > 1 for axis in plan.axes)


def transfer_figure(name: str, table: Sequence[dict[str, Any]], path: Path) -> None:
    """A heat map per training mode: gap trained on (rows), distance of the fresh devices (columns), mean accuracy."""
    modes = list(dict.fromkeys(row["training"] for row in table))
    distances = sorted({row["distance"] for row in table})
    low, high = (100 * f(row["accuracy"] for row in table) for f in (min, max))
    size = (
        max(5.5, (1.3 + 0.95 * len(distances)) * len(modes) + 1),
        1.8 + 0.6 * len({r["trained_gap"] for r in table}),
    )
    figure, axes = plt.subplots(1, len(modes), figsize=size, layout="constrained", squeeze=False)
    for axis, mode in zip(axes[0], modes, strict=True):
        gaps = sorted({row["trained_gap"] for row in table if row["training"] == mode})
        values = {(r["trained_gap"], r["distance"]): r for r in table if r["training"] == mode}
        grid = [[100 * values[g, d]["accuracy"] if (g, d) in values else float("nan") for d in distances] for g in gaps]
        image = axis.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        for (g, d), row in values.items():
            shade = (100 * row["accuracy"] - low) / max(high - low, 1e-9)
            text = f"{100 * row['accuracy']:.1f}"
            if row["half_width_95"] is not None:
                text += f"\n± {100 * row['half_width_95']:.1f}"
            place = (distances.index(d), gaps.index(g))
            axis.text(*place, text, ha="center", va="center", fontsize=8, color=INK[shade < 0.55])
        axis.set_xticks(range(len(distances)), [f"{d:g}" for d in distances])
        axis.set_yticks(range(len(gaps)), [f"{g:g}" for g in gaps])
        axis.set(xlabel="distance of the fresh device", ylabel="gap trained on", title=MODE_LABELS.get(mode, mode))
    figure.colorbar(image, ax=axes, label="test accuracy (%)")
    write_atomically(path, lambda place: figure.savefig(place, dpi=150))
    plt.close(figure)
