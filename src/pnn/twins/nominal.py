"""The digital model that needs no measurement."""

from __future__ import annotations

from pnn.systems.system import System


def nominal(system: System) -> System:
    """The nominal system itself, at its own numerical resolution."""
    return system.requires_grad_(False)
