"""Run folders: everything about a run in one place, written so that nothing is ever half there."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pnn.errors import UserError

PACKAGES = (
    "torch",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "optuna",
    "wandb",
    "numpy",
    "scipy",
    "scikit-learn",
)

GUIDE = """\
This folder holds one training run of pnn.

  config.yaml      the resolved configuration; repeat with the command in environment.json
  environment.json command, git commit, package versions, machine
  devices.json     the device card: recipe, seed and size of every device of the run
  metrics.csv      one row per epoch, on the device and on the digital model
  curves.png       the same as a picture
  checkpoints/     best.ckpt (by validation) and last.ckpt; resume with ckpt_path=.../last.ckpt
  visited.npz      drives that the trained network sends to its device (pnn-twin visited=...), where parameters are drives
  twin-<n>.pt      digital twins fitted before training, if any
  summary.json     the result: test accuracy on device and model, device calls, wall time

Score it on another device:  pnn-evaluate ckpt_path=<this folder>/checkpoints/best.ckpt device.seed=7
"""


def write_atomically(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a temporary file beside `path`, then move it there in one step."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        fill(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """JSON, indented, atomically."""
    write_atomically(path, lambda p: p.write_text(json.dumps(content, indent=2) + "\n"))


def check_writable(folder: Path) -> None:
    """Refuse an output folder in which nothing can be written; creates nothing."""
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"out={folder} cannot be written ({parent} is not a writable folder); choose another out=")


def new_folder(out: str | None, name: str) -> Path:
    """The folder of a new run: `out`, or outputs/<name>/<time>. It is checked here and made by `create`."""
    if out is not None:
        folder = Path(out)
        check_writable(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"out={folder} is not an empty folder; choose another out=, or resume its run with ckpt_path="
            )
        return folder
    base = Path("outputs") / name
    check_writable(base)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    candidates = [base / stamp, *(base / f"{stamp}_{n}" for n in range(2, 1000))]
    return next(folder for folder in candidates if not folder.exists())


def create(folder: Path, *, resumed: bool = False) -> bool:
    """Make the run folder and its checkpoint folder; False when another process has just made the same one.

    The folder belongs to the process that creates its README.txt: exclusively, on a shared file system too.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "README.txt").open("w" if resumed else "x") as file:
            file.write(GUIDE)
        (folder / "checkpoints").mkdir(exist_ok=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"out={folder} cannot be written ({error.strerror}); choose another out=") from error
    return True


def made(folder: Path, out: str | None, name: str) -> Path:
    """Make the folder that `new_folder` chose, or the next one if another process has just made it."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=out is not None)
            return folder
        except FileExistsError:
            folder = new_folder(out, name)
        except OSError as error:
            raise UserError(f"out={folder} cannot be written ({error.strerror}); choose another out=") from error


def commit() -> str:
    """The git commit of the source tree, with `-dirty` when it has changes; `unknown` outside a checkout."""
    try:
        command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
        here = Path(__file__).parent
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(command: list[str]) -> dict[str, Any]:
    """Command, commit, package versions and machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": " ".join(command),
        "commit": commit(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "packages": versions,
    }
