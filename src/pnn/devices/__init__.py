"""Devices: what one can only drive and measure."""

from pnn.devices.build import lab, notebook_gap
from pnn.devices.device import Device, Ledger
from pnn.devices.simulated import SimulatedDevice

__all__ = ["Device", "Ledger", "SimulatedDevice", "lab", "notebook_gap"]
