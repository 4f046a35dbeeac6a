"""Run folders → figures."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from pnn.runs import write_atomically

#: Okabe-Ito colours: distinguishable with any colour vision.
DEVICE, MODEL, TRAIN, GREY = "#0072B2", "#D55E00", "#999999", "#666666"


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
