"""Figures as inline SVG that takes its ink from the page, so one picture serves light and dark.

Every kind of network has an Okabe-Ito colour, a line style and a marker: colour is never the only difference.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from pnn.reporting.costs import Line
from pnn.reporting.gaps import gap_series
from pnn.reporting.groups import KINDS, Group, independent, representatives
from pnn.reporting.scoreboard import MISSED, REACHED, Score
from pnn.reporting.statistics import Estimate, estimate
from pnn.reporting.transfer import Matrix

#: A colour that no figure uses: becomes the page's text colour.
INK = "#010203"
#: Kind → colour, line style, marker. The page may restate a colour for dark backgrounds (--pat …).
STYLES = {
    "pat": ("#0072b2", "-", "o"),
    "in_silico": ("#d55e00", "--", "s"),
    "ideal": ("#009e73", "-.", "^"),
    "identity": ("#cc79a7", ":", "D"),
    "clamped": ("#e69f00", ":", "v"),
    "linear_physics": ("#56b4e9", "--", "P"),
    "linear_classifier": ("#808080", "-.", "X"),
    "perceptron": ("#b8a200", "--", "h"),
}
SHORT = {"pat": "physical", "in_silico": "physical", "ideal": "physical", "linear_classifier": "linear classifier"}
WIDTH = 6.6  # rem on the page for an inch of figure
OTHER = ("#7f7f7f", "-", ".")
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "font.size": 9,
    "text.parse_math": False,  # names of runs are shown as they are
}


def style(kind: str) -> tuple[str, str, str]:
    return STYLES.get(kind, OTHER)


def inline(figure: Any, title: str) -> str:
    """`figure` as an <svg> element whose ink is currentColor and whose colours are CSS variables with fallbacks."""
    buffer = io.StringIO()
    width = figure.get_figwidth()
    with plt.rc_context({**LOOK, "svg.hashsalt": title}):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    for kind, (colour, _, _) in STYLES.items():
        svg = svg.replace(colour, f"var(--{kind.replace('_', '-')}, {colour})")
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" style="max-width: {WIDTH * width:.0f}rem" ', 1)


def scoreboard_figure(scores: Sequence[Score]) -> str | None:
    """Target (bar) and ours (dot, 95 % interval) of every claim with a number that was run; None where there are none."""
    drawn = [s for s in scores if s.ours and s.target.value is not None and s.verdict in (REACHED, MISSED)]
    if not drawn:
        return None
    with plt.rc_context(LOOK):
        figure, axis = plt.subplots(figsize=(8, 0.75 + 0.34 * len(drawn)), layout="constrained")
        for row, score in enumerate(drawn):
            assert score.ours is not None and score.target.value is not None
            mine, target, good = score.ours.on_device, 100 * score.target.value, score.verdict == REACHED
            colour = STYLES["pat" if good else "in_silico"][0]
            axis.plot([target, 100 * mine.mean], [row, row], color=colour, lw=1, alpha=0.6)
            axis.plot([target], [row], marker="|", ms=16, mew=2.5, color=INK, label="" if row else "target")
            half = None if mine.half is None else 100 * mine.half
            axis.errorbar([100 * mine.mean], [row], xerr=half, fmt="o" if good else "s", ms=6, capsize=3, color=colour)
        for verdict, colour, marker in ((REACHED, "pat", "o"), (MISSED, "in_silico", "s")):
            axis.plot([], [], marker, ms=6, color=STYLES[colour][0], label=f"ours, {verdict}")
        axis.set_yticks(range(len(drawn)), [s.target.title for s in drawn])
        axis.set(ylim=(len(drawn) - 0.4, -0.6), xlabel="test accuracy on the device (%)")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", alpha=0.2)
        figure.legend(loc="outside upper right", ncols=3)
    return inline(figure, "Scoreboard: targets of the paper and our test accuracies")


def over_seeds(group: Group, column: str) -> tuple[list[float], list[Estimate]]:
    """Epochs (from 1) that every run of `group` has, and the mean of `column` over its seeds or splits at each."""
    runs = [run for run in group.runs if column in run.metrics]
    curves = [dict(zip(run.metrics["epoch"], run.metrics[column], strict=True)) for run in runs]
    shared = sorted(set.intersection(*(set(c) for c in curves))) if curves else []
    usable = [e for e in shared if all(math.isfinite(c[e]) for c in curves)]
    return [e + 1 for e in usable], [estimate(list(independent(runs, [c[e] for c in curves]).values())) for e in usable]


def band(axis: Any, x: Sequence[float], values: Sequence[Estimate], kind: str, label: str, marks: bool = False) -> None:
    """A line of means in per cent with its 95 % band, where several runs make one."""
    colour, line, marker = style(kind)
    mean = [100 * v.mean for v in values]
    every = 1 if marks else max(1, len(x) // 20)
    above = 3 if kind == "pat" else 2
    look = {"ls": line, "lw": 1.6, "marker": marker, "markevery": every, "ms": 4, "color": colour, "zorder": above}
    axis.plot(x, mean, label=label, **look)
    if all(v.half is not None for v in values):
        half = [100 * (v.half or 0.0) for v in values]
        low = [max(0.0, m - h) for m, h in zip(mean, half, strict=True)]  # an accuracy stays in [0, 100] %
        high = [min(100.0, m + h) for m, h in zip(mean, half, strict=True)]
        axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)


def curves_figure(experiment: str, groups: Sequence[Group]) -> str | None:
    """Validation accuracy against the epoch, on the device (left) and on the digital model (right), all kinds."""
    shown = representatives(groups)
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
        drawn = []
        for kind in [*KINDS, *(k for k in shown if k not in KINDS)]:
            if kind not in shown:
                continue
            for axis, via in zip(axes, ("device", "model"), strict=True):
                epochs, values = over_seeds(shown[kind], f"val_accuracy_{via}")
                if values:
                    band(axis, epochs, values, kind, f"{shown[kind].label}, n = {values[0].n}")
                    drawn += [100 * v.mean for v in values]
        if not drawn:
            plt.close(figure)
            return None
        axes[0].set(title="on the device", xlabel="epoch", ylabel="validation accuracy (%)")
        axes[1].set(title="on its digital model", xlabel="epoch")
        for axis in axes:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            axis.grid(alpha=0.2)
        lines, labels = axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=3, handlelength=3.2, fontsize=8)
    return inline(figure, f"{experiment}: validation accuracy by epoch on device and model")


def gap_figure(experiment: str, groups: Sequence[Group]) -> str | None:
    """Test accuracy on the device against the reality gap, by kind; None unless some runs differ in the gap alone."""
    series = gap_series(groups)
    if not series:
        return None
    with plt.rc_context(LOOK):
        figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
        for line in series:
            first, members = line.first, line.members
            counts = sorted({g.on_device.n for g in members})
            seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            label = f"{first.label}, n = {seeds}"
            band(axis, [100 * (g.gap or 0.0) for g in members], [g.on_device for g in members], first.kind, label, True)
        axis.set(xlabel="reality gap: relative change of each constant (± %)", ylabel="test accuracy on the device (%)")
        axis.grid(alpha=0.2)
        figure.legend(loc="outside lower center", ncols=3, handlelength=3.2, fontsize=8)
    return inline(figure, f"{experiment}: test accuracy on the device by reality gap")


def transfer_figure(matrix: Matrix) -> str:
    """Heat map, trained gap × distance of the device: mean accuracy; a frame marks the distance up to which it is tolerated."""
    distances, rows = matrix.distances, matrix.rows
    cells = [[row.at(d) for d in distances] for row in rows]
    means = [[math.nan if c is None else 100 * c.mean for c in line] for line in cells]
    seen = [v for line in means for v in line if not math.isnan(v)]
    low, high = min(seen), max(max(seen), min(seen) + 1e-9)
    with plt.rc_context(LOOK):
        figure, axis = plt.subplots(figsize=(2.2 + 0.85 * len(distances), 1.3 + 0.5 * len(rows)), layout="constrained")
        mesh = axis.pcolormesh(means, cmap="cividis", vmin=low, vmax=high, edgecolors="face", lw=0.3)
        for y, (row, line) in enumerate(zip(rows, cells, strict=True)):
            for x, cell in enumerate(line):
                if cell is not None:
                    ink = contrasting(mesh.cmap((100 * cell.mean - low) / (high - low)))
                    half = "" if cell.half is None else f"\n± {100 * cell.half:.1f}"
                    axis.text(x + 0.5, y + 0.5, f"{100 * cell.mean:.1f}{half}", ha="center", va="center", color=ink)
            if row.tolerance is not None:
                edge = distances.index(row.tolerance) + 1
                axis.plot([edge, edge], [y + 0.04, y + 0.96], color=STYLES["in_silico"][0], lw=4, solid_capstyle="butt")
        axis.plot([], [], color=STYLES["in_silico"][0], lw=4, label="within 1 point of distance 0 up to here")
        axis.set_xticks([x + 0.5 for x in range(len(distances))], [f"{d:g}" for d in distances])
        axis.set_yticks([y + 0.5 for y in range(len(rows))], [f"{row.gap:g}" for row in rows])
        axis.set(
            xlabel="distance from the device it was trained on: relative change of each constant",
            ylabel="gap of that device",
        )
        axis.invert_yaxis()
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.legend(loc="outside upper center")
        bar = figure.colorbar(mesh, ax=axis, label="accuracy (%)")
        bar.outline.set_visible(False)
    return inline(figure, f"{matrix.experiment}, {matrix.label}: accuracy by trained gap and distance of the device")


def contrasting(colour: Sequence[float]) -> str:
    """Black or white, whichever reads better on an RGB colour (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return "#000000" if sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) > 0.179 else "#ffffff"


def energy_figure(lines: Sequence[Line]) -> str | None:
    """Energy of one inference and its parts on a log scale, a row a network; None where none has an absolute scale."""
    drawn = [line for line in lines if line.cost is not None and line.cost.energy]
    if not drawn:
        return None
    parts = (("instrument", "in_silico", "s"), ("converters", "ideal", "^"), ("digital", "linear_physics", "P"))
    with plt.rc_context(LOOK):
        figure, axis = plt.subplots(figsize=(8, 0.9 + 0.3 * len(drawn)), layout="constrained")
        for row, line in enumerate(drawn):
            assert line.cost is not None and line.cost.energy
            axis.plot([line.cost.energy], [row], "o", ms=9, color=STYLES["pat"][0], label="" if row else "all of it")
            for part, colour, marker in parts:
                if value := getattr(line.cost, part):
                    axis.plot([value], [row], marker, ms=5, color=STYLES[colour][0], mec=INK, mew=0.4)
        for part, colour, marker in parts:
            label = {"digital": "digital arithmetic and memory"}.get(part, part)
            axis.plot([], [], marker, ms=5, color=STYLES[colour][0], mec=INK, mew=0.4, label=label)
        names = [f"{line.group.experiment}: {SHORT.get(line.group.kind, line.group.label)}" for line in drawn]
        axis.set_yticks(range(len(drawn)), names)
        axis.set(xscale="log", ylim=(len(drawn) - 0.4, -0.6), xlabel="energy of one inference (J)")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="both", alpha=0.2)
        figure.legend(loc="outside upper right", ncols=4)
    return inline(figure, "Energy of one inference, by its parts")
