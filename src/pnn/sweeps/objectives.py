"""What a trial of a search is worth: validation data only, over one training run or several that differ in their seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from pnn.errors import UserError
from pnn.rules import Config
from pnn.sweeps.plan import Plan, composed


def records_of(config: Config) -> int:
    """Device records that one inference of a configuration's network takes, over all of its layers, members and channels."""
    from pnn.budget import budget
    from pnn.build import build

    experiment = build(config)
    layers = budget(experiment.network, experiment.laboratory, experiment.task.features).layers
    return sum(use.records for use in layers.values())


def refusal(plan: Plan, config: Config) -> str | None:
    """Why the network of a trial is not trained: it cannot be built, or takes too many device records."""
    try:
        taken = records_of(config)
    except UserError as error:
        return "; ".join(str(error).splitlines())
    if plan.records and taken > plan.records:
        return f"takes {taken} device records, more than {plan.records}"
    return None


class Repetitions:
    """An Optuna trial of several training runs, as each of them sees it: what one reports is averaged with those before."""

    def __init__(self, trial: Any):
        self.trial, self.scores = trial, list[float]()
        self.begin, self.step = 0, -1

    def report(self, value: float, step: int) -> None:
        self.step = self.begin + step
        self.trial.report(fmean([*self.scores, value]), self.step)

    def should_prune(self) -> bool:
        return bool(self.trial.should_prune())

    def add(self, score: float) -> None:
        """End a run."""
        self.scores.append(score)
        self.begin = self.step + 1


def score(plan: Plan, drawn: list[str], config: Config, trial: Any, folder: Path) -> float:
    """The value of a trial of composition `config`: the mean over its `repeats`, each trained in a folder of its own.

    Run n has the configuration's values of the keys `over` (seeds, splits) plus n.
    """
    objective = OBJECTIVES[plan.command]
    if plan.options["repeats"] == 1:
        return objective({**config, "out": str(folder)}, trial)
    runs = Repetitions(trial)
    for n, again in enumerate(plan.repetitions):
        runs.add(objective({**composed(plan, [*drawn, *again]), "out": str(folder / f"repeat-{n}")}, runs))
        trial.set_user_attr("scores", runs.scores)
    return fmean(runs.scores)


def train_objective(config: Config, trial: Any) -> float:
    """The validation accuracy of the epoch that a training run keeps; the run never sees the test set."""
    from pnn.callbacks import Pruning
    from pnn.train import train

    score = config["training"]["monitor"]
    if score == "epoch":  # the last one is kept, whatever its accuracy; in silico has no device to score it on
        score = "val_accuracy_model" if config["training"]["name"] == "in_silico" else "val_accuracy_device"
    config = {**config, "trainer": {**config["trainer"], "enable_progress_bar": False}}
    return float(train(config, callbacks=[Pruning(trial, score)], test=False)[score])


def twin_objective(config: Config, trial: Any) -> float:
    """The bias of a fitted twin on measurements held out from the fit, as a fraction of their spread."""
    from pnn.twin import twin

    card = twin(config)
    bias = card["fits"][card["model"]]["bias"]
    if bias is None or bias != bias:
        raise UserError("the twin's bias is unknown; measure every input twice")
    return float(bias)


OBJECTIVES: dict[str, Callable[[Config, Any], float]] = {"train": train_objective, "twin": twin_objective}
