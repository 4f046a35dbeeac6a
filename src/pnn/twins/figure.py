"""card.json → card.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, StrMethodFormatter

from pnn.figures import DEVICE, GREY, MODEL, TRAIN
from pnn.runs import write_atomically

#: Bias and noise as in the table; models in the learning curve.
BIAS, NOISE = MODEL, TRAIN
CURVES = (DEVICE, MODEL)


def card_figure(card: dict[str, Any], path: Path) -> None:
    """Error of every model split into noise and bias; learning curve; measured against predicted; error by output."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    _split(axes[0, 0], card)
    _curve(axes[0, 1], card)
    _scatter(axes[1, 0], card)
    _outputs(axes[1, 1], card)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    sizes = card["sizes"]
    figure.suptitle(
        f"{card['model']} twin of {card['system']}, {sizes['inputs']} inputs, {sizes['outputs']} outputs, "
        f"{card['measurements']['fitted']} measurements",
        fontsize=11,
    )
    write_atomically(path, lambda file: figure.savefig(file, dpi=150))
    plt.close(figure)


def _split(axis: Axes, card: dict[str, Any]) -> None:
    fits = card["fits"]
    first = fits[card["model"]]
    key = "error" if first["bias"] is None else "bias"
    kinds = [(f"{key}, held-out", BIAS, [fit[key] for fit in fits.values()])]
    if first["visited"] is not None:
        part = "error" if first["visited"]["bias"] is None else "bias"
        kinds.append((f"{part}, visited inputs", DEVICE, [fit["visited"][part] for fit in fits.values()]))
    width = 0.7 / len(kinds)
    for k, (label, colour, values) in enumerate(kinds):
        places = [n + (k - (len(kinds) - 1) / 2) * width for n in range(len(fits))]
        axis.bar(places, [100 * value for value in values], width, color=colour, label=label)
    if first["noise"] is not None:
        axis.axhline(100 * first["noise"], color=GREY, ls="--", label="noise of one measurement, held-out")
    axis.set_xticks(range(len(fits)), list(fits))
    axis.margins(y=0.3)
    axis.set(ylabel="relative error (%)", title="error² = noise² + bias²")
    axis.legend(frameon=False, fontsize=8, loc="upper center", ncols=len(kinds))


def _curve(axis: Axes, card: dict[str, Any]) -> None:
    counts: list[int] = []
    for (name, curve), colour in zip(card["learning_curve"].items(), CURVES, strict=False):
        counts = [point["measurements"] for point in curve]
        axis.plot(counts, [100 * point["error"] for point in curve], marker="o", ms=4, color=colour, label=name)
    noise = card["fits"][card["model"]]["noise"]
    if noise:
        axis.axhline(100 * noise, color=GREY, ls="--", label="noise of one measurement")
    axis.set(xlabel="measurements", ylabel="held-out error (%)", title="learning curve", xscale="log", yscale="log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        which(StrMethodFormatter("{x:g}"))
    if card["learning_curve"] or noise:
        axis.legend(frameon=False, fontsize=8)


def _scatter(axis: Axes, card: dict[str, Any]) -> None:
    pairs = card["scatter"]
    limits = min(pairs["measured"]), max(pairs["measured"])
    axis.plot(limits, limits, color=GREY, lw=1)
    axis.scatter(pairs["measured"], pairs["predicted"], s=8, color=DEVICE, alpha=0.5, lw=0)
    axis.set(xlabel="measured", ylabel="predicted", title=f"R² = {card['fits'][card['model']]['r2']:.5f}")


def _outputs(axis: Axes, card: dict[str, Any]) -> None:
    for name, colour in zip(list(card["fits"])[:2], CURVES, strict=False):
        errors = card["fits"][name]["error_by_output"]
        marker = "o" if len(errors) <= 40 else None
        axis.plot([100 * e for e in errors], color=colour, lw=1, marker=marker, ms=4, label=name)
    axis.set(xlabel="output", ylabel="r.m.s. error / r.m.s. signal of all (%)", title="error by output", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8)
