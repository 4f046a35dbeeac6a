"""What a device is: something one can only drive and measure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


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
    """A device under test: y = f_p(x, θ), measured. No gradients; a laboratory's own device writes only `respond`."""

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        """Drive with x (..., input_size) and θ, measure y (..., output_size)."""

    def state_dict(self) -> dict[str, Any]:
        """Random state, drift and ledger as plain containers: what a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
