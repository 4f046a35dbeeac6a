"""Fitted twins as files: plain containers, read with weights_only, checked before they are used."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from pnn.errors import UserError
from pnn.runs import write_atomically
from pnn.systems.system import System
from pnn.twins.closed_form import Linear, Quadratic
from pnn.twins.grey_box import GreyBox
from pnn.twins.measurements import Measured
from pnn.twins.mlp import MLP
from pnn.twins.twin import Twin

KINDS: dict[str, type[Twin]] = {kind.__name__: kind for kind in (Linear, Quadratic, MLP, GreyBox)}


def save(twin: Twin, path: str | Path, meta: dict[str, Any] | None = None) -> None:
    """Write a fitted twin: {"pnn_twin": kind, options, sizes, `meta`; "state_dict"}."""
    if not twin.fitted:
        raise UserError(f"{type(twin).__name__} is not fitted and cannot be saved; call fit(measurements) first")
    about = {
        "kind": type(twin).__name__,
        "options": twin.options,
        "system": twin.system_name,
        "inputs": twin.input_size,
        "outputs": twin.output_size,
        "parameters": twin.theta_size,
    }
    content = {"pnn_twin": {**(meta or {}), **about}, "state_dict": twin.state_dict()}
    write_atomically(Path(path), lambda file: torch.save(content, file))


def read(path: str | Path) -> dict[str, Any]:
    """The content of a twin's file. Raises UserError when it is missing, damaged or something else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"twin={path} does not exist; give the twin.pt that pnn-twin wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"twin={path} cannot be read as a twin ({reason}); use another file") from error
    if not isinstance(content, dict) or "pnn_twin" not in content or content["pnn_twin"].get("kind") not in KINDS:
        raise UserError(f"twin={path} was not written by pnn-twin; give its twin.pt")
    return content


def load(path: str | Path, system: System) -> Twin:
    """The twin at `path`, for a device with the sizes of `system`. Raises UserError when it is of another device."""
    content = read(path)
    about = content["pnn_twin"]
    theta = sum(torch.Size(spec.shape).numel() for spec in system.parameters_spec)
    found = tuple(about[key] for key in ("inputs", "outputs", "parameters"))
    wanted = (system.input_size, system.output_size, theta)
    if found != wanted:
        raise UserError(
            f"twin={path} is of a device with {found[0]} inputs, {found[1]} outputs and {found[2]} parameters, and this "
            f"{type(system).__name__} has {wanted[0]}, {wanted[1]} and {wanted[2]}; fit a twin of this size with pnn-twin"
        )
    if about["system"] not in (type(system).__name__, Measured.__name__):
        raise UserError(f"twin={path} is of {about['system']}, and this system is {type(system).__name__}; fit its own")
    twin = KINDS[about["kind"]](system, **about["options"])
    try:
        twin.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"twin={path} does not fit this {type(system).__name__} ({reason}); fit it again") from error
    return twin
