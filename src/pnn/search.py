"""A search space in Hydra's own sweep grammar, and an Optuna study that any number of processes work on.

A study has `trials` places, 0 … trials − 1. A place is claimed by a trial of the storage that carries it in the user attribute
`trial`; of two claims the older one counts. A trial that failed without a `reason` was abandoned: its place is free again,
for the same parameters. So nothing is run twice, nothing is lost, and no lock is needed, whatever the storage.
"""

from __future__ import annotations

import contextlib
import copy
import os
import platform
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from pnn.errors import UserError

SAMPLERS, PRUNERS = ("tpe", "random", "nsga2"), ("median", "none")
#: A worker says every PULSE seconds that it lives; one on another machine is given up after SILENCE.
PULSE, SILENCE = 30.0, 600.0
#: A place whose process died so often is not tried again.
ATTEMPTS = 10


# the space


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


# the study


class Seeded(BaseSampler):
    """A sampler whose random numbers depend on the seed and on the trial's place only, not on who draws it or when."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        self.make, self.seed = make, seed
        self.inner = make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        place = trial.user_attrs.get("trial", trial.number)
        self.inner = self.make(int(np.random.SeedSequence([self.seed, place]).generate_state(1)[0]))
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: Any) -> Any:
        return self.inner.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)


def make_sampler(name: str, seed: int, trials: int) -> Seeded:
    """tpe, random or nsga2 (a fifth of the trials is its population, between 4 and 50)."""
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda s: optuna.samplers.TPESampler(seed=s, multivariate=False, constant_liar=True),
        "random": lambda s: optuna.samplers.RandomSampler(seed=s),
        "nsga2": lambda s: optuna.samplers.NSGAIISampler(seed=s, population_size=min(50, max(4, trials // 5))),
    }
    return Seeded(makers[name], seed)


def make_pruner(name: str) -> optuna.pruners.BasePruner:
    """median: stop what is worse than the median of the trials before, from the fifth trial and the second epoch on."""
    if name == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)


def make_storage(storage: str | None, folder: Path) -> optuna.storages.BaseStorage:
    """null: FOLDER/study.db; journal: FOLDER/study.journal; a path: that journal file; a URL: that database.

    Raises UserError for one that cannot be reached.
    """
    if storage is not None and "://" not in storage:
        from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

        path = str(folder / "study.journal" if storage == "journal" else Path(storage))
        return optuna.storages.JournalStorage(JournalFileBackend(path, JournalFileSymlinkLock(path)))
    url = storage or f"sqlite:///{folder / 'study.db'}"
    wait: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for attempt in range(5):  # processes that start together may create the tables together
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=wait)
        except Exception as error:
            if attempt == 4 or not type(error).__module__.startswith("sqlalchemy.exc"):
                reason = str(error).splitlines()[0]
                raise UserError(
                    f"storage={shown(url)} cannot be used ({reason}); use null, journal, or a URL such as postgresql://…"
                ) from error
            time.sleep(0.3 * (attempt + 1))
    raise AssertionError


def shown(storage: str | None) -> str | None:
    """A storage as it may be written down: without its password."""
    if storage is None or "@" not in storage:
        return storage
    scheme, _, rest = storage.partition("://")
    user, _, place = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}:***@{place}"


def quiet() -> None:
    """Keep Optuna's remarks about itself from hiding what matters."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def places(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """place → the trial that holds it. `trials` in the order of their numbers."""
    held: dict[int, FrozenTrial] = {}
    for trial in trials:
        abandoned = trial.state == TrialState.FAIL and "reason" not in trial.user_attrs
        if "trial" in trial.user_attrs and not abandoned:
            held.setdefault(trial.user_attrs["trial"], trial)
    return dict(sorted(held.items()))


def take(study: optuna.Study, trials: int) -> Trial | None:
    """The next trial for this process to run, or None when all places are taken.

    (Optuna's own queue would do, but two processes on SQLite can take the same trial from it; a trial is created once.)
    """
    while True:
        free_abandoned(study)
        everything = study.get_trials(deepcopy=False)
        held = places(everything)
        place = next((n for n in range(trials) if n not in held), None)
        if place is None:
            return None
        before, claim = _attempts(everything, place), uuid.uuid4().hex
        about = {"trial": place, "claim": claim, "worker": me(), "alive": time.time()}
        again = {"fixed_params": before[-1].params if before else {}}  # as Study.enqueue_trial does
        study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=about, system_attrs=again))
        everything = study.get_trials(deepcopy=False)
        mine = next(t for t in everything if t.user_attrs.get("claim") == claim)
        if places(everything)[place].number != mine.number:
            study.tell(mine.number, state=TrialState.FAIL)  # another process was quicker
            continue
        trial = Trial(copy.copy(study), mine._trial_id)  # a copy, since a study remembers the trials that it has seen
        if len(before) < ATTEMPTS:
            return trial
        trial.set_user_attr("reason", f"its process was killed {ATTEMPTS} times; does it need too much memory?")
        study.tell(trial, state=TrialState.FAIL)


def _attempts(trials: Sequence[FrozenTrial], place: int) -> list[FrozenTrial]:
    """The abandoned trials of a place that had begun to run."""
    own = (t for t in trials if t.user_attrs.get("trial") == place and t.state == TrialState.FAIL)
    return [t for t in own if "overrides" in t.user_attrs]


def free_abandoned(study: optuna.Study) -> None:
    """Fail the running trials whose process is gone."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if "trial" in trial.user_attrs and _abandoned(trial):
            with contextlib.suppress(ValueError, RuntimeError):  # it has just ended, or another process was quicker
                study.tell(trial.number, state=TrialState.FAIL)


def _abandoned(trial: FrozenTrial) -> bool:
    worker = trial.user_attrs["worker"]
    if worker["host"] != platform.node():
        return time.time() - trial.user_attrs["alive"] > SILENCE
    return worker["started"] != _started(worker["pid"])


def me() -> dict[str, Any]:
    """Which process this is."""
    return {"host": platform.node(), "pid": os.getpid(), "started": _started(os.getpid())}


def _started(pid: int) -> str | None:
    """When a process of this machine started, in the system's own units; `?` if that is unknown, None if it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():
            fields = stat.read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else fields[19]
        os.kill(pid, 0)
    except PermissionError:
        return "?"
    except OSError:
        return None
    return "?"


@contextlib.contextmanager
def pulse(trial: Trial) -> Iterator[None]:
    """Say in the storage, as long as this lasts, that the trial's process lives: other machines cannot see it."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(PULSE):
            with contextlib.suppress(Exception):  # the storage may be away for a while
                trial.set_user_attr("alive", time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
