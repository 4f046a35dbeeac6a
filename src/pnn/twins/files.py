"""Measurements from files: CSV columns, or arrays in .npz and .h5; every mistake refused by name and row."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pnn.errors import UserError
from pnn.twins.measurements import Measurements

#: Fewer rows cannot be split into rows to fit, to select and to judge.
FEWEST = 20
#: Column names of a CSV file by array name.
COLUMNS = {"x": "x", "theta": "theta", "y": "y", "y2": "repeat"}


def from_file(path: str | Path) -> Measurements:
    """Measurements in a file.

    CSV: a header and columns x0, x1, …, theta0, … (none: no θ), y0, …, and repeat0, … for a second measurement of the
    same inputs. .npz and .h5: arrays x (n, in), theta (n, …), y (n, out), y2 (n, out). θ becomes one array (n, p).

    Raises UserError that lists what is wrong: missing or unknown columns, cells that are not finite numbers, constant
    columns, unequal lengths, fewer than 20 rows. Rows are counted from 1, without the header.
    """
    path = Path(path)
    arrays = read_arrays(path, ("x", "y"))
    n = len(arrays["x"])
    if n < FEWEST:
        raise UserError(f"data={path} has {n} rows; at least {FEWEST} are needed to fit and to judge")
    found = [problem for name, array in arrays.items() for problem in _constant(path, name, array)]
    if "y2" in arrays and arrays["y2"].shape != arrays["y"].shape:
        shapes = arrays["y2"].shape, arrays["y"].shape
        found.append(f"data={path}: {_called(path, 'y2')} has shape {shapes[0]}, and y has {shapes[1]}")
    if found:
        raise UserError("\n".join(found))
    tensors = {name: torch.from_numpy(array).float() for name, array in arrays.items()}
    theta = (tensors["theta"],) if "theta" in tensors else ()
    return Measurements(tensors["x"], theta, tensors["y"], tensors.get("y2"))


def inputs_from_file(path: str | Path) -> tuple[Tensor, ...]:
    """Recorded inputs (x, or x and θ) of a file; y is not needed. Constant columns are allowed. Raises UserError."""
    arrays = read_arrays(Path(path), ("x",), key="visited")
    return tuple(torch.from_numpy(arrays[name]).float() for name in ("x", "theta") if name in arrays)


def read_arrays(path: Path, needed: tuple[str, ...], key: str = "data") -> dict[str, np.ndarray]:
    """The file's arrays, float64, 2-D, finite and of one length. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{key}={path} does not exist; give a .csv, .npz or .h5 file of measurements")
    readers = {".csv": _csv, ".npz": _npz, ".h5": _h5, ".hdf5": _h5}
    if path.suffix.lower() not in readers:
        raise UserError(f"{key}={path} must be a .csv, .npz or .h5 file")
    raw = readers[path.suffix.lower()](path, key)
    missing = [_called(path, name) for name in needed if name not in raw]
    if missing:
        raise UserError(f"{key}={path} has no {' and no '.join(missing)}; it has {', '.join(raw) or 'nothing'}")
    found: list[str] = []
    arrays = {name: _matrix(f"{key}={path}", name, value, found) for name, value in raw.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        found.append(f"{key}={path}: arrays must have the same number of rows; {text}")
    found += [p for name, array in arrays.items() for p in _infinite(f"{key}={path}", path, name, array)]
    if found:
        raise UserError("\n".join(found))
    return arrays


def _matrix(where: str, name: str, value: Any, found: list[str]) -> np.ndarray:
    """A numeric array as (rows, columns)."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        found.append(f"{where}: array {name} holds {array.dtype}, and must hold real numbers")
        return np.zeros((len(array) if array.ndim else 0, 1))
    least = 2 if name != "theta" else 1
    if array.ndim < least or (name != "theta" and array.ndim > 2) or not array.size:
        found.append(f"{where}: array {name} has shape {array.shape}, and must be (rows, columns)")
        return np.zeros((len(array) if array.ndim else 0, 1))
    return array.reshape(len(array), -1).astype(np.float64)


def _column(path: Path, name: str, index: int) -> str:
    """What the user calls one column."""
    return f"column {COLUMNS[name]}{index}" if path.suffix.lower() == ".csv" else f"column {index} of {name}"


def _called(path: Path, name: str) -> str:
    return f"column {COLUMNS[name]}0" if path.suffix.lower() == ".csv" else f"array {name}"


def _infinite(where: str, path: Path, name: str, array: np.ndarray) -> list[str]:
    bad = np.argwhere(~np.isfinite(array))
    lines = [
        f"{where}: {_column(path, name, c)} is {array[r, c]} in row {r + 1}; remove or repair it" for r, c in bad[:3]
    ]
    return lines + ([f"{where}: … and {len(bad) - 3} more of {name} that are not finite"] if len(bad) > 3 else [])


def _constant(path: Path, name: str, array: np.ndarray) -> list[str]:
    flat = np.flatnonzero(np.ptp(array, axis=0) == 0)
    named = ", ".join(_column(path, name, index) for index in flat[:5]) + (" …" if len(flat) > 5 else "")
    return [f"data={path}: {named} never changes; a constant cannot be fitted: remove it"] if len(flat) else []


def _npz(path: Path, key: str) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _known(path, {name: archive[name] for name in archive.files}, key)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{key}={path} cannot be read as .npz ({str(error).splitlines()[0]})") from error


def _h5(path: Path, key: str) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{key}={path} needs the package h5py; run pip install h5py, or save the arrays as .npz"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            return _known(
                path, {name: np.asarray(file[name]) for name in file if isinstance(file[name], h5py.Dataset)}, key
            )
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read as .h5 ({str(error).splitlines()[0]})") from error


def _known(path: Path, arrays: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Only x, theta, y and y2, in that order."""
    unknown = [name for name in arrays if name not in COLUMNS]
    if unknown:
        raise UserError(f"{key}={path}: unknown array {', '.join(unknown)}; arrays are x, theta, y and y2")
    return {name: arrays[name] for name in COLUMNS if name in arrays}


def _csv(path: Path, key: str) -> dict[str, Any]:
    """Columns gathered into arrays."""
    where = f"{key}={path}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = [row for row in csv.reader(file) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where} cannot be read as CSV ({error})") from error
    header = [name.strip() for name in header]
    groups = _header(where, header)
    table = np.empty((len(lines), len(header)))
    found: list[str] = []
    for r, line in enumerate(lines):
        if len(line) != len(header):
            found.append(f"{where}: row {r + 1} has {len(line)} cells, and the header has {len(header)}")
            continue
        try:
            table[r] = [float(cell) for cell in line]
        except ValueError:
            c = next(c for c, cell in enumerate(line) if not _number(cell))
            found.append(f"{where}: column {header[c]} is '{line[c]}' in row {r + 1}, and must be a number")
    if found:
        more = [f"{where}: … and {len(found) - 5} more rows"] if len(found) > 5 else []
        raise UserError("\n".join(found[:5] + more))
    return {name: table[:, columns] for name, columns in groups.items()}


def _header(where: str, header: list[str]) -> dict[str, list[int]]:
    """Column positions of each array, in the order of their numbers."""
    found = [f"{where}: column {name} is there twice" for name in sorted({h for h in header if header.count(h) > 1})]
    numbers: dict[str, dict[int, int]] = {name: {} for name in COLUMNS}
    for position, name in enumerate(header):
        match = re.fullmatch(r"(x|theta|y|repeat)(\d+)", name)
        if match is None:
            found.append(f"{where}: unknown column '{name}'; columns are x0 …, theta0 …, y0 … and repeat0 …")
            continue
        array = next(key for key, prefix in COLUMNS.items() if prefix == match[1])
        numbers[array][int(match[2])] = position
    for array, columns in numbers.items():
        missing = [n for n in range(max(columns, default=-1)) if n not in columns]
        found += [f"{where}: column {COLUMNS[array]}{n} is missing" for n in missing[:3]]
    found += [f"{where}: column {name}0 is missing" for name in ("x", "y") if not numbers[name] and where[:4] == "data"]
    if found:
        raise UserError("\n".join(found[:8]))
    return {array: [columns[n] for n in sorted(columns)] for array, columns in numbers.items() if columns}


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
