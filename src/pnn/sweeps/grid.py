"""A grid of training runs: axes in Hydra's sweep grammar, and their points, each composed and checked before any work."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pnn.config import REFUSED, checked, compose, no_such_key, plain
from pnn.errors import UserError
from pnn.reporting import statistics
from pnn.rules import Config, look_up, problems

LARGEST = 10_000
#: Axes whose values only repeat an experiment: tables average over them.
SPLIT = "task.split_seed"
REPEATS = ("seed", SPLIT, "device.seed", "task.seed")
Repetition = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Axis:
    """One key and the values it takes, as they were written. `key` may name several, `a|b`: the first that there is."""

    key: str
    values: tuple[str, ...]

    @property
    def alternatives(self) -> list[str]:
        return self.key.split("|")


@dataclass(frozen=True)
class Point:
    """One run of a grid: its name, its value on every axis, and its whole configuration (`out` is its folder)."""

    name: str
    values: dict[str, str]
    config: Config
    transfers: tuple[tuple[float, int], ...] = ()  # (distance, distance_seed) of the devices it is evaluated on

    @property
    def folder(self) -> Path:
        return Path(self.config["out"])


@dataclass(frozen=True)
class Study:
    """A checked study: its own options, its axes, and all of its points."""

    options: Config
    overrides: tuple[str, ...]  # of every point
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]

    @property
    def folder(self) -> Path:
        return Path(self.options["out"])

    @property
    def name(self) -> str:
        return str(self.options["name"])


def parse_axis(key: str, text: Any) -> Axis:
    """The axis that `text` describes: one value, `a,b`, `choice(…)` or `range(start, stop, step)` (without its stop)."""
    text = ",".join(map(str, text)) if isinstance(text, list | tuple) else text
    name = key.split("|")[0]
    try:
        override = OverridesParser.create().parse_override(f"{name}={'null' if text is None else text}")
    except HydraException as error:
        raise UserError(f"grid: {key}={text} cannot be read ({str(error).splitlines()[0]})") from error
    if not override.is_sweep_override():
        return Axis(key, ("null" if text is None else str(text),))
    if not override.is_discrete_sweep():
        raise UserError(f"grid: {key}={text} has no single values; use a,b,c or choice(…) or range(0, 5)")
    values = tuple(override.sweep_string_iterator())
    if not values:
        raise UserError(f"grid: {key}={text} is empty; use range(0, 5), whose stop is excluded")
    if len(set(values)) < len(values):
        raise UserError(f"grid: {key}={text} names a value twice; name each once")
    return Axis(key, values)


def settle(axes: Sequence[Axis], configs: Sequence[Config], hint: str = "") -> tuple[Axis, ...]:
    """The axes with the first of their alternatives that every configuration has. Raises UserError for one without."""
    settled, found = [], []
    for axis in axes:
        there = [key for key in axis.alternatives if all(_has(config, key) for config in configs)]
        if there:
            settled.append(Axis(there[0], axis.values))
        elif hint and len(axis.alternatives) > 1:
            found.append(f"grid: none of {', '.join(axis.alternatives)} is a key of this composition; {hint}")
        else:
            key = axis.alternatives[0]
            message = no_such_key(key, key, configs[0], "see pnn-train --cfg job")
            found.append(f"grid: {message}{f'; {hint}' if hint else ''}")
    if found:
        raise UserError("\n".join(found))
    return tuple(settled)


def _has(config: Config, key: str) -> bool:
    try:
        look_up(config, key)
    except KeyError:
        return False
    return True


def is_group(config: Config, key: str) -> bool:
    """Whether a key of a plain configuration is one of its groups."""
    return "." not in key and isinstance(config.get(key), dict)


def points(
    axes: Sequence[Axis],
    shared: Sequence[str],
    base: Config,
    folder: Path,
    *,
    also: dict[str, str] | None = None,
    hint: str = "",
    config_dir: str | None = None,
) -> tuple[tuple[Axis, ...], list[Point]]:
    """The settled axes, and every point of their product, in its order, each in a folder of its own inside `folder`.

    `base` is the configuration that the overrides in `shared` give alone. `also`: key → axis whose value it takes too, where
    there is such a key. Groups are composed by Hydra, once for every combination; values are set in the result before it is
    resolved, as Hydra does. Raises UserError with all mistakes.
    """
    groups = [axis for axis in axes if is_group(base, axis.key)]
    rest = [axis for axis in axes if not is_group(base, axis.key)]
    if (size := math.prod(len(axis.values) for axis in axes)) > LARGEST:
        raise UserError(f"the grid has {size} points, and {LARGEST} are the limit; take values out of an axis")
    nodes: dict[tuple[str, ...], Any] = {}
    configs: list[Config] = []
    found: dict[str, None] = {}
    for options in product(*(axis.values for axis in groups)):
        chosen = [f"{axis.key}={option}" for axis, option in zip(groups, options, strict=True)]
        try:
            nodes[options], config = composed([*shared, *chosen], config_dir)
            configs.append(config)
        except UserError as error:
            found |= dict.fromkeys(str(error).splitlines())
    _refuse(found)
    rest = list(settle(rest, configs, hint))
    done = []
    names = _names(groups + rest)
    for options, node in nodes.items():
        fixed = dict(zip((axis.key for axis in groups), options, strict=True))
        for drawn in product(*(axis.values for axis in rest)):
            values = fixed | dict(zip((axis.key for axis in rest), drawn, strict=True))
            try:
                name = "-".join(_word(names[key], values[key]) for key in values)
                config = _composed(node, {key: values[key] for key in values if key not in fixed}, also or {}, axes)
                found |= dict.fromkeys(problems(config))
                done.append(Point(name, values, {**config, "out": str(folder / name)}))
            except UserError as error:
                found |= dict.fromkeys(str(error).splitlines())
    _refuse(found)
    order = {axis.key: {value: n for n, value in enumerate(axis.values)} for axis in groups + rest}
    settled = [next(s for s in groups + rest if s.key in axis.alternatives) for axis in axes]
    done.sort(key=lambda point: [order[axis.key][point.values[axis.key]] for axis in settled])
    if len({point.name for point in done}) < len(done):
        raise UserError("two points of the grid have one name; write the values of every axis in one way")
    return tuple(settled), done


def composed(overrides: Sequence[str], config_dir: str | None = None) -> tuple[Any, Config]:
    """A configuration of pnn-train, unresolved and resolved; its values are not checked, since axes will replace some.

    Raises UserError that lists every override that Hydra refuses.
    """
    try:
        node = compose("train", overrides, config_dir)
        config = plain(node)
    except REFUSED:
        config = checked("train", overrides, config_dir)  # says what is wrong
        node = compose("train", overrides, config_dir)
    return node, config


def _composed(node: Any, values: dict[str, str], also: dict[str, str], axes: Sequence[Axis]) -> Config:
    """The resolved configuration with `values` set in the unresolved node; every axis is set anew, so nothing stays."""
    for key, text in values.items():
        OmegaConf.update(node, key, _value(key, text), force_add=False)
    for key, source in also.items():
        axis = next((a for a in axes if source in a.alternatives), None)
        taken = next((values[k] for k in (axis.alternatives if axis else ()) if k in values), None)
        if taken is not None and key not in values and OmegaConf.select(node, key) is not None:
            OmegaConf.update(node, key, _value(key, taken), force_add=False)
    return plain(node)


def _value(key: str, text: str) -> Any:
    return OverridesParser.create().parse_override(f"{key}={text}").value()


def _refuse(found: dict[str, None]) -> None:
    if found:
        raise UserError("\n".join(found))


def _names(axes: Sequence[Axis]) -> dict[str, str]:
    """key → how a point's name says it: nothing for a group, else the shortest end of the key that is its own."""
    names = {}
    for axis in axes:
        parts = axis.key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [other.key for other in axes if other.key != axis.key]
        unique = next((e for e in ends if not any(o == e or o.endswith(f".{e}") for o in others)), axis.key)
        names[axis.key] = "" if len(parts) == 1 and axis.key in GROUPS else unique
    return names


#: Keys whose value alone says what it is.
GROUPS = ("training", "device", "system", "architecture", "task", "reference")


def _word(name: str, value: str) -> str:
    """`gap0.2`, `seed1`, `pat`: letters that need no quotes in a shell or in Hydra's grammar."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", f"{name}{value}").strip("_") or "null"


def seeds_first(points: Sequence[Point]) -> list[Point]:
    """The order to work in: everything of the first seed, then of the next, so that a part of a grid is a whole picture."""
    seeds = list(dict.fromkeys(repetition(point.values) for point in points))
    return sorted(points, key=lambda point: seeds.index(repetition(point.values)))


def repetition(values: Mapping[str, str]) -> Repetition:
    """Which repetition a point is: its values on the axes of seeds."""
    return tuple((key, values[key]) for key in REPEATS if key in values)


def independent(found: Mapping[Repetition, float]) -> list[float]:
    """Independent numbers: one a split where there are several, else one a repetition."""
    return list(statistics.independent(found, lambda repeated: dict(repeated).get(SPLIT)).values())


def representatives(points: Sequence[Point]) -> Iterator[Point]:
    """Points among which every value of every axis but the seed occurs."""
    seen: set[tuple[str, str]] = set()
    for point in points:
        new = {item for item in point.values.items() if item[0] not in REPEATS} - seen
        if new or not seen:
            seen |= new
            yield point


def check_built(points: Sequence[Point], build: Callable[[Config], object]) -> None:
    """Build a network for every value of every axis; raises UserError with everything that the parts refuse."""
    found: dict[str, None] = {}
    for point in representatives(points):
        try:
            build(point.config)
        except UserError as error:
            found[f"{point.name}: {error}"] = None
    _refuse(found)
