"""What a device is: something one can only drive and measure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pnn.errors import UserError


@dataclass
class Ledger:
    """What an experiment cost: calls of the device and samples (records) driven through it."""

    calls: int = 0
    samples: int = 0

    def count(self, samples: int) -> None:
        self.calls += 1
        self.samples += samples

    def state_dict(self) -> dict[str, int]:
        return asdict(self)


@runtime_checkable
class Device(Protocol):
    """A device under test: y = f_p(x, θ), measured. No gradients; a laboratory's own may have only `respond` (`Instrument`)."""

    ledger: Ledger

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        """Drive with x (..., input_size) and θ, measure y (..., output_size)."""

    def state_dict(self) -> dict[str, Any]:
        """Random state, drift and ledger as plain containers: what a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""


class Instrument:
    """A device with only `respond`, and what else a run needs of one: calls counted, answers checked, a state to resume from.

    Its own `state_dict` and `load_state_dict` are used where it has them. `respond` raises UserError for an answer that is no
    tensor (..., output_size) for x (..., input_size).
    """

    def __init__(self, device: Any, outputs: int):
        self.device, self.outputs, self.ledger = device, outputs, Ledger()

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.device.respond(x, *theta)
        self.ledger.count(x[..., 0].numel())
        wanted, name = (*x.shape[:-1], self.outputs), type(self.device).__name__
        if not isinstance(y, Tensor):
            raise UserError(f"{name}.respond gave a {type(y).__name__}; it must give a torch tensor of shape {wanted}")
        if tuple(y.shape) != wanted:
            raise UserError(
                f"{name}.respond gave shape {tuple(y.shape)} for x of {tuple(x.shape)}; it must be {wanted}"
            )
        return y

    def state_dict(self) -> dict[str, Any]:
        own = self.device.state_dict() if hasattr(self.device, "state_dict") else {}
        return {"device": own, "ledger": self.ledger.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["device"]:
            self.device.load_state_dict(state["device"])
        self.ledger = Ledger(**state["ledger"])


def complete(device: Any, outputs: int) -> Any:
    """`device`, as an Instrument if it lacks anything that a run needs beside `respond`."""
    whole = all(hasattr(device, name) for name in ("ledger", "state_dict", "load_state_dict"))
    return device if whole else Instrument(device, outputs)
