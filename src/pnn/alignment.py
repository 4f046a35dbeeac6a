"""Gradient alignment: how each training mode's gradient compares with the ideal one, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pnn.gradients import ideal, in_silico, physics_aware
from pnn.layers import PhysicalLayer

MODES: dict[str, Callable[..., Any]] = {"in_silico": in_silico, "pat": physics_aware, "ideal": ideal}


@dataclass(frozen=True)
class Alignment:
    """cos(g, g_ideal) and |g|/|g_ideal| of one layer's parameters, each of the network's leading shape."""

    layer: str
    mode: str
    cosine: Tensor
    ratio: Tensor


def gradient_alignment(
    network: nn.Module, devices: Sequence[Any], batches: Sequence[tuple[Tensor, Tensor]], lead: int = 0
) -> list[Alignment]:
    """Compare the gradients of the cross-entropy over `batches` in every mode with `ideal`, at the present parameters.

    Every mode meets the same device noise. `lead` leading dimensions (seeds) are kept apart. The network's training
    mode, gradients and devices are left as they were. Raises ValueError when a device cannot be differentiated.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, PhysicalLayer)}
    before = [(layer, layer.mode) for layer in layers.values()]
    states = [copy.deepcopy(device.state_dict()) for device in devices]
    try:
        gradients = {mode: _gradients(network, layers, devices, states, batches, lead, mode) for mode in MODES}
    finally:
        for layer, mode in before:
            layer.mode = mode
        _restore(devices, states)
    found = []
    for name in layers:
        truth = gradients["ideal"][name]
        for label in MODES:
            g = gradients[label][name]
            norm, reference = g.norm(dim=-1), truth.norm(dim=-1)
            cosine = (g * truth).sum(-1) / (norm * reference).clamp_min(torch.finfo(g.dtype).tiny)
            found.append(Alignment(name, label, cosine, norm / reference.clamp_min(torch.finfo(g.dtype).tiny)))
    return found


def _gradients(
    network: nn.Module,
    layers: dict[str, PhysicalLayer],
    devices: Sequence[Any],
    states: list[dict[str, Any]],
    batches: Sequence[tuple[Tensor, Tensor]],
    lead: int,
    mode: str,
) -> dict[str, Tensor]:
    """Summed gradient of each layer's parameters, flattened: (*lead, number of parameters)."""
    _restore(devices, states)
    for layer in layers.values():
        layer.mode = MODES[mode]
    trained = {name: [t for t in layer.parameters() if t.requires_grad] for name, layer in layers.items()}
    theta = [t for tensors in trained.values() for t in tensors]
    total = [torch.zeros_like(t) for t in theta]
    for x, target in batches:
        logits = network(x, "train")  # (*lead, batch, classes)
        repeated = target.expand(logits.shape[:-1])
        loss = functional.cross_entropy(logits.flatten(0, -2), repeated.flatten(), reduction="sum")
        for sum_, g in zip(total, torch.autograd.grad(loss, theta), strict=True):
            sum_ += g
    flat, position = {}, 0
    for name, tensors in trained.items():
        parts = total[position : position + len(tensors)]
        position += len(parts)
        flat[name] = torch.cat([p.flatten(lead) for p in parts], -1)
    return flat


def _restore(devices: Sequence[Any], states: list[dict[str, Any]]) -> None:
    for device, state in zip(devices, states, strict=True):
        device.load_state_dict(copy.deepcopy(state))


def table(alignments: Sequence[Alignment]) -> str:
    """A text table, one line per layer and mode; mean over seeds."""
    lines = [f"{'layer':<12} {'mode':<10} {'cosine':>8} {'|g|/|g_ideal|':>14}"]
    for a in alignments:
        lines.append(f"{a.layer:<12} {a.mode:<10} {float(a.cosine.mean()):>8.3f} {float(a.ratio.mean()):>14.3g}")
    return "\n".join(lines)
