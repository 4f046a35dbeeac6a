"""Physical neural networks: physics-aware training of layers that are physical processes.

f = pnn.physics_aware(device, model)     # forward: device.respond(x, *θ); backward: the model's Jacobians
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pnn.gradients import ideal, in_silico, physics_aware

__version__ = "0.1.0"
__all__ = ["ideal", "in_silico", "physics_aware"]


def __getattr__(name: str) -> Any:
    """The library's callables, imported on first use so that the commands' --help need not wait for torch."""
    if name in __all__:
        from pnn import gradients

        return getattr(gradients, name)
    raise AttributeError(f"module 'pnn' has no attribute {name!r}")
