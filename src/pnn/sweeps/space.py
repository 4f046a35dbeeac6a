"""A search space in Hydra's own sweep grammar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from pnn.errors import UserError


@dataclass(frozen=True)
class Value:
    """One key that takes one value."""

    key: str
    distribution: BaseDistribution

    def draw(self, trial: Any) -> list[str]:
        return [f"{self.key}={suggest(trial, self.key, self.distribution)}"]

    def extremes(self) -> list[str]:
        return [f"{self.key}={value}" for value in _extremes(self.distribution)]


@dataclass(frozen=True)
class Listed:
    """One key that takes a list: its length is drawn, then every element."""

    key: str
    length: IntDistribution
    each: BaseDistribution

    def draw(self, trial: Any) -> list[str]:
        length = suggest(trial, f"{self.key}.length", self.length)
        elements = (str(suggest(trial, f"{self.key}.{place}", self.each)) for place in range(length))
        return [f"{self.key}=[{','.join(elements)}]"]

    def extremes(self) -> list[str]:
        lengths, values = _extremes(self.length), _extremes(self.each)
        return [f"{self.key}=[{','.join([str(v)] * n)}]" for n, v in product(lengths, values)]


@dataclass(frozen=True)
class OneOf:
    """A configuration group: an option is drawn, then the option's own space."""

    key: str
    options: dict[str, tuple[Entry, ...]]

    def draw(self, trial: Any) -> list[str]:
        option = suggest(trial, self.key, CategoricalDistribution(list(self.options)))
        return [f"{self.key}={option}", *draw(self.options[option], trial)]


Entry = Value | Listed | OneOf


def suggest(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    """The trial's value of one parameter."""
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, FloatDistribution):
        d = distribution
        return trial.suggest_float(name, d.low, d.high, step=d.step, log=d.log)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def draw(space: Sequence[Entry], trial: Any) -> list[str]:
    """The overrides of one trial."""
    return [override for entry in space for override in entry.draw(trial)]


def _extremes(distribution: Any) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


def branches(space: Sequence[Entry]) -> Iterator[tuple[list[str], list[Value | Listed]]]:
    """Every combination of options: its group overrides, and the entries that hold with it."""
    groups = [entry for entry in space if isinstance(entry, OneOf)]
    own: list[Value | Listed] = [entry for entry in space if not isinstance(entry, OneOf)]
    for options in product(*(group.options for group in groups)):
        chosen = [f"{group.key}={option}" for group, option in zip(groups, options, strict=True)]
        inner = [entry for group, option in zip(groups, options, strict=True) for entry in group.options[option]]
        for below, entries in branches(inner) if inner else [([], [])]:
            yield [*chosen, *below], [*own, *entries]


def parse_space(space: dict[str, Any], fixed: dict[str, str], is_group: Callable[[str], bool]) -> tuple[Entry, ...]:
    """The entries of `space`: key → text in Hydra's grammar (`interval`, `range`, `choice`, `tag(log, …)`, `int(…)`),
    key → {length, each} for a list, or group → {option: space}. A key in `fixed` keeps its value there and is not searched.

    Raises UserError that lists every mistake.
    """
    found: list[str] = []
    entries = _entries(space, fixed, is_group, found)
    seen: dict[str, Entry] = {}
    for _, inner in branches(entries):
        for entry in inner:
            if seen.setdefault(entry.key, entry) != entry:
                found.append(f"space: {entry.key} differs between options; give it the same values in each")
    if found:
        raise UserError("\n".join(dict.fromkeys(found)))
    return entries


def _entries(space: Any, fixed: dict[str, str], is_group: Callable[[str], bool], found: list[str]) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for key, content in (space or {}).items():
        try:
            if is_group(key):
                options = content if isinstance(content, dict) else dict.fromkeys(_options(key, content))
                if key in fixed:
                    entries += _entries(options.get(fixed[key]), fixed, is_group, found)
                else:
                    inner = {str(o): _entries(s, fixed, is_group, found) for o, s in options.items()}
                    entries.append(OneOf(key, inner))
            elif key not in fixed:
                entries.append(_entry(key, content))
        except UserError as error:
            found.append(str(error))
    return tuple(entries)


def _options(key: str, text: Any) -> Sequence[Any]:
    distribution = parse(key, text)
    if not isinstance(distribution, CategoricalDistribution):
        raise UserError(f"space: {key}={text} must be choice(…) of options, since {key} is a group")
    return distribution.choices


def _entry(key: str, content: Any) -> Entry:
    if not isinstance(content, dict):
        return Value(key, parse(key, content))
    if set(content) != {"length", "each"}:
        raise UserError(f"space: {key} has {', '.join(map(str, content))}; a list has length: and each:")
    length = parse(f"{key}.length", content["length"])
    if not isinstance(length, IntDistribution) or length.low < 0:
        raise UserError(f"space: {key}.length={content['length']} must be whole numbers >= 0; use range(1, 6)")
    return Listed(key, length, parse(f"{key}.each", content["each"]))


def parse(key: str, text: Any) -> BaseDistribution:
    """What `text` describes. `interval` includes both ends; `range` excludes its stop, as everywhere in Hydra."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        return _distribution(override, text)
    except HydraException as error:
        raise UserError(f"space: {key}={text} cannot be read ({str(error).splitlines()[0]})") from error
    except ValueError as error:  # Optuna's own limits: low > high, log of 0
        raise error if isinstance(error, UserError) else UserError(f"space: {key}={text}: {error}") from error


def _distribution(override: Override, text: Any) -> BaseDistribution:
    if not override.is_sweep_override():
        raise UserError(
            f"space: {override.key_or_group}={text} is one value; use interval, range or choice, or list it in overrides:"
        )
    sweep: Any = override.value()
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        ends: Any = (sweep.start, sweep.end)
        low, high = ends
        whole = isinstance(low, int) and isinstance(high, int)
        return IntDistribution(low, high, log=log) if whole else FloatDistribution(low, high, log=log)
    if isinstance(sweep, RangeSweep):
        steps = len(list(sweep.range()))
        if not steps or sweep.step <= 0:
            raise UserError(f"space: {override.key_or_group}={text} must go upwards; use range(1, 6)")
        last: Any = sweep.start + (steps - 1) * sweep.step  # type: ignore[operator]
        if isinstance(last, int):
            return IntDistribution(int(sweep.start), last, step=int(sweep.step), log=log)  # type: ignore[arg-type]
        return FloatDistribution(float(sweep.start), last, step=float(sweep.step))  # type: ignore[arg-type]
    if not override.is_discrete_sweep() or not hasattr(sweep, "list"):
        raise UserError(f"space: {override.key_or_group}={text} cannot be searched; use interval, range or choice")
    return CategoricalDistribution(list(override.sweep_string_iterator()))
