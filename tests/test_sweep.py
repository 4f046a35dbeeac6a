"""pnn-sweep: the grammar of a space, whole studies, several processes, processes that are killed."""

from __future__ import annotations

import csv
import multiprocessing
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import pytorch_lightning as pl
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, TrialState

from pnn import checkpoints
from pnn import sweep as command
from pnn.callbacks import Pruning
from pnn.config import checked, conf_dir
from pnn.errors import UserError
from pnn.module import PNNModule
from pnn.sweep import configuration, sweep
from pnn.sweeps import objectives, search, storage, trials
from pnn.sweeps.processes import me
from pnn.sweeps.search import open_study, work
from pnn.sweeps.space import draw, parse, parse_space
from pnn.sweeps.trials import rows
from pnn.tasks import Digits
from pnn.train import train

SPACES = [file.stem for file in sorted((conf_dir() / "sweep").glob("*.yaml")) if "space:" in file.read_text()]
TINY = ["experiment=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Trials that only compute `objective(config, trial)`, on a configuration that is not composed anew."""

    def install(objective: Callable[[dict, Any], float]) -> None:
        monkeypatch.setitem(objectives.OBJECTIVES, "train", objective)
        monkeypatch.setattr(search, "composed", lambda plan, drawn: search._with(plan.base, drawn))
        monkeypatch.setattr(trials, "best_yaml", lambda plan, row: "")
        monkeypatch.setattr(trials, "history_figure", lambda plan, table, path: None)

    return install


def checkpoint_of(folder: Path) -> dict[str, Any]:
    return checkpoints.read(folder / "checkpoints" / "last.ckpt")


def no_group(key: str) -> bool:
    return False


# the space


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tag(log, interval(1e-3, 1e-1))", FloatDistribution(1e-3, 1e-1, log=True)),
        ("interval(0, 0.5)", FloatDistribution(0.0, 0.5)),
        ("int(interval(50, 1000))", IntDistribution(50, 1000)),
        ("tag(log, int(interval(50, 1000)))", IntDistribution(50, 1000, log=True)),
        ("range(1, 6)", IntDistribution(1, 5)),
        ("range(2, 11, 4)", IntDistribution(2, 10, step=4)),
        ("range(0.25, 1.0, 0.25)", FloatDistribution(0.25, 0.75, step=0.25)),
        ("choice(16, 32)", CategoricalDistribution(["16", "32"])),
        ("16,32", CategoricalDistribution(["16", "32"])),
        ("choice([50], [100, 100])", CategoricalDistribution(["[50]", "[100,100]"])),
    ],
)
def test_the_grammar_is_hydras(text: str, expected: Any) -> None:
    assert parse("k", text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (0.1, ["k=0.1", "one value", "overrides"]),
        ("interval(1", ["k=interval(1", "cannot be read"]),
        ("tag(log, interval(0, 1))", ["k=tag", "low > 0"]),
        ("interval(2, 1)", ["k=interval(2, 1)", "low"]),
        ("range(5, 1)", ["k=range(5, 1)", "upwards"]),
        ("glob(*)", ["k=glob(*)", "cannot be searched"]),
        ({"length": "choice(1, 2)", "each": "range(1, 3)"}, ["k.length=choice(1, 2)", "range(1, 6)"]),
        ({"size": "range(1, 3)"}, ["k has size", "length: and each:"]),
    ],
)
def test_a_mistake_in_a_space_is_named_with_its_remedy(text: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_space({"k": text}, {}, no_group)
    for word in words:
        assert word in str(caught.value)


def test_a_list_and_a_group_draw_their_parts() -> None:
    space = {
        "widths": {"length": "range(1, 4)", "each": "int(interval(5, 9))"},
        "g": {"a": {"g.depth": "range(1, 3)"}, "b": {"g.width": "choice(x, y)"}, "c": None},
    }
    entries = parse_space(space, {}, lambda key: key == "g")
    b = FixedTrial({"widths.length": 2, "widths.0": 5, "widths.1": 8, "g": "b", "g.width": "y"})
    assert draw(entries, b) == ["widths=[5,8]", "g=b", "g.width=y"]
    c = FixedTrial({"widths.length": 1, "widths.0": 5, "g": "c"})
    assert draw(entries, c) == ["widths=[5]", "g=c"]
    settled = parse_space(space, {"g": "a", "widths": "[3]"}, lambda key: key == "g")
    assert draw(settled, FixedTrial({"g.depth": 2})) == ["g.depth=2"]  # a key with a fixed value is not searched


@pytest.mark.parametrize("name", SPACES)
def test_every_shipped_space_is_sampled_and_composed(name: str) -> None:
    experiment = [] if name == "twin_nas" else ["experiment=digits"]
    plan = configuration([f"sweep={name}", *experiment])
    study = optuna.create_study(sampler=storage.make_sampler("random", 0, 10))
    for _ in range(8):
        drawn = draw(plan.space, study.ask())
        config = search.composed(plan, drawn)
        if name == "architecture":
            from pnn.build import build

            assert build(config).network


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trials=0"], ["trials=0", ">= 1", "use 20"]),
        (["workers=0", "sampler=tp"], ["workers=0", "use 1", "sampler=tp", "tpe, random, nsga2"]),
        (["pruner=x"], ["pruner=x", "median, none"]),
        (["sampler_seed=-1"], ["sampler_seed=-1", ">= 0"]),
        (["sweep=lerning"], ["sweep=lerning", "did you mean learning?"]),
        (["optimzer.lr=interval(1e-3,1)"], ["optimzer.lr", "did you mean optimizer.lr?"]),
        (["sweep=architecture", "architecture.dept=range(1,3)"], ["architecture.dept", "architecture.depth?"]),
        (["optimizer.lr=interval(-1,1)"], ["optimizer.lr=-1.0", "> 0"]),
        (["task.batch_size=choice(0,8)"], ["task.batch_size=0", ">= 1"]),
        (["device.gap=-0.1"], ["device.gap=-0.1", ">= 0"]),
        (["ckpt_path=x"], ["ckpt_path=x", "sweep"]),
        (["a=["], ["a=["]),
        (["optimizer.lr=1", "optimizer.warmup=0", "task.batch_size=8"], ["empty", "pnn-train"]),
        (["sweep=twin_nas", "model.measure.repeats=1"], ["repeats=1", "use 2"]),
        (["records=0"], ["records=0", ">= 1", "use own"]),
        (["records=mine"], ["records=mine", "use own"]),
        (["sweep=twin_nas", "records=3"], ["records=3", "twin_nas"]),
    ],
)
def test_a_mistake_stops_before_any_work(overrides: list[str], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        configuration(overrides)
    for word in words:
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("storage", "words"),
    [("nodb://x", ["storage=nodb://x", "cannot be used"]), ("postgresql://me:secret@h/d", ["me:***@h/d"])],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(storage: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        sweep(configuration([*TINY, f"storage='{storage}'"]))
    assert "secret" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# whole studies


def test_a_study_from_end_to_end_and_its_continuation(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []  # the test set
    monkeypatch.setattr(PNNModule, "test_step", lambda *_: used.append("scored"))
    original = Digits.test_dataloader
    monkeypatch.setattr(Digits, "test_dataloader", lambda task: (used.append("loaded"), original(task))[1])
    asked = [*TINY, "out=study", "device.gap=0.1"]
    table = sweep(configuration([*asked, "trials=3"]))
    assert [row["trial"] for row in table] == [0, 1, 2]
    folder = tmp_path / "study"
    there = {p.name for p in folder.iterdir()}
    assert there == {"trials.csv", "history.png", "README.txt", "sweep.yaml", "study.db", "experiment"} | {
        f"trial-000{n}" for n in range(3)
    }
    assert (folder / "history.png").stat().st_size > 10_000
    # the score is the best validation accuracy, and nothing was scored on the test set
    for row in table:
        trial = folder / f"trial-{row['trial']:04d}"
        with (trial / "metrics.csv").open() as file:
            assert row["value"] == max(float(r["val_accuracy_device"]) for r in csv.DictReader(file))
        assert not (trial / "summary.json").exists()
        assert not any(b"test_acc" in p.read_bytes() for p in trial.rglob("*") if p.is_file())
    assert used == []
    # the best configuration is an experiment
    best = max(table, key=lambda row: row["value"])
    config = checked("train", ["experiment=best"], str(folder))
    assert config == checked("train", [*TINY, "device.gap=0.1", *best["overrides"]])
    assert f"--config-dir {folder.relative_to(tmp_path)} experiment=best" in capsys.readouterr().out
    # only what is missing is run, with parameters of its own
    before = {n: (folder / f"trial-000{n}/metrics.csv").stat().st_mtime_ns for n in range(3)}
    longer = sweep(configuration([*asked, "trials=5"]))
    assert longer[:3] == table and [row["trial"] for row in longer] == [0, 1, 2, 3, 4]
    assert {n: (folder / f"trial-000{n}/metrics.csv").stat().st_mtime_ns for n in range(3)} == before
    assert len({tuple(row["overrides"]) for row in longer}) == 5
    with pytest.raises(UserError, match=r"device.gap=0.2 \(was 0.1\)"):
        sweep(configuration([*TINY, "out=study", "device.gap=0.2"]))


def test_without_a_test_there_is_no_test_set() -> None:
    seen = []

    class Look(pl.Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            seen.append(hasattr(trainer.datamodule, "test"))

    config = checked("train", [*TINY, "out=run"])
    row = train(config, callbacks=[Look()], test=False)
    assert seen == [False] and row["epoch"] == 0 and not Path("run/summary.json").exists()


@pytest.mark.parametrize(("mode", "via"), [("pat", "device"), ("in_silico", "model")])
def test_a_trial_that_keeps_its_last_epoch_is_scored_by_that_epochs_accuracy(mode: str, via: str) -> None:
    class Trial:
        def __init__(self) -> None:
            self.reported: list[float] = []

        def report(self, value: float, epoch: int) -> None:
            self.reported.append(value)

        def should_prune(self) -> bool:
            return False

    trial = Trial()
    asked = [*TINY, f"training={mode}", "training.monitor=epoch", "trainer.max_epochs=2", "out=run"]
    value = objectives.train_objective(checked("train", asked), trial)
    with Path("run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert trial.reported == pytest.approx([float(row[f"val_accuracy_{via}"]) for row in rows])
    assert value == pytest.approx(float(rows[-1][f"val_accuracy_{via}"]))
    assert value < 1


REPEATED = ["sweep=learning", "experiment=digits", "task.batch_size=64", "optimizer.warmup=0", "out=study"]


def test_a_trial_is_worth_the_mean_of_its_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def objective(config: dict, trial: Any) -> float:
        trained.append((config["out"], config["seed"], config["device"]["seed"], config["task"]["split_seed"]))
        for epoch, value in enumerate((0.1, config["seed"] / 10)):
            trial.report(value, epoch)
        return config["seed"] / 10

    monkeypatch.setitem(objectives.OBJECTIVES, "train", objective)
    asked = [*REPEATED, "trials=1", "seed=3", "repeats=3", "over=[seed,task.split_seed]"]
    plan = configuration(asked)
    (row,) = sweep(plan)
    assert trained == [(f"study/trial-0000/repeat-{n}", 3 + n, 3 + n, n) for n in range(3)]
    assert row["value"] == pytest.approx(0.4) and row["scores"] == [0.3, 0.4, 0.5]
    reported = open_study(plan).trials[0].intermediate_values  # the mean with the repeats before
    assert reported == pytest.approx({0: 0.1, 1: 0.3, 2: 0.2, 3: 0.35, 4: 0.8 / 3, 5: 0.4})
    assert "0.3000 0.4000 0.5000" in Path("study/trials.csv").read_text()
    assert "40.00 %, the mean over 3 values of seed, task.split_seed" in Path("study/experiment/best.yaml").read_text()
    assert checked("train", ["experiment=best"], "study")["seed"] == 3
    with pytest.raises(UserError, match="another configuration.*repeats"):
        open_study(configuration([*asked, "repeats=4"]))


def test_repeats_are_real_runs_that_differ(tmp_path: Path) -> None:
    asked = [*TINY, "sweep=learning", "task.batch_size=64", "optimizer.warmup=0", "trials=1", "repeats=2", "out=study"]
    (row,) = sweep(configuration(asked))
    found = [checkpoint_of(tmp_path / f"study/trial-0000/repeat-{n}") for n in range(2)]
    assert [f["pnn"]["config"]["seed"] for f in found] == [0, 1]
    assert row["value"] == pytest.approx(sum(row["scores"]) / 2) and len(row["scores"]) == 2
    assert not list(tmp_path.rglob("summary.json"))


@pytest.mark.parametrize(("epochs", "first"), [(1, 1), (5, 1), (40, 10)])
def test_a_trial_has_a_quarter_of_its_epochs_before_it_can_be_pruned(epochs: int, first: int) -> None:
    study = optuna.create_study(direction="maximize", pruner=storage.make_pruner("median", epochs))
    for _ in range(4):
        trial = study.ask()
        for step in range(epochs + 1):
            trial.report(0.9, step)
        study.tell(trial, 0.9)
    bad, seen = study.ask(), []
    for step in range(epochs + 1):
        bad.report(0.1, step)
        seen.append(bad.should_prune())
    assert seen.index(True) == first


def test_a_bad_trial_is_pruned_between_its_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def objective(config: dict, trial: Any) -> float:
        runs.append(len(runs))
        value = 0.9 if len(runs) <= 4 * 3 else 0.2  # the first four trials are good
        for epoch in range(3):
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned("worse")
        return value

    monkeypatch.setitem(objectives.OBJECTIVES, "train", objective)
    table = sweep(configuration([*REPEATED, "trials=5", "repeats=3", "trainer.max_epochs=3"]))
    assert [row["state"] for row in table] == ["complete"] * 4 + ["pruned"] and len(runs) == 13


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["over=[seed,task.split_seed]"], ["over=", "repeats=1", "repeats=5"]),
        (["repeats=0"], ["repeats=0", "use 1"]),
        (["repeats=3", "over=seed"], ["over=seed must be a list"]),
        (["repeats=3", "over=[]"], ["over=[] must be a list"]),
        (["repeats=3", "over=[name]"], ["over=[name] is no key with a whole number"]),
        (["repeats=3", "over=[task.sed]"], ["over=[task.sed] is no key", "task.split_seed"]),
        (["repeats=3", "seed=1,2"], ["over=[seed] is searched"]),
    ],
)
def test_repeats_that_mean_nothing_are_refused(asked: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        configuration([*REPEATED, *asked])
    for word in words:
        assert word in str(caught.value)
    assert not Path("study").exists()


def test_the_best_architecture_is_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        objectives.OBJECTIVES, "train", lambda config, trial: "Ensemble" in config["architecture"]["_target_"]
    )
    plan = configuration(
        ["sweep=architecture", "experiment=digits", "trials=3", "sampler=random", "out=study", "seed=3"]
    )
    best = trials.ranked(sweep(plan), True)[0]
    assert best["overrides"][0] == "architecture=ensemble" and best["value"] == 1
    found = checked("train", ["experiment=best"], "study")
    assert found == search.composed(plan, best["overrides"])
    assert "depth" not in found["architecture"]  # what experiment=digits says of a row of layers


def test_networks_that_take_more_records_than_the_experiment_are_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    monkeypatch.setitem(objectives.OBJECTIVES, "train", lambda config, trial: trained.append(config) or 0.5)
    space = [
        "architecture=multilayer",
        "architecture.scale=1",
        "optimizer.lr=1e-3",
        "architecture.depth=choice(1,2,3,4)",
    ]
    plan = configuration(["sweep=architecture", "experiment=digits", *space, "trials=12", "records=own", "out=study"])
    assert plan.records == 3
    table = sweep(plan)
    assert {config["architecture"]["depth"] for config in trained} <= {1, 2, 3}
    states = {row["parameters"]["architecture.depth"]: (row["state"], row["reason"]) for row in table}
    assert states["4"] == ("pruned", "takes 4 device records, more than 3") and states["3"] == ("complete", "")
    with pytest.raises(UserError, match="another configuration.*records"):
        open_study(configuration(["sweep=architecture", "experiment=digits", *space, "records=5", "out=study"]))


def test_a_network_that_cannot_be_built_is_a_bad_trial_to_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(objectives.OBJECTIVES, "train", lambda config, trial: 0.5)
    space = ["architecture=multichannel", "architecture.channels=choice(2,65)", "architecture.split=true"]
    with pytest.raises(UserError, match=r"architecture.depth=3 is not an option of Multichannel.*~architecture.depth"):
        configuration(["sweep=architecture", "experiment=digits", *space])
    space.append("~architecture.depth")
    table = sweep(configuration(["sweep=architecture", "experiment=digits", *space, "trials=6", "out=study"]))
    states = {(row["parameters"]["architecture.channels"], row["state"]) for row in table}
    assert states == {("2", "complete"), ("65", "pruned")}
    assert any(row["reason"].startswith("architecture.channels=65 must be") for row in table)


def test_a_twin_is_searched(tmp_path: Path) -> None:
    tiny = ["inputs=3", "outputs=3", "threads=1", "model.measure.samples=60", "model.epochs=1"]
    widths = ["model.widths=choice([4],[8,8])", "trials=2", "out=study"]
    table = sweep(configuration(["sweep=twin_nas", *tiny, *widths]))
    assert all(0 < row["value"] < 2 for row in table) and len(table) == 2
    assert (tmp_path / "study/trial-0001/card.json").is_file()
    best = min(table, key=lambda row: row["value"])
    config = checked("twin", ["+experiment=best"], "study")
    assert f"model.lr={config['model']['lr']}" in best["overrides"]


def test_a_trial_that_is_refused_or_diverges_fails_with_its_reason(fake: Callable[[Any], None]) -> None:
    def objective(config: dict, trial: Any) -> float:
        if trial.user_attrs["trial"] == 1:
            raise UserError("the training loss became nan at step 3")
        if trial.user_attrs["trial"] == 2:
            return float("nan")
        return 0.5

    fake(objective)
    table = sweep(configuration([*TINY, "trials=4", "out=study"]))
    assert [row["state"] for row in table] == ["complete", "failed", "failed", "complete"]
    assert table[1]["reason"] == "the training loss became nan at step 3" and "nan" in table[2]["reason"]
    assert "Traceback" in Path("study/trial-0001/log.txt").read_text()
    with Path("study/trials.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == [row["state"] for row in table]


def test_a_study_in_which_everything_fails_says_why() -> None:
    with pytest.raises(UserError, match="no trial .* has a result: task.noise"):
        sweep(configuration([*TINY, "trials=1", "out=study", "task.noise=choice(-1,-2)"]))


def test_bad_trials_are_pruned(fake: Callable[[Any], None]) -> None:
    """Through the callback, with a trainer that only counts: trial n has accuracy 1 − n/10 at every epoch."""
    seen = []

    def objective(config: dict, trial: Any) -> float:
        class Trainer:
            class state:
                fn = "fit"

            sanity_checking = False

        accuracy = 1 - trial.user_attrs["trial"] / 10
        callback, trainer = Pruning(trial, "val"), Trainer()
        for trainer.current_epoch in range(5):  # type: ignore[misc]
            trainer.callback_metrics = {"val": accuracy}  # type: ignore[attr-defined]
            callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
            seen.append((trial.number, trainer.current_epoch))
        return accuracy

    fake(objective)
    table = sweep(configuration([*TINY, "trials=6", "out=study"]))
    assert [row["state"] for row in table] == ["complete"] * 4 + ["pruned"] * 2
    assert Counter(number for number, _ in seen)[5] == 1  # not in its first epoch, but in its second
    table = sweep(configuration([*TINY, "trials=6", "out=free", "pruner=none"]))
    assert {row["state"] for row in table} == {"complete"}


def score(config: dict, trial: Any) -> float:
    time.sleep(0.03)
    return 1 / (1 + config["optimizer"]["lr"]) + config["optimizer"]["warmup"]


@pytest.mark.parametrize("sampler", storage.SAMPLERS)
def test_parameters_follow_from_the_seed_and_never_repeat(sampler: str, fake: Callable[[Any], None]) -> None:
    fake(score)

    def drawn(out: str, *trials: int, seed: int = 0) -> list:
        for n in trials:
            plan = configuration(
                [*TINY, f"out={out}", f"sampler={sampler}", f"trials={n}", f"sampler_seed={seed}", "storage=journal"]
            )
            table = sweep(plan)
        return [row["overrides"] for row in table]

    once = drawn("a", 9)
    assert drawn("b", 5, 9) == once or sampler == "nsga2"  # whose population depends on the number of trials
    assert drawn("c", 9, seed=1) != once
    assert len({tuple(o) for o in once}) == 9


def test_a_search_interrupted_before_its_first_file_goes_on(fake: Callable[[Any], None]) -> None:
    fake(score)
    asked = [*TINY, "out=early", "trials=2", "storage=journal"]
    assert len(sweep(configuration(asked))) == 2
    Path("early/sweep.yaml").unlink()  # the storage is made first
    assert len(sweep(configuration(asked))) == 2
    Path("other").mkdir()
    Path("other/notes.txt").touch()
    with pytest.raises(UserError, match="out=other is not an empty folder"):
        sweep(configuration([*TINY, "out=other", "trials=2"]))


def test_a_journal_that_cannot_be_written_is_refused(fake: Callable[[Any], None]) -> None:
    fake(score)
    with pytest.raises(UserError, match=r"storage=missing/a.journal cannot be written \(No such file"):
        sweep(configuration([*TINY, "out=new", "trials=2", "storage=missing/a.journal"]))


def test_a_password_is_not_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["pnn-sweep", "storage=postgresql://me:secret@h/d", "trials=1"])
    command._hide_password()
    assert sys.argv == ["pnn-sweep", "storage=postgresql://me:***@h/d", "trials=1"]


# several processes, and their deaths


def process(plan: Any) -> multiprocessing.Process:
    def job() -> None:
        work(plan, open_study(plan))

    started = multiprocessing.get_context("fork").Process(target=job)
    started.start()
    return started  # type: ignore[return-value]


@pytest.mark.parametrize("storage", ["null", "journal"])
def test_processes_on_one_study_share_its_trials(storage: str, fake: Callable[[Any], None]) -> None:
    fake(score)
    plan = configuration([*TINY, "trials=12", "out=study", "sampler=random", f"storage={storage}"])
    plan.folder.mkdir()
    workers = [process(plan) for _ in range(3)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    study = open_study(plan)
    table = rows(study)
    assert [t.number for t in study.trials] == list(range(len(study.trials)))
    assert [row["trial"] for row in table] == list(range(12))
    assert {row["state"] for row in table} == {"complete"}
    assert len({tuple(row["overrides"]) for row in table}) == 12
    ran = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(ran) == 12  # no place was run twice
    assert len({t.user_attrs["worker"]["pid"] for t in ran}) > 1


def test_a_study_killed_again_and_again_ends_like_one_that_never_was(fake: Callable[[Any], None]) -> None:
    def slowly(config: dict, trial: Any) -> float:
        time.sleep(0.3)  # ten of these outlast a machine that is busy elsewhere
        return score(config, trial)

    def plan_of(out: str) -> Any:
        return configuration([*TINY, "trials=10", f"out={out}", "sampler=tpe", "pruner=none"])

    def result(plan: Any) -> list:
        keys = ("trial", "state", "value", "overrides", "parameters")
        return [{key: row[key] for key in keys} for row in sweep(plan)]

    plan = plan_of("killed")
    plan.folder.mkdir()
    (plan.folder / "sweep.yaml").touch()
    fake(slowly)
    for _ in range(5):
        worker, count = process(plan), len(rows(open_study(plan)))
        for _ in range(400):  # until it is in the middle of a trial of its own
            if len(rows(open_study(plan))) > count or not worker.is_alive():
                break
            time.sleep(0.01)
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    fake(score)
    killed = result(plan)
    failed = [t for t in open_study(plan).trials if t.state == TrialState.FAIL]
    assert failed  # somebody was killed at work
    assert killed == result(plan_of("whole"))
    assert sorted(p.name for p in plan.folder.glob("trial-*")) == [f"trial-{n:04d}" for n in range(10)]


def test_a_place_whose_process_always_dies_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    study = optuna.create_study()
    for _ in range(2):
        trial = storage.take(study, 1)
        assert trial is not None
        trial.set_user_attr("overrides", [])
        trial.set_user_attr("worker", {**me(), "started": "before"})
    assert storage.take(study, 1) is None
    (row,) = rows(study)
    assert row["state"] == "failed" and "killed 2 times" in row["reason"]


def test_ctrl_c_leaves_the_trial_to_the_next_start(fake: Callable[[Any], None]) -> None:
    def interrupted(config: dict, trial: Any) -> float:
        if trial.user_attrs["trial"] == 1:
            raise KeyboardInterrupt
        return 0.5

    fake(interrupted)
    plan = configuration([*TINY, "trials=3", "out=study"])
    with pytest.raises(KeyboardInterrupt):
        sweep(plan)
    fake(lambda config, trial: 0.5)
    assert [(row["trial"], row["state"]) for row in sweep(plan)] == [(n, "complete") for n in range(3)]


def test_the_command_with_two_workers(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "pnn.sweep", *TINY, "trials=2", "workers=2", "out=study"]
    result = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "2 complete" in result.stdout and "experiment=best" in result.stdout
    with (tmp_path / "study/trials.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["0", "1"]
