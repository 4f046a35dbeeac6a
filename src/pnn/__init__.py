"""Physical neural networks: physics-aware training of layers that are physical processes."""

__version__ = "0.1.0"
