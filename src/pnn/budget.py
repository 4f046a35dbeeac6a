"""What one inference takes: records and conversions at every device, and multiply-accumulates inside and outside of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pnn.gradients import Transform
from pnn.layers import Laboratory, PhysicalLayer


@dataclass(frozen=True)
class Use:
    """One physical layer in one inference: `records` records, each of `drive` values in and `record` values out."""

    system: str  # its class
    drive: int
    record: int
    records: int  # members × channels × patches that pass through the layer
    record_seconds: float | None  # of one record; None: no absolute scale
    macs: int  # of all its records on a digital computer, at the resolution of the device
    model_macs: int  # the same at the resolution of the digital model
    encoder: int  # trainable parameters that are part of the drive, and so live in a memory; the others are physical


@dataclass(frozen=True)
class Budget:
    """One inference: the uses of the devices by layer, and multiply-accumulates of everything between them."""

    layers: dict[str, Use]
    digital_macs: int


def budget(network: nn.Module, laboratory: Laboratory, features: int) -> Budget:
    """Send one sample through `network` with every device left out (it answers zeros), and count.

    Counted are the products of linear layers and of elementwise multiplications, divisions and powers (masks, gains,
    normalised spectra, energies); sums alone are not. No device is called, no random number drawn, and the layers are left
    as they were.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, PhysicalLayer)}
    systems = {id(bench.device): bench.system for bench in laboratory.benches}
    before = {name: (layer.mode, layer.probe, layer.input_range, layer.limits) for name, layer in layers.items()}
    records = dict.fromkeys(layers, 0)

    def passed(name: str, drive: Tensor) -> None:
        records[name] += drive[..., 0].numel()

    products = dict.fromkeys((torch.ops.aten.mul, torch.ops.aten.div, torch.ops.aten.pow), _elementwise)
    try:
        for name, layer in layers.items():
            layer.mode = partial(_silent, layer.record_size)
            layer.probe = lambda u, _y, name=name: passed(name, u)
            layer.input_range, layer.limits = (-math.inf, math.inf), {}  # the penalty belongs to training
        like = next(network.parameters())
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=products) as counter:
            network(like.new_zeros(1, features), "train")
    finally:
        for name, layer in layers.items():
            layer.mode, layer.probe, layer.input_range, layer.limits = before[name]
    return Budget(
        {name: _use(layer, systems[id(layer.device)], records[name]) for name, layer in layers.items()},
        counter.get_total_flops() // 2,
    )


def _silent(size: int, _device: Any, _model: Any) -> Transform:
    """A training mode in which the device answers zeros."""
    return lambda u, *_: u.new_zeros(*u.shape[:-1], size)


def _elementwise(*_shapes: Any, out_shape: tuple[int, ...], **_options: Any) -> int:
    """A product a value, in the counter's unit of half a multiply-accumulate."""
    return 2 * math.prod(out_shape)


def _use(layer: PhysicalLayer, system: Any, records: int) -> Use:
    own = sum(getattr(layer, name).numel() for name in layer.names)
    return Use(
        type(system).__name__,
        layer.drive_size,
        layer.record_size,
        records,
        system.record_seconds,
        records * system.converged().operations(),
        records * system.operations(),
        sum(t.numel() for t in layer.parameters() if t.requires_grad) - own,
    )
