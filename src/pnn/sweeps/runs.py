"""The runs of a grid: trained, resumed, evaluated, by any number of processes, each point by one of them, once."""

from __future__ import annotations

import contextlib
import io
import shutil
import traceback
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.rules import Config
from pnn.sweeps.claims import Claims
from pnn.sweeps.grid import Point
from pnn.sweeps.processes import pulse, signals_kept

TRANSFER = "transfer.json"


def claims_of(point: Point) -> Claims:
    """The claims of the study that a point belongs to."""
    return Claims(point.folder.parent / ".claims")


def work(points: Sequence[Point], ended: Callable[[Point], object] = lambda point: None) -> None:
    """Do whatever is left of `points` and not claimed by another process; `ended` is called after each."""
    found = True
    while found:  # once more, in case that a process has died meanwhile
        found = False
        for point in points:
            claims = claims_of(point)
            if finished(point) or claims.failure(point.name) is not None or not claims.take(point.name):
                continue
            try:
                if finished(point):
                    continue
                with pulse(lambda claims=claims, name=point.name: claims.touch(name)), signals_kept():  # type: ignore[misc]
                    attempt(point, claims)
                found = True
            finally:
                claims.release(point.name)
            ended(point)


def attempt(point: Point, claims: Claims) -> None:
    """Run one point; what it says goes into its log.txt, and a failure's reason into the claims."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            run(point)
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the second of a Ctrl-C in a batch
        raise KeyboardInterrupt from None
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        claims.fail(point.name, kind + "; ".join(str(error).splitlines() or [""]))
        print(traceback.format_exc(), file=said)
    finally:
        point.folder.mkdir(parents=True, exist_ok=True)
        with (point.folder / "log.txt").open("a") as file:
            file.write(said.getvalue())


def run(point: Point) -> None:
    """Train a point, from its last checkpoint if it has one, score it on the test set, and evaluate it elsewhere."""
    from pnn.train import train

    folder = point.folder
    if not (folder / "summary.json").exists():
        last = folder / "checkpoints" / "last.ckpt"
        if not last.exists():
            shutil.rmtree(folder, ignore_errors=True)
        resumed = {"ckpt_path": str(last)} if last.exists() else {}
        trainer = {**point.config["trainer"], "enable_progress_bar": False}
        train({**point.config, **resumed, "trainer": trainer})
    transfer(point)


def finished(point: Point) -> bool:
    """Whether nothing is left to do for a point."""
    return (point.folder / "summary.json").exists() and not missing(point)


# devices elsewhere


def missing(point: Point) -> list[tuple[float, int]]:
    """The devices that a point has not been evaluated on yet."""
    done = {(row["distance"], row["distance_seed"]) for row in transfers(point.folder)}
    return [device for device in point.transfers if device not in done]


def transfers(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's transfer.json; none without it."""
    import json

    try:
        return list(json.loads((folder / TRANSFER).read_text())["rows"])
    except FileNotFoundError:
        return []


def transfer(point: Point) -> None:
    """RUN/transfer.json: the test accuracy of a trained network on fresh devices, each (distance, distance_seed) once."""
    from pnn import checkpoints, runs

    todo = missing(point)
    if not todo:
        return
    checkpoint = checkpoints.read(point.folder / "checkpoints" / "best.ckpt")
    rows, batches = transfers(point.folder), None
    for distance, seed in todo:
        device = {**point.config["device"], "distance": distance, "distance_seed": seed}
        value, batches = accuracy({**point.config, "device": device}, checkpoint, batches)
        rows.append({"distance": distance, "distance_seed": seed, "accuracy": value})
        rows.sort(key=lambda row: (row["distance"], row["distance_seed"]))
        runs.write_json(point.folder / TRANSFER, {"trained_gap": point.config["device"]["gap"], "rows": rows})
        print(f"distance {distance:g}, device {seed}: {value:.2%}")


def accuracy(config: Config, checkpoint: dict[str, Any], batches: Any = None) -> tuple[float, list[Any]]:
    """Test accuracy on the device of `config` with the parameters of a checkpoint, and the test batches, to be used again."""
    import torch

    from pnn.build import build
    from pnn.checkpoints import load_network

    experiment = build(config)
    load_network(experiment.network, checkpoint)
    if batches is None:
        experiment.task.prepare_data()
        experiment.task.setup()
        loader = experiment.task.test_dataloader()
        limit = config["trainer"].get("limit_test_batches", 1.0)
        batches = list(islice(loader, limit if isinstance(limit, int) else int(limit * len(loader))))
    with torch.no_grad():
        right = sum(int((experiment.network(x, "device").argmax(-1) == y).sum()) for x, y in batches)
    return right / sum(len(y) for _, y in batches), batches


# before any of it


def check_folders(points: Sequence[Point]) -> None:
    """Refuse folders that hold a run of another configuration. Raises UserError that lists them all."""
    from omegaconf import OmegaConf

    from pnn.checkpoints import differences
    from pnn.train import MAY_CHANGE

    found = []
    for point in points:
        path = point.folder / "config.yaml"
        if not path.is_file():
            continue
        stored: Any = OmegaConf.to_container(OmegaConf.load(path))
        if different := differences(stored, point.config, ignore=MAY_CHANGE):
            found.append(
                f"{point.folder} holds a run of another configuration: {'; '.join(different[:3])}; choose another name= or out="
            )
    if found:
        raise UserError("\n".join(found))
