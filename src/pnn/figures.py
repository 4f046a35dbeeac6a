"""Run folders → figures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from torch import Tensor

from pnn.modes import MODE_LABELS
from pnn.runs import write_atomically

#: Okabe-Ito colours: distinguishable with any colour vision.
DEVICE, MODEL, TRAIN, GREY = "#0072B2", "#D55E00", "#999999", "#666666"
INK = ("black", "white")  # text on a light and on a dark cell


def read_metrics(folder: Path) -> dict[str, list[float]]:
    """metrics.csv as columns; empty cells are NaN."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else {})}


def training_curves(folder: Path) -> None:
    """RUN/metrics.csv → RUN/curves.png: accuracy on device and model, and the loss, against the epoch."""
    metrics = read_metrics(folder)
    epochs = [epoch + 1 for epoch in metrics["epoch"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, label, colour in (
        ("val_accuracy_device", "validation, device", DEVICE),
        ("val_accuracy_model", "validation, digital model", MODEL),
        ("train_accuracy", "training", TRAIN),
    ):
        left.plot(epochs, [100 * v for v in metrics[name]], marker="o", ms=3, color=colour, label=label)
    left.set(xlabel="epoch", ylabel="accuracy (%)")
    for name, label, colour in (
        ("val_loss_device", "validation, device", DEVICE),
        ("val_loss_model", "validation, digital model", MODEL),
        ("train_loss", "training", TRAIN),
    ):
        right.plot(epochs, metrics[name], marker="o", ms=3, color=colour, label=label)
    right.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
    write_atomically(folder / "curves.png", lambda path: figure.savefig(path, dpi=150))
    plt.close(figure)


MODE_COLOURS = {"in_silico": "#D55E00", "pat": "#0072B2", "ideal": "#009E73"}


def demo_figure(report: dict[str, Any], path: Path) -> None:
    """demo.json → accuracy on the device of every seed, by training mode, against the reality gap."""
    gaps = sorted(report["gaps"], key=lambda entry: entry["gap"])
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for offset, mode in zip((-0.22, 0.0, 0.22), MODE_COLOURS, strict=True):
        colour = MODE_COLOURS[mode]
        for position, entry in enumerate(gaps):
            row = entry["modes"][mode]
            values = [100 * v for v in row["device"]]
            axis.scatter([position + offset] * len(values), values, s=14, color=colour, alpha=0.45, lw=0)
            mean, error = (100 * v for v in row["device_mean_error"])
            label = MODE_LABELS[mode] if position == 0 else None
            axis.errorbar(position + offset, mean, 2 * error, fmt="_", ms=20, color=colour, capsize=4, label=label)
    for name, label, style in (
        ("logistic_regression", "logistic regression", "--"),
        ("identity", "device replaced by the identity", ":"),
    ):
        value = 100 * report["references"][name]
        if value > 50:
            axis.axhline(value, color=GREY, ls=style, lw=1, label=label)
    axis.set_xticks(range(len(gaps)), [f"{entry['gap']:g}" for entry in gaps])
    axis.set(
        xlabel="reality gap (relative change of each untrained constant)",
        ylabel="test accuracy on the device (%)",
    )
    axis.set_title(f"8 × 8 digits, {report['seeds']} seeds and devices; bars: mean ± 2 s.e.", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    write_atomically(path, lambda p: figure.savefig(p, dpi=150))
    plt.close(figure)


def signals_figure(task: Any, x: Tensor, target: list[int], routes: dict[str, Any], counts: Tensor, path: Path) -> None:
    """What Fig. 2 of the paper draws: data, recording after every layer on device and model, outputs, confusion matrix."""
    (measured, logits), (modelled, _) = routes["device"], routes["model"]
    rows, columns = len(measured) + 2, len(target)
    figure = plt.figure(figsize=(2.6 * columns + 4.4, 1.5 * rows + 0.6), layout="constrained")
    grid = figure.add_gridspec(rows, columns + 2)
    for column, label in enumerate(target):
        _draw_input(figure.add_subplot(grid[0, column]), x[column], task, task.class_names[label])
        for row, (signal, model) in enumerate(zip(measured, modelled, strict=True), start=1):
            axis = figure.add_subplot(grid[row, column])
            axis.plot(signal.recording[column], color=DEVICE, lw=0.9, label="device")
            axis.plot(model.recording[column], color=MODEL, lw=0.9, ls="--", label="digital model")
            axis.set_ylabel(f"layer {row}" if column == 0 else "", fontsize=9)
            _bare(axis)
            if row == 1 and column == 0:
                figure.legend(*axis.get_legend_handles_labels(), frameon=False, fontsize=9, loc="upper right", ncols=2)
        axis = figure.add_subplot(grid[rows - 1, column])
        best = int(logits[column].argmax())
        colours = [DEVICE if c == best else TRAIN for c in range(task.classes)]
        axis.bar(range(task.classes), logits[column] - logits[column].min(), color=colours)
        axis.set_xticks(range(task.classes), [name[:3] for name in task.class_names], fontsize=6, rotation=90)
        axis.set_ylabel("outputs" if column == 0 else "", fontsize=9)
        _bare(axis)
    _draw_confusion(figure.add_subplot(grid[:, columns:]), counts, task.class_names)
    write_atomically(path, lambda p: figure.savefig(p, dpi=150))
    plt.close(figure)


def _draw_input(axis: Any, x: Tensor, task: Any, label: str) -> None:
    if task.image_shape:
        axis.imshow(x.reshape(task.image_shape), cmap="gray")
        axis.set_axis_off()
    else:
        axis.bar(range(len(x)), x, color=GREY)
        _bare(axis)
    axis.set_title(label, fontsize=9)


def _bare(axis: Any) -> None:
    axis.tick_params(labelsize=6)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_confusion(axis: Any, counts: Tensor, names: Sequence[str]) -> None:
    """Rows are the true classes, in per cent of each."""
    share = 100 * counts / counts.sum(1, keepdim=True).clamp_min(1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for i, j in product(range(len(names)), repeat=2):
        if share[i, j] >= 0.5:
            axis.text(
                j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=7, color=INK[bool(share[i, j] > 50)]
            )
    axis.set_xticks(range(len(names)), names, fontsize=7, rotation=90)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    accuracy = float(counts.diagonal().sum() / counts.sum())
    axis.set(xlabel="predicted", ylabel="true class (%)", title=f"on the device: {accuracy:.1%}")
