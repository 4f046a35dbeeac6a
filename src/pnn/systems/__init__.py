"""Physical systems: y = f(x, θ) as differentiable simulations with nominal constants."""

from pnn.systems.coupled_oscillators import CoupledOscillators
from pnn.systems.electronic_oscillator import ElectronicOscillator
from pnn.systems.identity import Identity
from pnn.systems.oscillating_plate import OscillatingPlate
from pnn.systems.shg import SHG
from pnn.systems.system import Constant, ParameterSpec, System, stack

__all__ = [
    "SHG",
    "Constant",
    "CoupledOscillators",
    "ElectronicOscillator",
    "Identity",
    "OscillatingPlate",
    "ParameterSpec",
    "System",
    "stack",
]
