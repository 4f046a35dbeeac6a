"""A search: an Optuna study over training runs or twins; its trials see validation data only."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from pnn.config import checked, no_such_key
from pnn.errors import UserError
from pnn.rules import Config, Number, look_up, problems
from pnn.sweeps import storage
from pnn.sweeps.objectives import records_of, refusal, score
from pnn.sweeps.plan import Plan, composed
from pnn.sweeps.processes import crew, pulse, signals_kept
from pnn.sweeps.space import branches, draw, parse_space

NUMBERS = (
    Number("trials", int, 1, 10**6, "use 20"),
    Number("workers", int, 1, 1024, "use 1"),
    Number("sampler_seed", int, 0, 2**31, "use 0"),
    Number("repeats", int, 1, 1000, "use 1"),
)
TRIAL_GUIDE = """\
One trial of a search: a training run as pnn-train leaves it, but never scored on the test set. There is no summary.json;
the score is the best validation accuracy in metrics.csv. log.txt holds what it said, and why it ended early.
"""


def configuration(options: Config, lines: Sequence[str], config_dir: str | None = None) -> Plan:
    """The plan of pnn-sweep's own keys and the other overrides: ranges to search (`key=interval(…)`), and what trials share.

    Raises UserError that lists every mistake of the options, of the shared configuration and of the ends of the space, or
    says why the shared configuration's network cannot be built.
    """
    options = _options(options)
    parser = OverridesParser.create()
    shared, written = [str(o) for o in options["sweep"].get("overrides") or ()], _flat(options["sweep"]["space"])
    fixed = {}
    for line in lines:
        try:
            override = parser.parse_override(line)
        except HydraException as error:
            raise UserError(f"{line}: {str(error).splitlines()[0]}") from error
        if override.is_sweep_override():
            key, text = override.get_key_element().lstrip("+"), line.partition("=")[2]
            if not _put(written, key, text):
                written[key] = text
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
    name = options["name"] or f"{options['sweep'].get('name') or 'search'}-{base['name']}"
    options |= {"name": name, "out": options["out"] or f"outputs/sweep/{name}"}
    plan = Plan(options, tuple(shared), base, space, written, config_dir)
    _check_repeats(plan)
    _check_ends(plan)
    own = records_of(base) if plan.command == "train" else None
    return replace(plan, records=own if options["records"] == "own" else options["records"])


def _options(options: Config) -> Config:
    found = [p for rule in NUMBERS if (p := rule.problem(options[rule.key]))]
    for key, value, allowed in (
        ("sampler", options["sampler"], storage.SAMPLERS),
        ("pruner", options["pruner"], storage.PRUNERS),
        ("sweep.command", options["sweep"]["command"], ("train", "twin")),
    ):
        if value not in allowed:
            found.append(f"{key}={value} must be one of {', '.join(allowed)}")
    records = options["records"]
    if not (records in (None, "own") or (isinstance(records, int) and not isinstance(records, bool) and records >= 1)):
        found.append(f"records={records} must be a whole number >= 1; use own for as many as the experiment's network")
    elif records is not None and options["sweep"]["command"] == "twin":
        found.append(f"records={records} means nothing to sweep={options['sweep']['name']}, which trains no network")
    if found:
        raise UserError("\n".join(found))
    return options


def _flat(space: dict[str, Any] | None) -> dict[str, Any]:
    return {str(key): value for key, value in copy.deepcopy(space or {}).items()}


def _put(space: dict[str, Any], key: str, text: str) -> bool:
    """Replace `key` in a space and in the spaces of its options; whether it was there."""
    inner = [s for content in space.values() if isinstance(content, dict) for s in content.values()]
    found = [_put(s, key, text) for s in inner if isinstance(s, dict)]
    if key in space:
        space[key] = text
    return any(found) or key in space


def _check_ends(plan: Plan) -> None:
    """Compose every combination of options, and check every entry's smallest and largest values in it."""
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


def _check_repeats(plan: Plan) -> None:
    """Refuse `over` where nothing is repeated, and keys in it that are no whole numbers or that the space draws."""
    over, searched = plan.options["over"], {entry.key for entry in plan.space}
    if plan.options["repeats"] == 1:
        if over != ["seed"]:
            raise UserError(f"over={over} means nothing with repeats=1; add repeats=5")
        return
    if not isinstance(over, list) or not over:
        raise UserError(f"over={over} must be a list of keys; use over=[seed] or over=[seed,task.split_seed]")
    found = []
    for key in map(str, over):
        value = None
        with contextlib.suppress(KeyError):
            value = look_up(plan.base, key)
        if not isinstance(value, int) or isinstance(value, bool):
            found.append(f"over=[{key}] is no key with a whole number; use over=[seed] or over=[seed,task.split_seed]")
        elif key in searched:
            found.append(f"over=[{key}] is searched; give that key one value")
    if found:
        raise UserError("\n".join(found))


def _with(config: Config, overrides: list[str]) -> Config:
    """A copy of a plain configuration with values set."""
    found = json.loads(json.dumps(config))
    for override in OverridesParser.create().parse_overrides(overrides):
        *above, last = override.key_or_group.split(".")
        node = found
        for part in above:
            node = node.setdefault(part, {})
        node[last] = override.value()
    return found


def search(plan: Plan) -> list[dict[str, Any]]:
    """Run the study until its trials are done; writes the table, the picture and the best configuration.

    Returns the rows of trials.csv. Raises UserError when no trial has a result.
    """
    from omegaconf import OmegaConf

    from pnn import runs
    from pnn.sweeps.trials import Progress, report, rows

    folder = plan.folder
    runs.check_writable(folder)
    marks = ("sweep.yaml", "study.db", "study.journal")  # of a study, however early it was interrupted
    if folder.exists() and any(folder.iterdir()) and not any((folder / mark).exists() for mark in marks):
        raise UserError(f"out={folder} is not an empty folder, nor that of a study; choose another out=")
    _prepare(plan)
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(plan)
    asked = {**plan.options, "storage": storage.shown(plan.options["storage"]), "overrides": list(plan.overrides)}
    asked |= {"environment": runs.environment(sys.argv)}
    runs.write_atomically(folder / "sweep.yaml", lambda p: p.write_text(OmegaConf.to_yaml(OmegaConf.create(asked))))
    searched = ", ".join(entry.key for entry in plan.space)
    print(f"{study.study_name}: {plan.options['trials']} trials over {searched} → {folder}", flush=True)
    progress = Progress(plan, study)
    try:
        if plan.options["workers"] > 1:
            crew(_job, (plan,), plan.options["workers"], progress.show)
        work(plan, study, progress)  # with workers: whatever a killed one has left behind
    finally:
        progress.close()
        storage.free_abandoned(study)
        table = rows(study)
        if table:
            report(plan, study, table)
    if not any(row["state"] in ("complete", "running") for row in table):  # running: in another process
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
    from pnn.checkpoints import differences

    storage.quiet()
    options = plan.options
    study = optuna.create_study(
        storage=storage.make_storage(options["storage"], plan.folder),
        study_name=options["name"],
        sampler=storage.make_sampler(options["sampler"], options["sampler_seed"], options["trials"]),
        pruner=storage.make_pruner(options["pruner"], plan.base.get("trainer", {}).get("max_epochs") or 1),
        direction="maximize" if plan.maximise else "minimize",
        load_if_exists=True,
    )
    about: dict[str, Any] = {"command": plan.command, "space": plan.written, "config": plan.base}
    about |= {"records": plan.records} if plan.records else {}
    about |= {key: plan.options[key] for key in ("repeats", "over")} if plan.options["repeats"] > 1 else {}
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


def _job(plan: Plan) -> None:
    work(plan, open_study(plan))


def work(plan: Plan, study: optuna.Study, progress: Any = None) -> None:
    """Run trials until all places of the study are taken."""
    from optuna.exceptions import UpdateFinishedTrialError

    while (trial := storage.take(study, plan.options["trials"])) is not None:
        with contextlib.suppress(UpdateFinishedTrialError):  # given up by another machine, and run there
            with pulse(lambda: trial.set_user_attr("alive", time.time())), signals_kept():
                tell = attempt(plan, study, trial)
            with contextlib.suppress(ValueError):  # the same, in the last moment
                tell()
        if progress is not None:
            progress.show()


def attempt(plan: Plan, study: optuna.Study, trial: optuna.Trial) -> Callable[[], object]:
    """Run one trial in its folder; returns what tells the study its result. A failure's reason becomes part of the trial."""
    folder = plan.trial_folder(trial.user_attrs["trial"])
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    overrides = draw(plan.space, trial)
    trial.set_user_attr("overrides", overrides)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            config = composed(plan, overrides)
            if plan.command == "train" and (reason := refusal(plan, config)):
                trial.set_user_attr("reason", reason)
                raise optuna.TrialPruned(reason)  # not failed: samplers learn nothing from those, and draw it again
            value = score(plan, overrides, config, trial, folder)
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
