"""MNIST out of a pickle, without running what else a pickle may hold."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from pnn.errors import Unavailable
from pnn.tasks.idx import write_idx

ALLOWED = {"_reconstruct", "ndarray", "dtype"}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays in plain containers. Any other global raises UnpicklingError before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in ALLOWED:
            # what ndarray's own pickles call, wherever this version of numpy keeps it
            return np.empty(0).__reduce__()[0] if name == "_reconstruct" else getattr(np, name)
        raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is not a numpy array")


def arrays(content: bytes) -> Any:
    """Containers of numpy arrays from a pickle, of Python 2 or 3. Raises Unavailable for anything else."""
    try:
        return ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise Unavailable(f"the pickle is refused: {error}") from error


def write_mnist(content: bytes, folder: Path) -> None:
    """The pickle ((x, y) of train, valid, test), x float32 (n, 784) = byte/256, as the four IDX files.

    The published training set is train and valid, in this order. Raises Unavailable if the arrays are others.
    """
    try:
        train, valid, test = arrays(content)
        parts = {"train": (train, valid), "t10k": (test,)}
        for name, sets in parts.items():
            x = np.concatenate([np.rint(256 * x).astype(np.uint8) for x, _ in sets]).reshape(-1, 28, 28)
            y = np.concatenate([np.asarray(y) for _, y in sets]).astype(np.uint8)
            write_idx(folder / f"{name}-images-idx3-ubyte", x)
            write_idx(folder / f"{name}-labels-idx1-ubyte", y)
    except (TypeError, ValueError) as error:
        raise Unavailable(f"the pickle does not hold MNIST ({error})") from error
