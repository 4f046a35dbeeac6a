"""Digital models f_m: what gradients are computed with. Nominal physics, or twins fitted to measured pairs."""

from pnn.twins.card import judge, learning_curve, twin_card
from pnn.twins.closed_form import Linear, Quadratic
from pnn.twins.files import from_file
from pnn.twins.grey_box import GreyBox
from pnn.twins.measurements import Measured, Measurements, sample
from pnn.twins.mlp import MLP
from pnn.twins.nominal import nominal
from pnn.twins.store import load, save
from pnn.twins.twin import Twin

__all__ = [
    "MLP",
    "GreyBox",
    "Linear",
    "Measured",
    "Measurements",
    "Quadratic",
    "Twin",
    "from_file",
    "judge",
    "learning_curve",
    "load",
    "nominal",
    "sample",
    "save",
    "twin_card",
]
