"""An Optuna study that any number of processes work on.

A study has `trials` places, 0 … trials − 1. A place is claimed by a trial of the storage that carries it in the user attribute
`trial`; of two claims the older one counts. A trial that failed without a `reason` was abandoned: its place is free again,
for the same parameters. So nothing is run twice, nothing is lost, and no lock is needed, whatever the storage.
"""

from __future__ import annotations

import contextlib
import copy
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from pnn.errors import UserError
from pnn.sweeps.processes import gone, me

SAMPLERS, PRUNERS = ("tpe", "random", "nsga2"), ("median", "none")
#: A place whose process died so often is not tried again.
ATTEMPTS = 10


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


def make_pruner(name: str, epochs: int = 1) -> optuna.pruners.BasePruner:
    """median: stop what is worse than the median of the trials before, from the fifth trial on and after a quarter of `epochs`
    (no less than one): after two epochs of a hundred, accuracies say nothing yet.
    """
    if name == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4))


def make_storage(storage: str | None, folder: Path) -> optuna.storages.BaseStorage:
    """null: FOLDER/study.db; journal: FOLDER/study.journal; a path: that journal file; a URL: that database.

    Raises UserError for one that cannot be reached.
    """
    if storage is not None and "://" not in storage:
        from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

        path = str(folder / "study.journal" if storage == "journal" else Path(storage))
        try:
            return optuna.storages.JournalStorage(JournalFileBackend(path, JournalFileSymlinkLock(path)))
        except OSError as error:
            raise UserError(
                f"storage={storage} cannot be written ({error.strerror}); give a file in a folder of yours"
            ) from error
    url = storage or f"sqlite:///{folder / 'study.db'}"
    wait: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for attempt in range(5):  # processes that start together may create the tables together
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=wait)
        except Exception as error:
            if attempt == 4 or not type(error).__module__.startswith("sqlalchemy.exc"):
                remedy = "use null, journal, or a URL such as postgresql://…"
                if isinstance(error, ImportError):
                    remedy = "pip install 'pnn[postgres]' brings the driver of postgresql://"
                raise UserError(
                    f"storage={shown(url)} cannot be used ({str(error).splitlines()[0]}); {remedy}"
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
    return gone(trial.user_attrs["worker"], trial.user_attrs["alive"])
