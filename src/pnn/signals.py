"""What travels through a network: the drive and the recording of every physical layer, for a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pnn.layers import PhysicalLayer, Via


@dataclass(frozen=True)
class Signal:
    """Drive u and recording y of one use of a layer, a row per sample: (samples, values). Of copies, the first."""

    layer: str
    drive: Tensor
    recording: Tensor


def trace(network: nn.Module, x: Tensor, via: Via) -> tuple[list[Signal], Tensor]:
    """The signals of every physical layer in the order of the pass, and the logits (samples, classes); x (samples, features)."""
    signals: list[Signal] = []

    def probe(name: str, layer: PhysicalLayer, drive: Tensor, recording: Tensor) -> None:
        first = (0,) * layer.lead
        signals.append(Signal(name, *(t[first].flatten(1).detach() for t in (drive, recording))))

    layers = {name: m for name, m in network.named_modules() if isinstance(m, PhysicalLayer)}
    try:
        for name, layer in layers.items():
            layer.probe = lambda u, y, name=name, layer=layer: probe(name, layer, u, y)
        with torch.no_grad():
            logits = network(x, via)
    finally:
        for layer in layers.values():
            layer.probe = None
    return signals, logits


def confusion(
    network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], classes: int, via: Via = "device"
) -> Tensor:
    """Counts (true class, predicted class)."""
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    with torch.no_grad():
        for x, target in batches:
            predicted = network(x, via).argmax(-1)
            counts += torch.bincount(classes * target + predicted, minlength=classes**2).reshape(classes, classes)
    return counts
