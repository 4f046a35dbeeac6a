"""Checkpoints: plain containers, read with weights_only, checked before they are used."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pnn.errors import UserError
from pnn.rules import Config
from pnn.twins import Twin


def read(path: str | Path) -> dict[str, Any]:
    """The checkpoint at `path`. Raises UserError when it is missing, damaged or not one of pnn's."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"ckpt_path={path} does not exist; give RUN/checkpoints/best.ckpt or last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"ckpt_path={path} cannot be read as a checkpoint ({reason}); use another") from error
    if not isinstance(checkpoint, dict) or "pnn" not in checkpoint:
        raise UserError(f"ckpt_path={path} was not written by pnn-train; give RUN/checkpoints/best.ckpt or last.ckpt")
    return checkpoint


def run_folder(path: str | Path) -> Path:
    """RUN of RUN/checkpoints/NAME.ckpt."""
    return Path(path).parent.parent


def load_network(network: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Copy the trained parameters, and fitted digital models, into `network`.

    Raises UserError when they are those of another architecture. A model of another kind than the checkpoint's keeps its
    own state: a network may be judged beside any model.
    """
    prefix = "network."
    everything = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    stored = {name: value for name, value in everything.items() if ".model." not in name}
    own = {name: p for name, p in network.named_parameters() if p.requires_grad}
    wrong = [
        f"{name} is {tuple(stored[name].shape) if name in stored else 'missing'} there and {tuple(own[name].shape)} here"
        for name in sorted(own)
        if name not in stored or stored[name].shape != own[name].shape
    ]
    extra = sorted(name for name in stored if name not in network.state_dict())
    wrong += [f"{name} is {tuple(stored[name].shape)} there and missing here" for name in extra]
    if wrong:
        raise UserError(
            f"the checkpoint is of another architecture: {'; '.join(wrong[:3])}; use the configuration it was trained with"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(stored[name])
    for name, module in network.named_modules():
        inside = {k.removeprefix(f"{name}."): v for k, v in everything.items() if k.startswith(f"{name}.")}
        if isinstance(module, Twin) and inside.keys() == module.state_dict().keys():
            module.load_state_dict(inside)


def differences(stored: Config, given: Config, ignore: tuple[str, ...] = ()) -> list[str]:
    """`key=new (was old)` for every leaf that differs, except below the keys in `ignore`."""
    a, b = _leaves(stored), _leaves(given)
    changed = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    kept = [key for key in changed if not any(key == i or key.startswith(f"{i}.") for i in ignore)]
    return [f"{key}={b.get(key)} (was {a.get(key)})" for key in kept]


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        k: v
        for key, value in node.items()
        for k, v in _leaves(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def best_row(table: Path, monitor: str) -> dict[str, float]:
    """The first row of metrics.csv with the largest `monitor`."""
    with table.open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return max(rows, key=lambda row: row[monitor])
