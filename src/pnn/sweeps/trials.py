"""What a search leaves: trials.csv, history.png, the best configuration as an experiment, and its progress."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import hydra
import optuna
from hydra.core.global_hydra import GlobalHydra

from pnn.config import compose, plain
from pnn.plugins import conf_dir
from pnn.rules import Config
from pnn.sweeps.plan import SCORES, Plan, composed
from pnn.sweeps.storage import places

GUIDE = """\
This folder holds one search of pnn for hyper-parameters, on validation data only.

  trials.csv            every trial: score, state, parameters, the reason of a failure
  history.png           score against trial, with the best so far
  experiment/best.yaml  the best configuration as an experiment:
                        {use}
  trial-0007/           the run folder of trial 7, with log.txt; nothing in it was scored on the test set
                        (with repeats: repeat-0, repeat-1, … in it)
  sweep.yaml            what was asked for
  study.db              the Optuna study (unless storage= says otherwise): optuna-dashboard sqlite:///study.db

Repeat the command to resume, or beside itself for more workers; trials=N makes the study longer.
"""


class Progress:
    """A bar over the trials of the study; without a terminal, one line per trial that has ended."""

    def __init__(self, plan: Plan, study: optuna.Study):
        from tqdm import tqdm

        self.study, self.total = study, plan.options["trials"]
        self.seen = {row["trial"] for row in rows(study) if row["state"] != "running"}
        self.maximise = plan.maximise
        self.lines = not sys.stderr.isatty()
        self.bar = tqdm(
            total=self.total, initial=len(self.seen), desc="trials", unit="trial", disable=self.lines, leave=False
        )

    def show(self) -> None:
        table = rows(self.study)
        new = [row for row in table if row["state"] != "running" and row["trial"] not in self.seen]
        self.seen |= {row["trial"] for row in new}
        for row in new:
            if self.lines:
                print(f"trial {row['trial']} ({len(self.seen)}/{self.total}): {_outcome(row)}", flush=True)
        self.bar.update(len(new))
        if new and (best := ranked(table, self.maximise)):
            self.bar.set_postfix_str(f"best {_percent(best[0]['value'])} in trial {best[0]['trial']}")

    def close(self) -> None:
        self.bar.close()


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _outcome(row: dict[str, Any]) -> str:
    text = _percent(row["value"]) if row["value"] is not None else row["reason"]
    return text if row["state"] == "complete" else f"{row['state']}, {text}"


def rows(study: optuna.Study) -> list[dict[str, Any]]:
    """One row per place: trial, state, value, scores of its repeats, seconds, reason, overrides as drawn, every parameter."""
    table = []
    for place, trial in places(study.get_trials(deepcopy=False)).items():
        table.append(
            {
                "trial": place,
                "state": {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),
                "value": trial.value,
                "scores": trial.user_attrs.get("scores", []),
                "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
                "reason": trial.user_attrs.get("reason", ""),
                "overrides": trial.user_attrs.get("overrides", []),
                "parameters": trial.params,
            }
        )
    return table


def ranked(table: list[dict[str, Any]], maximise: bool) -> list[dict[str, Any]]:
    """The completed trials, best first; of equals the earlier one."""
    done = [row for row in table if row["state"] == "complete"]
    return sorted(done, key=lambda row: -row["value"] if maximise else row["value"])


def report(plan: Plan, study: optuna.Study, table: list[dict[str, Any]]) -> None:
    """trials.csv, history.png, experiment/best.yaml, README.txt; the five best on the screen."""
    from pnn import runs

    folder, order = plan.folder, ranked(table, plan.maximise)
    runs.write_atomically(folder / "trials.csv", lambda path: _write_table(path, table))
    runs.write_atomically(folder / "history.png", lambda path: history_figure(plan, table, path))
    plus = "" if plan.command == "train" else "+"
    use = f"pnn-{plan.command} --config-dir {folder} {plus}experiment=best"
    (folder / "README.txt").write_text(GUIDE.format(use=use))
    if order:
        (folder / "experiment").mkdir(exist_ok=True)
        text = best_yaml(plan, order[0])
        runs.write_atomically(folder / "experiment" / "best.yaml", lambda path: path.write_text(text))
        print(render(table, order, SCORES[plan.command]))
        print(f"\nbest: {use}\ntable: {folder / 'trials.csv'}    picture: {folder / 'history.png'}")


def render(table: list[dict[str, Any]], order: list[dict[str, Any]], score: str) -> str:
    """The five best trials, and how all of them ended."""
    lines = [f"\n{'trial':>5}  {score}"]
    lines += [f"{row['trial']:>5}  {100 * row['value']:>8.2f}   {' '.join(row['overrides'])}" for row in order[:5]]
    states = [row["state"] for row in table]
    lines.append(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    return "\n".join(lines)


def _write_table(path: Path, table: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in table for name in row["parameters"]))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", "value", "scores", "seconds", *names, "reason"])
        for row in table:
            found = [row["parameters"].get(name, "") for name in names]
            value = "" if row["value"] is None else row["value"]
            scores = " ".join(f"{score:.4f}" for score in row["scores"])
            writer.writerow([row["trial"], row["state"], value, scores, row["seconds"], *found, row["reason"]])


def best_yaml(plan: Plan, row: dict[str, Any]) -> str:
    """An experiment that composes to the configuration of a trial: every group's option, then the values that differ."""
    import yaml

    config = composed(plan, row["overrides"])
    options = {k: str(v) for k, v in chosen_options(plan, row["overrides"]).items() if isinstance(config.get(k), dict)}
    groups = [f"{key}={option}" for key, option in options.items()]
    alone = plain(compose(plan.command, [*groups, f"seed={config['seed']}"], plan.config_dir))
    values = {"name": config["name"], "seed": config["seed"]} | _differences(config, alone)
    score = f"{SCORES[plan.command].removesuffix(' (%)')} {_percent(row['value'])}"
    if plan.options["repeats"] > 1:
        score += f", the mean over {plan.options['repeats']} values of {', '.join(plan.options['over'])}"
    head = f"# @package _global_\n# Trial {row['trial']} of the sweep {plan.options['name']}: {score}.\n"
    defaults = [*({f"override /{key}": option} for key, option in options.items()), "_self_"]
    return head + yaml.safe_dump({"defaults": defaults, **values}, sort_keys=False, allow_unicode=True)


def chosen_options(plan: Plan, drawn: list[str]) -> dict[str, str | None]:
    """group → option of a trial's composition."""
    extra = [f"hydra.searchpath=[file://{Path(plan.config_dir).absolute()}]"] if plan.config_dir else []
    groups = [o for o in drawn if o.partition("=")[0] in plan.base]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir().absolute()), version_base="1.3"):
        config = hydra.compose(plan.command, [*extra, *plan.overrides, *groups], return_hydra_config=True)
    return dict(config.hydra.runtime.choices)


def _differences(config: Config, other: Config) -> Config:
    """The part of `config` that differs from `other`."""
    found = {}
    for key, value in config.items():
        if key not in other or value != other[key]:
            both = isinstance(value, dict) and isinstance(other.get(key), dict)
            found[key] = _differences(value, other[key]) if both else value
    return found


def history_figure(plan: Plan, table: list[dict[str, Any]], path: Path) -> None:
    """Score of every trial and the best so far; pruned trials with their last score, failed ones as ticks below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
    scored = {state: [r for r in table if r["state"] == state and r["value"] is not None] for state in MARKS}
    for state, style in MARKS.items():
        if scored[state]:
            x, y = zip(*((r["trial"], 100 * r["value"]) for r in scored[state]), strict=True)
            axis.scatter(x, y, s=26, label=f"{state} ({len(x)})", zorder=3, **style)
    done, better = scored["complete"], max if plan.maximise else min
    if done:
        best = [100 * better(r["value"] for r in done[: n + 1]) for n in range(len(done))]
        steps = [*(r["trial"] for r in done), table[-1]["trial"]]
        axis.step(steps, [*best, best[-1]], where="post", color="#D55E00", lw=1.6, label="best so far")
    failed = [r["trial"] for r in table if r["state"] == "failed"]
    if failed:
        place = axis.get_xaxis_transform()  # x in trials, y in fractions of the axis
        style = {"marker": "|", "s": 60, "color": "#000000", "transform": place, "clip_on": False}
        axis.scatter(failed, [0.02] * len(failed), label=f"failed ({len(failed)})", **style)
    if not plan.maximise and done and max(best) > 10 * min(best) > 0:
        axis.set_yscale("log")
    axis.set(xlabel="trial", ylabel=SCORES[plan.command], title=plan.options["name"])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


#: Okabe-Ito colours: distinguishable with any colour vision.
MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": "#0072B2"},
    "pruned": {"marker": "x", "color": "#999999"},
}
