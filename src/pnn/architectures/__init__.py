"""How physical layers are wired. Wiring only: no physics, no training."""

from pnn.architectures.ensemble import Ensemble
from pnn.architectures.hybrid import Hybrid
from pnn.architectures.linear import Linear, LinearClassifier, Perceptron
from pnn.architectures.mixer import Mixer
from pnn.architectures.multichannel import Multichannel
from pnn.architectures.multilayer import Multilayer
from pnn.architectures.skip import Skip
from pnn.architectures.wiring import Shape, Sizes

__all__ = [
    "Ensemble",
    "Hybrid",
    "Linear",
    "LinearClassifier",
    "Mixer",
    "Multichannel",
    "Multilayer",
    "Perceptron",
    "Shape",
    "Sizes",
    "Skip",
]
