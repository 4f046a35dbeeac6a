"""pnn-sweep: search hyper-parameters of pnn-train, or of pnn-twin, with Optuna; trials see validation data only."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from pnn.config import application, checked, compose, conf_dir, fail, no_such_key, plain
from pnn.errors import UserError
from pnn.rules import Config, Number, look_up, problems

if TYPE_CHECKING:
    import optuna

    from pnn.search import Entry

OWN = ("sweep", "name", "trials", "workers", "sampler", "sampler_seed", "pruner", "storage", "out")
NUMBERS = (
    Number("trials", int, 1, 10**6, "use 20"),
    Number("workers", int, 1, 1024, "use 1"),
    Number("sampler_seed", int, 0, 2**31, "use 0"),
)
GUIDE = """\
This folder holds one search of pnn for hyper-parameters, on validation data only.

  trials.csv            every trial: score, state, parameters, the reason of a failure
  history.png           score against trial, with the best so far
  experiment/best.yaml  the best configuration as an experiment:
                        {use}
  trial-0007/           the run folder of trial 7, with log.txt; nothing in it was scored on the test set
  sweep.yaml            what was asked for
  study.db              the Optuna study (unless storage= says otherwise): optuna-dashboard sqlite:///study.db

Repeat the command to resume, or beside itself for more workers; trials=N makes the study longer.
"""
TRIAL_GUIDE = """\
One trial of a search: a training run as pnn-train leaves it, but never scored on the test set. There is no summary.json;
the score is the best validation accuracy in metrics.csv. log.txt holds what it said, and why it ended early.
"""


def main() -> None:
    """Entry point of `pnn-sweep`."""
    arguments = get_args_parser().parse_args()
    if arguments.help or arguments.hydra_help or arguments.info or arguments.shell_completion:
        application("sweep", lambda _: None)
        return
    try:
        if arguments.multirun:
            raise UserError(
                "pnn-sweep takes no -m: a study is one command; give a key several values to search over them"
            )
        plan = configuration(arguments.overrides, arguments.config_dir)
        if arguments.cfg:
            from omegaconf import OmegaConf

            print(OmegaConf.to_yaml(OmegaConf.create({**plan.base, **plan.options})))
        else:
            _hide_password()
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            sweep(plan)
    except (UserError, HydraException) as error:
        fail(error)
    except KeyboardInterrupt:
        print("\nstopped; repeat the command to resume", file=sys.stderr)
        sys.exit(130)


def _hide_password() -> None:
    """Run folders record the command line."""
    from pnn.search import shown

    sys.argv = [f"storage={shown(a.partition('=')[2])}" if a.startswith("storage=") else a for a in sys.argv]


@dataclass(frozen=True)
class Plan:
    """A checked sweep: its own options, what every trial has in common, and the space."""

    options: Config
    overrides: tuple[str, ...]  # of every trial
    base: Config  # the configuration they give
    space: tuple[Entry, ...]
    written: dict[str, Any]  # the space as it was written
    config_dir: str | None

    @property
    def command(self) -> str:
        return str(self.options["sweep"]["command"])

    @property
    def maximise(self) -> bool:
        return self.command == "train"

    @property
    def folder(self) -> Path:
        return Path(self.options["out"])

    def trial_folder(self, place: int) -> Path:
        return self.folder / f"trial-{place:04d}"


def configuration(overrides: list[str], config_dir: str | None = None) -> Plan:
    """The plan of a command line: its own keys, ranges to search (`key=interval(…)`), and what all trials share.

    Raises UserError that lists every mistake of the options, of the shared configuration and of the ends of the space.
    """
    from pnn.search import parse_space

    own = [o for o in overrides if o.partition("=")[0].lstrip("+~").partition(".")[0] in OWN]
    options = _options(checked("sweep", own, config_dir))
    parser = OverridesParser.create()
    shared, written = [str(o) for o in options["sweep"]["overrides"]], _flat(options["sweep"]["space"])
    fixed = {}
    for line in (o for o in overrides if o not in own):
        try:
            override = parser.parse_override(line)
        except HydraException as error:
            raise UserError(f"{line}: {str(error).splitlines()[0]}") from error
        if override.is_sweep_override():
            written[override.get_key_element().lstrip("+")] = line.partition("=")[2]
        else:
            fixed[override.key_or_group] = line.partition("=")[2]
            shared.append(line)
    for key in ("ckpt_path", "out"):
        if key in fixed:
            raise UserError(f"{key}={fixed[key]} means nothing to a sweep; its trials start anew")
    command = options["sweep"]["command"]
    base = checked(command, shared, config_dir)
    space = parse_space(written, fixed, lambda key: "." not in key and isinstance(base.get(key), dict))
    if not space:
        raise UserError("the space is empty: every key of it has a fixed value; leave one open, or use pnn-" + command)
    name = options["name"] or f"{options['sweep']['name']}-{base['name']}"
    options |= {"name": name, "out": options["out"] or f"outputs/sweep/{name}"}
    plan = Plan(options, tuple(shared), base, space, written, config_dir)
    _check_ends(plan)
    return plan


def _options(options: Config) -> Config:
    from pnn.search import PRUNERS, SAMPLERS

    found = [p for rule in NUMBERS if (p := rule.problem(options[rule.key]))]
    for key, value, allowed in (
        ("sampler", options["sampler"], SAMPLERS),
        ("pruner", options["pruner"], PRUNERS),
        ("sweep.command", options["sweep"]["command"], ("train", "twin")),
    ):
        if value not in allowed:
            found.append(f"{key}={value} must be one of {', '.join(allowed)}")
    if found:
        raise UserError("\n".join(found))
    return options


def _flat(space: dict[str, Any] | None) -> dict[str, Any]:
    return {str(key): value for key, value in (space or {}).items()}


def _check_ends(plan: Plan) -> None:
    """Compose every combination of options, and check every entry's smallest and largest values in it."""
    from pnn.search import branches

    found: dict[str, None] = {}
    for chosen, entries in branches(plan.space):
        try:
            config = composed(plan, chosen)
        except UserError as error:
            found |= dict.fromkeys(str(error).splitlines())
            continue
        for entry in entries:
            try:
                look_up(config, entry.key)
            except KeyError:
                where = f" with {' '.join(chosen)}" if chosen else ""
                hint = f"see pnn-{plan.command} --cfg job"
                found[f"space: {no_such_key(entry.key, f'{entry.key}{where}', config, hint)}"] = None
                continue
            for end in entry.extremes():
                found |= dict.fromkeys(f"space: {p}" for p in problems(_with(config, [end])))
    if plan.command == "twin" and (plan.base["model"].get("measure") or {}).get("repeats") == 1:
        found["model.measure.repeats=1 leaves the bias of a twin unknown; use 2"] = None
    if found:
        raise UserError("\n".join(found))


def composed(plan: Plan, drawn: list[str]) -> Config:
    """The checked configuration with drawn overrides. An option that is drawn takes from the sweep's experiment only the keys
    that the option has itself: the depth of a row of layers means nothing to an ensemble.
    """
    groups = {k: o for o in drawn if isinstance(plan.base.get(k := o.partition("=")[0]), dict)}
    if not groups:
        return checked(plan.command, [*plan.overrides, *drawn], plan.config_dir)
    own = plain(compose(plan.command, list(groups.values()), plan.config_dir))
    merged = plain(compose(plan.command, [*plan.overrides, *groups.values()], plan.config_dir))
    foreign = [f"~{name}" for key in groups for name in _foreign(merged[key], own[key], key)]
    return checked(plan.command, [*plan.overrides, *drawn, *foreign], plan.config_dir)


def _foreign(node: Config, own: Config, key: str) -> list[str]:
    """Keys of `node` that `own` lacks; an empty mapping in `own` takes any."""
    found = [f"{key}.{name}" for name in node if name not in own]
    for name, inner in own.items():
        if isinstance(inner, dict) and inner and isinstance(node.get(name), dict):
            found += _foreign(node[name], inner, f"{key}.{name}")
    return found


def _with(config: Config, overrides: list[str]) -> Config:
    """A copy of a plain configuration with values set."""
    copy = json.loads(json.dumps(config))
    for override in OverridesParser.create().parse_overrides(overrides):
        *above, last = override.key_or_group.split(".")
        node = copy
        for part in above:
            node = node.setdefault(part, {})
        node[last] = override.value()
    return copy


def sweep(plan: Plan) -> list[dict[str, Any]]:
    """Run the study until its trials are done; writes the table, the picture and the best configuration.

    Returns the rows of trials.csv. Raises UserError when no trial has a result.
    """
    from omegaconf import OmegaConf

    from pnn import runs
    from pnn.search import free_abandoned, shown

    folder = plan.folder
    runs.check_writable(folder)
    if folder.exists() and not (folder / "sweep.yaml").exists() and any(folder.iterdir()):
        raise UserError(f"out={folder} is not an empty folder, nor that of a study; choose another out=")
    _prepare(plan)
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(plan)
    asked = {**plan.options, "storage": shown(plan.options["storage"]), "overrides": list(plan.overrides)}
    asked |= {"environment": runs.environment(sys.argv)}
    runs.write_atomically(folder / "sweep.yaml", lambda p: p.write_text(OmegaConf.to_yaml(OmegaConf.create(asked))))
    print(f"{study.study_name}: {plan.options['trials']} trials over {', '.join(plan.written)} → {folder}", flush=True)
    progress = Progress(plan, study)
    try:
        if plan.options["workers"] > 1:
            _workers(plan, progress)
        work(plan, study, progress)  # with workers: whatever a killed one has left behind
    finally:
        progress.close()
        free_abandoned(study)
        table = rows(study)
        if table:
            report(plan, study, table)
    if not any(row["state"] == "complete" for row in table):
        reasons = [row["reason"] for row in table if row["reason"]]
        raise UserError(f"no trial of {folder} has a result: {reasons[0] if reasons else 'all were pruned'}")
    return table


def _prepare(plan: Plan) -> None:
    """Fetch the data once, before any worker starts."""
    from pnn.build import instantiate

    if plan.command == "train":
        instantiate(plan.base["task"]).prepare_data()


def open_study(plan: Plan) -> optuna.Study:
    """The study of the plan, new or resumed. Raises UserError for one that was begun with another configuration."""
    import optuna

    from pnn import search
    from pnn.checkpoints import differences

    search.quiet()
    options = plan.options
    study = optuna.create_study(
        storage=search.make_storage(options["storage"], plan.folder),
        study_name=options["name"],
        sampler=search.make_sampler(options["sampler"], options["sampler_seed"], options["trials"]),
        pruner=search.make_pruner(options["pruner"]),
        direction="maximize" if plan.maximise else "minimize",
        load_if_exists=True,
    )
    about = {"command": plan.command, "space": plan.written, "config": plan.base}
    about = json.loads(json.dumps(about))
    stored = study.user_attrs.get("about")
    if stored is None:
        study.set_user_attr("about", about)
    elif different := differences(stored, about):
        raise UserError(
            f"name={options['name']}: that study was begun with another configuration: {'; '.join(different[:5])}; "
            "repeat its command, or choose another name="
        )
    return study


def work(plan: Plan, study: optuna.Study, progress: Progress | None = None) -> None:
    """Run trials until all places of the study are taken."""
    from optuna.exceptions import UpdateFinishedTrialError

    from pnn.search import pulse, take

    while (trial := take(study, plan.options["trials"])) is not None:
        with contextlib.suppress(UpdateFinishedTrialError):  # given up by another machine, and run there
            with pulse(trial), _signals_kept():
                tell = attempt(plan, study, trial)
            with contextlib.suppress(ValueError):  # the same, in the last moment
                tell()
        if progress is not None:
            progress.show()


def attempt(plan: Plan, study: optuna.Study, trial: optuna.Trial) -> Callable[[], object]:
    """Run one trial in its folder; returns what tells the study its result. A failure's reason becomes part of the trial."""
    import optuna

    from pnn.search import draw

    folder = plan.trial_folder(trial.user_attrs["trial"])
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    overrides = draw(plan.space, trial)
    trial.set_user_attr("overrides", overrides)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            config = composed(plan, overrides)
            value = OBJECTIVES[plan.command]({**config, "out": str(folder)}, trial)
            if not math.isfinite(value):
                raise UserError(f"the score is {value}")
        return lambda: study.tell(trial, value)
    except optuna.TrialPruned as pruned:
        print(f"pruned: {pruned}", file=said)
        return lambda: study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the second of a Ctrl-C in a batch
        study.tell(trial, state=optuna.trial.TrialState.FAIL)  # without a reason: to be repeated
        raise KeyboardInterrupt from None
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        trial.set_user_attr("reason", kind + "; ".join(str(error).splitlines() or [""]))
        print(traceback.format_exc(), file=said)
        return lambda: study.tell(trial, state=optuna.trial.TrialState.FAIL)
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").write_text(said.getvalue())
        if plan.command == "train":
            (folder / "README.txt").write_text(TRIAL_GUIDE)


def train_objective(config: Config, trial: Any) -> float:
    """The best validation accuracy of a training run, which never sees the test set."""
    from pnn.callbacks import Pruning
    from pnn.train import train

    monitor = config["training"]["monitor"]
    config = {**config, "trainer": {**config["trainer"], "enable_progress_bar": False}}
    return float(train(config, callbacks=[Pruning(trial, monitor)], test=False)[monitor])


def twin_objective(config: Config, trial: Any) -> float:
    """The bias of a fitted twin on measurements held out from the fit, as a fraction of their spread."""
    from pnn.twin import twin

    card = twin(config)
    bias = card["fits"][card["model"]]["bias"]
    if bias is None or bias != bias:
        raise UserError("the twin's bias is unknown; measure every input twice")
    return float(bias)


OBJECTIVES: dict[str, Callable[[Config, Any], float]] = {"train": train_objective, "twin": twin_objective}
SCORES = {"train": "validation accuracy (%)", "twin": "held-out bias (%)"}


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """A run that ends by an exception leaves its handlers of Ctrl-C and SIGTERM behind; put ours back."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# workers


def _workers(plan: Plan, progress: Progress) -> None:
    """Local processes that work on the study until they find nothing to do."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_worker, args=(plan,), daemon=True) for _ in range(plan.options["workers"])]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(0.5)
            progress.show()
    except KeyboardInterrupt:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(30)
        raise


def _worker(plan: Plan) -> None:
    import torch

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // plan.options["workers"])))
    try:
        work(plan, open_study(plan))
    except KeyboardInterrupt:
        sys.exit(130)


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


# what is written


def rows(study: optuna.Study) -> list[dict[str, Any]]:
    """One row per place: trial, state, value, seconds, reason, the overrides as drawn, and every parameter."""
    from pnn.search import places

    table = []
    for place, trial in places(study.get_trials(deepcopy=False)).items():
        table.append(
            {
                "trial": place,
                "state": {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),
                "value": trial.value,
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
        writer.writerow(["trial", "state", "value", "seconds", *names, "reason"])
        for row in table:
            found = [row["parameters"].get(name, "") for name in names]
            value = "" if row["value"] is None else row["value"]
            writer.writerow([row["trial"], row["state"], value, row["seconds"], *found, row["reason"]])


def best_yaml(plan: Plan, row: dict[str, Any]) -> str:
    """An experiment that composes to the configuration of a trial: every group's option, then the values that differ."""
    import yaml

    config = composed(plan, row["overrides"])
    options = {k: str(v) for k, v in chosen_options(plan, row["overrides"]).items() if isinstance(config.get(k), dict)}
    groups = [f"{key}={option}" for key, option in options.items()]
    alone = plain(compose(plan.command, [*groups, f"seed={config['seed']}"], plan.config_dir))
    values = {"name": config["name"], "seed": config["seed"]} | _differences(config, alone)
    score = f"{SCORES[plan.command].removesuffix(' (%)')} {_percent(row['value'])}"
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
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


#: Okabe-Ito colours: distinguishable with any colour vision.
MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": "#0072B2"},
    "pruned": {"marker": "x", "color": "#999999"},
}


if __name__ == "__main__":
    main()
