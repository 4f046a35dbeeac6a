"""A study: a grid of complete training runs, each scored once on the test set at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pnn.errors import UserError
from pnn.rules import Config, Number, problems
from pnn.sweeps import grid, runs
from pnn.sweeps.grid import Point, Study, parse_axis

#: Own keys of pnn-sweep that are about searches.
OF_SEARCHES = ("trials", "sampler", "sampler_seed", "pruner", "records", "repeats", "over", "storage")
NUMBERS = (
    Number("workers", int, 1, 1024, "use 1"),
    Number("worker_threads", int, 1, 1024, "use null for the processor's cores, shared by the workers", optional=True),
)
#: What a trained network can be evaluated on, and nothing else.
EVALUATED = ("device.distance", "device.distance_seed")


def configuration(options: Config, lines: Sequence[str], config_dir: str | None = None, check: bool = True) -> Study:
    """The study of `options` (pnn-sweep's own keys) and the other overrides: axes, and what all points share.

    Raises UserError that lists every mistake: of the options, of the axes, of the configuration of every point, and,
    with `check`, of the parts of which the networks are built.
    """
    kind = options["sweep"]
    found = [p for rule in NUMBERS if (p := rule.problem(options[rule.key]))]
    found += [f"sweep.{key}: a study has a grid: and no {key}:" for key in ("space",) if kind.get(key)]
    written, shared, evaluated = _read(kind, lines, found)
    axes = []
    for key, text in written.items():
        try:
            axes.append(parse_axis(key, text))
        except UserError as error:
            found.append(str(error))
    try:
        transfers = _transfers(evaluated)
    except UserError as error:
        found.append(str(error))
    if found:
        raise UserError("\n".join(found))
    _, base = grid.composed(shared, config_dir)
    name = options["name"] or f"{kind.get('name') or 'study'}-{base['name']}"
    options = {**options, "name": name, "out": options["out"] or f"outputs/sweep/{name}"}
    settled, points = grid.points(
        axes,
        shared,
        base,
        Path(options["out"]),
        also=kind.get("also"),
        hint=kind.get("hint") or "",
        config_dir=config_dir,
    )
    if transfers and "gap" not in points[0].config["device"]:
        raise UserError("device.gap: this device has none to be trained on; use device=ideal or device=lab")
    points = [Point(p.name, p.values, p.config, tuple(transfers)) for p in points]
    if check:
        from pnn.build import build

        grid.check_built(points, build)
    return Study(options, tuple(shared), settled, tuple(points))


def _read(kind: Config, lines: Sequence[str], found: list[str]) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """The axes as written, the overrides of every point, and the devices to evaluate on; the command line comes last."""
    written = {str(key): value for key, value in (kind.get("grid") or {}).items()}
    evaluated = {str(key): value for key, value in (kind.get("evaluate") or {}).items()}
    shared = [str(o) for o in kind.get("overrides") or ()]
    for key in evaluated:
        if key not in EVALUATED:
            found.append(f"evaluate: {key} must be one of {', '.join(EVALUATED)}")
    parser = OverridesParser.create()
    for line in lines:
        key, _, text = line.partition("=")
        if key in ("ckpt_path", "out"):
            found.append(f"{line} means nothing to a study; every run has a folder of its own")
            continue
        if key == "experiment" and "," in text:
            found.append(f"{line}: a study is about one experiment; give one")
            continue
        try:
            override = parser.parse_override(line)
        except HydraException as error:
            found.append(f"{line}: {str(error).splitlines()[0]}")
            continue
        axis = next((k for k in written if key.lstrip("+") in k.split("|")), None)
        if key in evaluated:
            evaluated[key] = text
        elif axis:
            written = {(key.lstrip("+") if k == axis else k): text if k == axis else v for k, v in written.items()}
        elif override.is_sweep_override():
            written = {key.lstrip("+"): text, **written}  # before the seeds
        else:
            shared.append(line)
    return written, shared, evaluated


def _transfers(evaluated: dict[str, Any]) -> list[tuple[float, int]]:
    """Every (distance, distance_seed); at distance 0 there is one device."""
    if not evaluated:
        return []
    distances, seeds = (parse_axis(key, evaluated.get(key, 0)).values for key in EVALUATED)
    found: list[str] = []
    for key, values in zip(("distance", "distance_seed"), (distances, seeds), strict=True):
        for text in values:
            found += problems({"device": {key: OverridesParser.create().parse_override(f"k={text}").value()}})
    if found:
        raise UserError("\n".join(found))
    devices = [(float(d), int(s)) for d in distances for s in seeds]
    return list(dict.fromkeys((d, s if d else int(seeds[0])) for d, s in devices))


def study(plan: Study) -> list[dict[str, Any]]:
    """Run a study until all of its points are done; prints and writes its tables. Returns the rows of points.csv."""
    return conduct([plan], plan.options["workers"], plan.options["worker_threads"])[0]


def conduct(
    plans: Sequence[Study],
    workers: int = 1,
    threads: int | None = None,
    cost: Callable[[Point], float] | None = None,
) -> list[list[dict[str, Any]]]:
    """Run the points of several studies, seed by seed of each study in turn, and write the tables of all.

    `cost` weighs the points in the estimate of the time left (without it, their epochs do).
    Raises UserError before anything is written for a folder that holds something else, and at the end for failed points.
    """
    from pnn.sweeps import results
    from pnn.sweeps.progress import Progress

    points = [point for plan in plans for point in grid.seeds_first(plan.points)]
    _check_places(plans)
    prepare(points)
    for plan in plans:
        _announce(plan)
    progress = Progress(points, cost)
    try:
        if workers > 1:
            from pnn.sweeps.processes import crew

            crew(_job, (points, threads or 0), workers, progress.show)
        with _threads(threads):
            runs.work(points, lambda _: progress.show())
    finally:
        progress.close()
        written = [results.report(plan) for plan in plans]
    failed = [f"{p.name}: {reason}" for p in points if (reason := runs.claims_of(p).failure(p.name)) is not None]
    if failed:
        head = f"{len(failed)} of {len(points)} runs failed; repeat the command to try again"
        more = [f"and {len(failed) - 5} more: points.csv"] if len(failed) > 5 else []
        raise UserError("\n".join([head, *failed[:5], *more]))
    return written


def _job(points: Sequence[Point], threads: int) -> None:
    with _threads(threads):
        runs.work(points)


class _threads:
    """PyTorch's threads while this lasts."""

    def __init__(self, count: int | None):
        self.count = count

    def __enter__(self) -> None:
        import torch

        self.before = torch.get_num_threads()
        if self.count:
            torch.set_num_threads(self.count)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self.before)


def _check_places(plans: Sequence[Study]) -> None:
    from pnn.runs import check_writable

    for plan in plans:
        check_writable(plan.folder)
        if plan.folder.exists() and not (plan.folder / "study.yaml").exists() and any(plan.folder.iterdir()):
            raise UserError(f"out={plan.folder} is not an empty folder, nor that of a study; choose another out=")
    runs.check_folders([point for plan in plans for point in plan.points])


def prepare(points: Sequence[Point]) -> None:
    """Fetch the data once, before any worker starts."""
    from pnn.build import instantiate

    tasks = {str(point.config["task"]): point.config["task"] for point in points}
    for task in tasks.values():
        instantiate(task).prepare_data()


def _announce(plan: Study) -> None:
    """study.yaml, and a line on what is about to run."""
    from pnn import runs as folders

    plan.folder.mkdir(parents=True, exist_ok=True)
    asked = {**plan.options, "overrides": list(plan.overrides), "axes": {a.key: list(a.values) for a in plan.axes}}
    asked |= {"environment": folders.environment(sys.argv)}
    text = OmegaConf.to_yaml(OmegaConf.create(asked))
    folders.write_atomically(plan.folder / "study.yaml", lambda path: path.write_text(text))
    runs.claims_of(plan.points[0]).forget_failures()
    over = " × ".join(f"{len(axis.values)} {axis.key}" for axis in plan.axes)
    print(f"{plan.name}: {len(plan.points)} runs ({over}) → {plan.folder}", flush=True)
