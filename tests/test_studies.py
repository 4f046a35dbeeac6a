"""Studies: grids of complete runs, killed and resumed; transfer to devices elsewhere; pnn-reproduce."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection

from pnn import evaluate, reproduce
from pnn.build import build
from pnn.config import checked
from pnn.devices import lab, notebook_gap
from pnn.errors import UserError
from pnn.reporting.statistics import estimate
from pnn.sweep import configuration, sweep
from pnn.sweeps import runs, transfer
from pnn.sweeps.claims import Claims
from pnn.sweeps.figures import _curve, accuracy_figure, across
from pnn.sweeps.grid import Axis, Point, Study, parse_axis, seeds_first
from pnn.sweeps.processes import me
from pnn.sweeps.table import _difference, differences
from pnn.systems import CoupledOscillators

#: Noise and drift on: whatever has a random state must survive.
TINY = [
    "experiment=digits",
    "architecture.depth=1",
    "device.drift=0.05",
    "device.timing_jitter=0.02",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=6",
    "trainer.limit_val_batches=1",
    "task.eval_batch_size=400",
    "trainer.accelerator=cpu",
]
GRID = ["sweep=reality_gap", "training=pat,in_silico", "device.gap=0.3", "seed=0,1"]


def study_of(*overrides: str) -> Study:
    plan = configuration(list(overrides))
    assert isinstance(plan, Study)
    return plan


@pytest.mark.parametrize(
    ("overrides", "along"),
    [
        (("sweep=modes",), None),
        (("sweep=references", "reference=identity,linear"), "reference"),
        (("sweep=references", "reference=linear"), "reference"),  # one value: the picture still says which
        (("sweep=reality_gap", "device.gap=0.4"), "device.gap"),
        (("sweep=reality_gap", "task.batch_size=16,32", "device.gap=0.4"), "task.batch_size"),
    ],
)
def test_a_picture_says_what_it_is_drawn_against(overrides: tuple[str, ...], along: str | None) -> None:
    assert across(study_of(*overrides, "experiment=digits")) == along


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


# the grid


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,0.05,0.8", ("0", "0.05", "0.8")),
        ("range(0, 3)", ("0", "1", "2")),
        ("choice(a, b)", ("a", "b")),
        ("pat", ("pat",)),
        (7, ("7",)),
        ([1, 2], ("1", "2")),
        (None, ("null",)),
    ],
)
def test_an_axis_is_written_in_hydras_grammar(text: Any, values: tuple[str, ...]) -> None:
    assert parse_axis("k", text).values == values


DIGITS = "experiment=digits"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sweep=reality_gap", DIGITS, "device.gap=0,1.5,-1"], ["device.gap=1.5", "device.gap=-1", ">= 0 and < 1"]),
        (["sweep=reality_gap", DIGITS, "device.gap=interval(0,1)"], ["device.gap=interval(0,1)", "range(0, 5)"]),
        (["sweep=reality_gap", DIGITS, "device.gap=0,0"], ["device.gap=0,0", "twice"]),
        (["sweep=reality_gap", DIGITS, "seed=range(3,3)"], ["seed=range(3,3)", "empty"]),
        (["sweep=reality_gap", DIGITS, "training=pat,magic"], ["training=magic", "pat"]),
        (["sweep=reality_gap", DIGITS, "device.gab=0,1"], ["device.gab", "did you mean device.gap?"]),
        (["sweep=reality_gap", DIGITS, "workers=0", "device.gap=["], ["workers=0", "device.gap=["]),
        (["sweep=reality_gap", DIGITS, "trials=3"], ["trials=3", "reality_gap", "leave it out"]),
        (["sweep=reality_gap", DIGITS, "ckpt_path=x"], ["ckpt_path=x"]),
        (["sweep=reality_gap", "experiment=fig3_fashion_mnist"], ["device.gap", "device=ideal"]),
        (["sweep=reality_gap", "experiment=digits,fig2_shg"], ["one experiment"]),
        (["sweep=depth", "experiment=fig3_fashion_mnist"], ["architecture.depth", "multilayer"]),
        (["sweep=depth", DIGITS, "architecture.depth=0,1"], ["architecture.depth=0", ">= 1"]),
        (["sweep=noise", DIGITS, "device=ideal"], ["device.noise_factor", "device=lab"]),
        (["sweep=twin_budget", DIGITS], ["model.measure.samples", "model=grey_box"]),
        (["sweep=device_transfer", DIGITS, "device.distance=0,2"], ["device.distance=2", "< 1"]),
        (
            ["sweep=reality_gap", DIGITS, "architecture=mixer", "~architecture.depth", "architecture.patch=8,3"],
            ["patch=3"],
        ),
    ],
)
def test_a_bad_axis_is_refused_before_anything_is_written(
    overrides: list[str], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        configuration(overrides)
    for word in words:
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


BUDGETS = ("30", "100", "300", "1000", "3000")


@pytest.mark.parametrize(
    ("overrides", "key", "values", "count"),
    [
        (["sweep=reality_gap", DIGITS], "device.gap", ("0", "0.05", "0.1", "0.2", "0.4", "0.8"), 90),
        (["sweep=device_transfer", DIGITS], "device.gap", ("0", "0.1", "0.2", "0.4"), 20),
        (["sweep=noise", DIGITS, "seed=0"], "device.noise_factor", ("0", "1", "3", "10", "30"), 15),
        (["sweep=depth", DIGITS, "seed=0"], "architecture.depth", tuple("2345"), 12),
        (["sweep=depth", "experiment=fig2_electronic", "training=pat", "seed=0"], "architecture.member.depth", tuple("2345"), 4),
        (["sweep=twin_budget", "experiment=fig2_plate", "seed=0"], "model.measure.samples", BUDGETS, 10),
    ],
)  # fmt: skip
def test_every_shipped_study_is_composed(overrides: list[str], key: str, values: tuple[str, ...], count: int) -> None:
    plan = study_of(*overrides)
    assert len(plan.points) == count == len({point.name for point in plan.points})
    (axis,) = (axis for axis in plan.axes if axis.key == key)
    assert axis.values == values
    for point in plan.points:
        *above, last = key.split(".")
        node = point.config
        for part in above:
            node = node[part]
        assert str(node[last]) == point.values[key]
        assert point.config["training"]["name"] == point.values["training"]
    point = plan.points[-1]  # as Hydra itself would compose it
    drawn = [f"{k}={v}" for k, v in point.values.items()]
    assert point.config == {**checked("train", [*plan.overrides, *drawn]), "out": str(point.folder)}


def test_a_grey_box_fits_as_many_records_as_are_measured() -> None:
    plan = study_of("sweep=twin_budget", "experiment=vowels_shg", "training=pat", "seed=0")
    for point in plan.points:
        assert point.config["model"]["records"] == point.config["model"]["measure"]["samples"]


def test_the_order_of_work_is_seed_by_seed() -> None:
    ordered = seeds_first(study_of(*GRID, *TINY).points)
    assert [p.values["seed"] for p in ordered] == ["0", "0", "1", "1"]
    assert [p.values["training"] for p in ordered] == ["pat", "in_silico"] * 2


# runs, and their deaths


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "study"
    sweep(study_of(*GRID, *TINY, f"out={folder}"))
    return folder


def forked(job: Callable[[], object]) -> Any:
    def quiet() -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        job()

    process = multiprocessing.get_context("fork").Process(target=quiet)
    process.start()
    return process


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("gird: {seed: 0}", ["sweep: gird:", "a grid: of values or a space:"]),
        ("grid: {}", ["sweep.grid must name at least one key"]),
        ("grid: [seed]", ["sweep.grid must name"]),
        ("grid: {seed: 0}\noverrides: trainer.max_epochs=1", ["sweep.overrides=trainer.max_epochs=1 must be a list"]),
        ("space: {optimizer.lr: interval(0, 1)}", ["sweep.command"]),
        ("grid: {seed: 0}\ncommand: twin", ["sweep.command=twin"]),
    ],
)
def test_a_bad_sweep_file_is_refused(content: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "own/sweep").mkdir(parents=True)
    (tmp_path / "own/sweep/mine.yaml").write_text(content)
    with pytest.raises(UserError) as caught:
        configuration(["sweep=mine", DIGITS], str(tmp_path / "own"))
    for word in words:
        assert word in str(caught.value)


def test_a_study_from_end_to_end(undisturbed: Path, capsys: pytest.CaptureFixture) -> None:
    there = {path.name for path in undisturbed.iterdir() if not path.name.startswith(".")}
    names = {f"{mode}-gap0.3-seed{seed}" for mode in ("pat", "in_silico") for seed in (0, 1)}
    assert there == {"points.csv", "differences.csv", "accuracy.png", "README.txt", "study.yaml"} | names
    for row in table(undisturbed / "points.csv"):
        summary = json.loads((undisturbed / row["folder"] / "summary.json").read_text())
        assert float(row["test_accuracy_device"]) == summary["test_accuracy_device"]
        assert (row["seed"], row["device_seed"]) == (str(summary["seed"]), str(summary["seed"]))
        assert (row["training"], row["state"]) == (summary["training"], "finished")
    (paired,) = table(undisturbed / "differences.csv")
    scores = {row["folder"]: float(row["test_accuracy_device"]) for row in table(undisturbed / "points.csv")}
    gains = [scores[f"pat-gap0.3-seed{s}"] - scores[f"in_silico-gap0.3-seed{s}"] for s in (0, 1)]
    assert float(paired["difference"]) == pytest.approx(sum(gains) / 2)
    assert float(paired["standard_error"]) == pytest.approx(abs(gains[0] - gains[1]) / 2)


def test_a_study_killed_ten_times_ends_like_one_that_never_was(undisturbed: Path, tmp_path: Path) -> None:
    """At random moments, by SIGKILL and SIGTERM: the same table, and the same weights, bit for bit."""
    folder = tmp_path / "killed"
    plan = study_of(*GRID, *TINY, f"out={folder}")
    killed = 0
    for n in range(10):
        process = forked(lambda: sweep(plan))
        time.sleep(random.uniform(0.1, 0.5 + 0.1 * n))
        if process.is_alive():
            os.kill(process.pid, (signal.SIGKILL, signal.SIGTERM)[n % 3 == 2])
            killed += 1
        process.join(60)
    assert killed
    sweep(plan)
    assert table(folder / "points.csv") == table(undisturbed / "points.csv")
    for point in plan.points:
        mine, other = (
            torch.load(place / point.name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
            for place in (folder, undisturbed)
        )
        assert all(torch.equal(mine[name], other[name]) for name in other)
        for name in ("metrics.csv",):
            assert (folder / point.name / name).read_text() == (undisturbed / point.name / name).read_text()


def test_a_finished_run_is_not_repeated_and_a_different_one_not_overwritten(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(runs, "run", lambda point: pytest.fail(f"{point.name} was run again"))
    before = table(undisturbed / "points.csv")
    assert sweep(study_of(*GRID, *TINY, f"out={undisturbed}"))
    assert "4 of 4 runs are finished already" in capsys.readouterr().out
    assert table(undisturbed / "points.csv") == before
    with pytest.raises(UserError, match=r"pat-gap0.3-seed0 holds .* optimizer.lr=0.5 \(was 0.01\)"):
        sweep(study_of(*GRID, *TINY, f"out={undisturbed}", "optimizer.lr=0.5"))


def test_a_run_that_fails_does_not_end_the_study(tmp_path: Path) -> None:
    one = ["training=pat", "device.gap=0.1,0.2", "seed=0", "out=study"]
    plan = study_of("sweep=reality_gap", *TINY, *one)
    real = runs.run

    def diverges(point: Any) -> None:
        if point.values["device.gap"] == "0.1":
            raise UserError("the training loss became nan")
        real(point)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "run", diverges)
        with pytest.raises(UserError, match=r"1 of 2 runs failed.*\n.*loss became nan"):
            sweep(plan)
    assert [row["state"] for row in table(Path("study/points.csv"))] == ["failed", "finished"]
    assert "nan" in Path("study/pat-gap0.1-seed0/log.txt").read_text()
    sweep(plan)  # the failed one alone is tried again
    assert [row["state"] for row in table(Path("study/points.csv"))] == ["finished", "finished"]


def test_two_workers_never_run_a_point_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = study_of(
        "sweep=reality_gap", *TINY, "training=pat", "device.gap=0.1,0.2,0.3", "seed=range(0,6)", "out=study"
    )
    log = tmp_path / "log"

    def noted(point: Any) -> None:
        with log.open("a") as file:
            file.write(f"{point.name} {os.getpid()}\n")
        time.sleep(0.01)
        (point.folder).mkdir(parents=True)
        (point.folder / "summary.json").write_text("{}")

    monkeypatch.setattr(runs, "run", noted)
    workers = [forked(lambda: runs.work(plan.points)) for _ in range(3)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    ran = [line.split() for line in log.read_text().splitlines()]
    assert sorted(name for name, _ in ran) == sorted(point.name for point in plan.points)
    assert len({pid for _, pid in ran}) > 1


def test_a_claim_is_free_when_its_process_is_gone(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    assert claims.take("a")
    assert not claims.take("a")  # this process lives
    for owner in ({**me(), "started": "before"}, {**me(), "pid": 2**22 + 1}):
        (tmp_path / "claims/a.claim").write_text(json.dumps(owner))
        assert claims.take("a")
    elsewhere = {**me(), "host": "another"}
    (tmp_path / "claims/a.claim").write_text(json.dumps(elsewhere))
    assert not claims.take("a")  # heard of a moment ago
    os.utime(tmp_path / "claims/a.claim", (0, time.time() - 3600))
    assert claims.take("a")


def test_a_run_killed_after_training_is_only_scored(tmp_path: Path) -> None:
    plan = study_of("sweep=reality_gap", *TINY, "training=pat", "device.gap=0.1", "seed=0", "out=study")
    sweep(plan)
    folder = plan.points[0].folder
    before = (folder / "summary.json").read_text(), (folder / "metrics.csv").read_text()
    (folder / "summary.json").unlink()
    sweep(plan)
    after = (folder / "summary.json").read_text(), (folder / "metrics.csv").read_text()
    assert after[1] == before[1]
    for name, value in json.loads(before[0]).items():
        assert json.loads(after[0])[name] == value or name == "wall_seconds"


# devices elsewhere


def oscillators() -> CoupledOscillators:
    return CoupledOscillators(6, 6, duration=0.5)


def test_the_device_at_distance_0_is_the_one_of_the_training() -> None:
    make = {"gap": 0.3, "seed": 4, "slot": 1, "input_noise": 0.1, "drift": 0.1}
    own, same = lab(oscillators(), **make), lab(oscillators(), **make, distance=0.0, distance_seed=9)
    x, theta = torch.rand(5, 6), [torch.rand(s.shape) for s in oscillators().parameters_spec]
    assert all(torch.equal(getattr(own.system, c), getattr(same.system, c)) for c in own.system.constants)
    assert torch.equal(own.respond(x, *theta), same.respond(x, *theta))


def test_another_specimen_has_other_parts_too() -> None:
    """What a device has and its model lacks moves with a distance, and the other draws stay what they were."""
    alike = {"gap": 0.3, "seed": 4, "distance": 0.2, "distance_seed": 3}
    part = {"coupling_offset": 0.1}
    own, other = lab(oscillators(), **{**alike, "distance": 0.0}, parts=part), lab(oscillators(), **alike, parts=part)
    ratio = other.system.coupling_offset / own.system.coupling_offset
    assert 0 < float((ratio - 1).abs().max()) <= 0.2 * (1 + 1e-5)
    without = lab(oscillators(), **alike).system
    assert torch.equal(without.onsite, other.system.onsite) and not without.coupling_offset.any()
    J = [notebook_gap(oscillators(), seed=4, distance=d, distance_seed=3).system.coupling_offset for d in (0.0, 0.2)]
    ratio = J[1] / J[0]
    assert ratio.std() > 0.05 and torch.allclose(ratio, ratio.mT, atol=1e-5)


def test_a_device_at_a_distance_has_the_training_devices_constants_times_1_plus_u() -> None:
    d = 0.1
    own = lab(oscillators(), gap=0.3, seed=4).system
    others = [lab(oscillators(), gap=0.3, seed=4, distance=d, distance_seed=s).system for s in range(40)]
    again = lab(oscillators(), gap=0.3, seed=4, distance=d, distance_seed=3).system
    moved = [name for name, rule in own.constants.items() if rule.perturbed]
    for name in moved:
        ratio = torch.stack([getattr(other, name) / getattr(own, name) for other in others]) - 1
        assert ratio.abs().max() <= d * (1 + 1e-5)
        assert ratio.abs().max() > 0.9 * d and abs(float(ratio.std()) / (d / 3**0.5) - 1) < 0.15  # uniform
        assert torch.equal(getattr(again, name), getattr(others[3], name))
        if own.constants[name].symmetric:
            assert torch.allclose(ratio, ratio.mT, atol=1e-6)
    other_layer = lab(oscillators(), gap=0.3, seed=4, slot=1, distance=d, distance_seed=3).system
    base = lab(oscillators(), gap=0.3, seed=4, slot=1).system
    first = moved[0]
    assert not torch.allclose(
        getattr(other_layer, first) / getattr(base, first), getattr(again, first) / getattr(own, first)
    )


def test_the_noise_factor_multiplies_every_noise() -> None:
    def noise(factor: float) -> torch.Tensor:
        device = lab(oscillators(), seed=1, output_noise=0.1, noise_factor=factor)
        theta = [torch.zeros(s.shape) for s in oscillators().parameters_spec]
        return device.respond(torch.zeros(50, 6), *theta)

    assert torch.equal(noise(0.0), torch.zeros(50, 6))
    assert torch.allclose(noise(3.0), 3 * noise(1.0)) and float(noise(1.0).std()) == pytest.approx(0.1, rel=0.15)
    both = lab(oscillators(), input_noise=0.2, relative_noise=0.1, timing_jitter=0.01, drift=0.1, noise_factor=2.0)
    assert (both.input_noise, both.relative_noise, both.timing_jitter, both.drift) == (0.4, 0.2, 0.02, 0.1)


def test_a_transfer_study_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ["sweep=device_transfer", *TINY, "device.gap=0,0.3", "seed=0", "device.distance_seed=0,1", "out=study"]
    plan = study_of(*asked, "device.distance=0,0.3")
    sweep(plan)
    assert len(plan.points) == 2
    for point in plan.points:
        found = json.loads((point.folder / "transfer.json").read_text())
        assert found["trained_gap"] == float(point.values["device.gap"])
        assert [(r["distance"], r["distance_seed"]) for r in found["rows"]] == [(0.0, 0), (0.3, 0), (0.3, 1)]
        for row in found["rows"] if point is plan.points[0] else ():  # pnn-evaluate says the same
            where = [f"device.distance={row['distance']}", f"device.distance_seed={row['distance_seed']}"]
            job = evaluate.configuration([f"ckpt_path={point.folder}/checkpoints/best.ckpt", *where])
            assert evaluate.evaluate(*job)["test_accuracy_device"] == pytest.approx(row["accuracy"], abs=1e-6)
    assert all((tmp_path / "study" / name).stat().st_size for name in ("transfer.csv", "transfer.png", "points.csv"))
    matrix = table(tmp_path / "study/transfer.csv")
    assert [(m["trained_gap"], m["distance"], m["n"], m["seeds"]) for m in matrix] == [
        (g, d, n, "1") for g in ("0.0", "0.3") for d, n in (("0.0", "1"), ("0.3", "2"))
    ]
    # more distances are evaluated without training anything again
    stamps = {p.name: (p.folder / "summary.json").stat().st_mtime_ns for p in plan.points}
    sweep(study_of(*asked, "device.distance=0,0.1,0.3"))
    assert {p.name: (p.folder / "summary.json").stat().st_mtime_ns for p in plan.points} == stamps
    assert len(json.loads((plan.points[0].folder / "transfer.json").read_text())["rows"]) == 5
    assert "pat: " in capsys.readouterr().out


def test_a_transfer_study_keeps_apart_what_else_was_varied(tmp_path: Path) -> None:
    asked = [
        "sweep=device_transfer",
        *TINY,
        "device.gap=0.3",
        "device.distance=0",
        "device.distance_seed=0",
        "out=study",
    ]
    sweep(study_of(*asked, "optimizer.lr=1e-5,3e-2", "seed=0", "task.split_seed=0,1"))
    matrix = table(tmp_path / "study/transfer.csv")
    assert [(m["training"], m["n"], m["seeds"], m["interval_over"]) for m in matrix] == [
        (f"pat optimizer.lr={lr}", "2", "2", "splits") for lr in ("0.03", "1e-05")
    ]


def rows_of(accuracies: dict[tuple[float, float], float]) -> list[dict[str, Any]]:
    return [
        {"training": "pat", "trained_gap": g, "distance": d, "accuracy": a} for (g, d), a in sorted(accuracies.items())
    ]


def test_the_verdict_on_transfer_is_computed() -> None:
    distances, gaps = (0.0, 0.1, 0.2, 0.4), (0.1, 0.2, 0.4)
    tracks = rows_of({(g, d): 0.9 - (0.03 if d > g else 0.005 if d else 0.0) for g in gaps for d in distances})
    found = transfer.tolerances(tracks)
    assert [(t.gap, t.distance) for t in found] == [(0.1, 0.1), (0.2, 0.2), (0.4, 0.4)]
    assert transfer.verdict(found) == "the tolerated distance tracks the gap trained on"
    same = rows_of({(g, d): 0.9 - (0.03 if d > 0.1 else 0.0) for g in gaps for d in distances})
    assert "does not track" in transfer.verdict(transfer.tolerances(same))
    dip = rows_of({(g, d): 0.9 - (0.03 if d == 0.1 else 0.0) for g in gaps for d in distances})
    assert {t.distance for t in transfer.tolerances(dip)} == {0.0}  # up to which, not at which
    assert "not judged" in transfer.verdict(transfer.tolerances(rows_of({(0.4, 0.0): 0.9, (0.4, 0.1): 0.9})))


def test_paired_differences_use_the_pairs() -> None:
    plan = study_of("sweep=reality_gap", *TINY, "device.gap=0.1", "seed=range(0,4)")
    base = [0.80, 0.85, 0.90, 0.95]  # spread much wider than the gain
    gain = [0.010, 0.012, 0.008, 0.010]

    def accuracy(point: Any) -> float:
        seed = int(point.values["seed"])
        return base[seed] + (gain[seed] if point.values["training"] == "pat" else 0.0)

    rows = [
        {**p.values, "seed": int(p.values["seed"]), "state": "finished", "test_accuracy_device": accuracy(p)}
        for p in plan.points
    ]
    silico, ideal = differences(plan, rows)
    assert (silico["pair"], ideal["pair"]) == ("pat-in_silico", "pat-ideal")
    assert silico["difference"] == pytest.approx(0.01) and silico["n"] == 4
    assert silico["standard_error"] == pytest.approx((8e-6 / 3 / 4) ** 0.5)
    assert silico["verdict"] == "higher"
    rows[-1]["test_accuracy_device"] = 0.5
    assert differences(plan, rows)[1]["verdict"] == "not shown"


# pnn-reproduce


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig4"], ["fig4", "toy, fig2, fig3"]),
        (["fig2", "scale=tiny", "workers=0", "speed=1"], ["scale=tiny", "workers=0", "speed=1", "3 mistakes"]),
        (["scale=quick"], ["(none)"]),
    ],
)
def test_a_mistake_of_pnn_reproduce(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as left:
        reproduce.main(arguments)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_every_target_is_composed_at_every_scale(scale: str, tmp_path: Path) -> None:
    chosen = reproduce.entries("paper", scale, tmp_path / "out")
    assert {entry.target for entry in chosen} == set(reproduce.content()["targets"])
    said = reproduce.plan(chosen, 2)
    assert all(entry.line in said for entry in chosen) and said.splitlines()[-1].startswith("about")
    for entry in chosen:
        for point in entry.study.points if entry.study else ():
            assert point.config["name"].endswith("-quick") == (scale == "quick")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_another_process_is_still_training_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its best checkpoint is not the last word, and judged.json is written once."""
    (entry,) = [e for e in reproduce.entries("fig3", "smoke", Path("smoke")) if e.judge]
    judged: list[Any] = []
    monkeypatch.setattr(reproduce, "judge", lambda point, _: judged.append(point))
    monkeypatch.setattr("pnn.sweeps.study.conduct", lambda *_, **__: None)
    first, *_ = entry.study.points
    first.folder.mkdir(parents=True)
    (first.folder / "summary.json").touch()
    reproduce.reproduce([entry], "fig3", "smoke", 1, Path("smoke"))
    assert judged == [first]


def test_smoke_of_every_target_ends_with_the_report(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    reproduce.main(["paper", "scale=smoke", "workers=1", "out=smoke"])
    said = capsys.readouterr().out
    assert "report.html" in said
    for entry in reproduce.entries("paper", "smoke", Path("smoke")):
        assert entry.study is None or entry.finished() == len(entry.study.points), entry.line
    assert len(list(Path("smoke").rglob("judged.json"))) == 3
    reproduce.main(["gap", "scale=smoke", "workers=1", "out=smoke"])
    assert "6 of 6 runs are finished already" in capsys.readouterr().out


def test_every_value_of_an_axis_is_built_before_anything_is_written(tmp_path: Path) -> None:
    seen = []

    def note(config: dict) -> None:
        seen.append((config["training"]["name"], config["device"]["gap"]))
        build(config)

    from pnn.sweeps.grid import check_built

    plan = study_of("sweep=reality_gap", *TINY, "device.gap=0,0.1")
    check_built(plan.points, note)
    assert {mode for mode, _ in seen} == {"pat", "in_silico", "ideal"} and {gap for _, gap in seen} == {0, 0.1}
    assert len(seen) <= 4


def test_a_tolerance_below_the_gap_does_not_track_it() -> None:
    found = [transfer.Tolerance("pat", g, g / 2, 0.4) for g in (0.1, 0.2, 0.4)]
    assert "does not track" in transfer.verdict(found)


def test_networks_trained_without_a_gap_do_not_enter_the_verdict() -> None:
    found = [transfer.Tolerance("pat", g, t, 0.4) for g, t in ((0.0, 0.2), (0.1, 0.1), (0.2, 0.2))]
    assert "distance tracks" in transfer.verdict(found)


def test_the_interval_of_the_matrix_is_over_networks(tmp_path: Path) -> None:
    points = []
    for seed, seen in enumerate(((0.8, 0.9), (0.7, 0.8), (0.75, 0.85))):
        config = {"training": {"name": "pat"}, "device": {"gap": 0.2}, "out": str(tmp_path / str(seed))}
        points.append(Point(str(seed), {"seed": str(seed)}, config, ((0.2, 0), (0.2, 1))))
        points[-1].folder.mkdir()
        rows = [{"distance": 0.2, "distance_seed": n, "accuracy": a} for n, a in enumerate(seen)]
        (points[-1].folder / "transfer.json").write_text(json.dumps({"trained_gap": 0.2, "rows": rows}))
    (row,) = transfer.matrix(Study({}, (), (Axis("seed", ("0", "1", "2")),), tuple(points)))
    assert row["half_width_95"] == pytest.approx(estimate([0.85, 0.75, 0.8]).half)
    assert (row["n"], row["seeds"]) == (6, 3)


def test_a_worse_mode_is_lower() -> None:
    assert _difference([-0.01, -0.012, -0.008])["verdict"] == "lower"


def test_equal_differences_are_chance_not_certainty() -> None:
    assert _difference([0.01, 0.01, 0.01])["verdict"] == "not shown"


def test_seeds_of_a_split_are_not_independent() -> None:
    gains = {"0": (0.030, 0.031, 0.029, 0.030), "1": (0.010, 0.011, 0.009, 0.010)}
    table = [
        {
            "training": mode,
            "seed": str(seed),
            "task.split_seed": split,
            "state": "finished",
            "test_accuracy_device": seen,
        }
        for split, own in gains.items()
        for seed, gain in enumerate(own)
        for mode, seen in (("in_silico", 0.8 + 0.01 * seed), ("pat", 0.8 + 0.01 * seed + gain))
    ]
    axes = (Axis("training", ("pat", "in_silico")), Axis("task.split_seed", ("0", "1")), Axis("seed", tuple("0123")))
    (row,) = differences(Study({}, (), axes, ()), table)
    expected = estimate([0.030, 0.010])
    assert (row["n"], row["verdict"]) == (2, "not shown")
    assert (row["difference"], row["half_width_95"]) == pytest.approx((expected.mean, expected.half))


@pytest.mark.parametrize(("joined", "line", "bands"), [(True, "-", 1), (False, "None", 0)])
def test_names_are_not_joined_by_a_line(joined: bool, line: str, bands: int) -> None:
    figure, axis = plt.subplots()
    _curve(axis, [(0.0, estimate([0.8, 0.9])), (1.0, estimate([0.6, 0.7]))], "pat", 0, joined)
    assert axis.lines[0].get_linestyle() == line
    assert sum(isinstance(c, PolyCollection) for c in axis.collections) == bands
    assert len(axis.containers) == 1 - bands  # error bars
    plt.close(figure)


@pytest.mark.parametrize(("reference", "legend"), [(None, "physics-aware (PAT), n = 2"), ("perceptron", "n = 2")])
def test_a_network_without_physics_is_not_called_physics_aware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str | None, legend: str
) -> None:
    monkeypatch.setattr(plt, "close", lambda _: None)
    config = {"training": {"name": "pat"}, "reference": reference}
    point = Point("hidden2", {"hidden": "2"}, config)
    axes = (Axis("hidden", ("2", "4")), Axis("seed", ("0", "1")))
    done = {"state": "finished", "test_accuracy_device": 0.8}
    rows = [{"hidden": hidden, "seed": seed, **done} for hidden in "24" for seed in "01"]
    accuracy_figure(Study({"name": "digital"}, (), axes, (point,)), rows, tmp_path / "accuracy.png")
    shown = plt.gcf().axes[0].get_legend()
    monkeypatch.undo()
    plt.close("all")
    assert shown is not None
    assert [text.get_text() for text in shown.get_texts()] == [legend]
