"""Tasks: data sets with their split, encoding and metric.

The classes load on first use, so that `pnn-data` starts without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pnn.tasks.base import Task
    from pnn.tasks.digits import Digits
    from pnn.tasks.images import MNIST, FashionMNIST
    from pnn.tasks.vowels import Vowels

__all__ = ["MNIST", "Digits", "FashionMNIST", "Task", "Vowels"]

_MODULES = {
    "MNIST": "images",
    "Digits": "digits",
    "FashionMNIST": "images",
    "Task": "base",
    "Vowels": "vowels",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
