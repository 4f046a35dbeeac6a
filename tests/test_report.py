"""pnn-report: statistics against scipy, grouping, verdicts, damaged folders, a page that needs nothing else, exit codes."""

from __future__ import annotations

import copy
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from pnn.config import conf_dir
from pnn.errors import UserError
from pnn.report import main, report
from pnn.reporting.costs import prices
from pnn.reporting.figures import over_seeds
from pnn.reporting.folders import Found, find
from pnn.reporting.groups import KINDS, Group, differences, gain, group, representatives
from pnn.reporting.page import first_pictures
from pnn.reporting.scoreboard import (
    MISSED,
    NO_NUMBER,
    NOT_RUN,
    NOT_SHOWN,
    REACHED,
    Score,
    Target,
    commanded,
    score,
    standing,
    targets,
)
from pnn.reporting.statistics import difference, estimate, paired
from pnn.reporting.tables.cards import demo_table, twins_csv
from pnn.reporting.tables.costs import costs_csv
from pnn.reporting.tables.gaps import gap_gains_csv, gaps_csv
from pnn.reporting.tables.references import reference_table, references_csv, runs_csv
from pnn.reporting.tables.scoreboard import claim_text
from pnn.reporting.tables.table import Table
from pnn.reporting.text import accuracy, duration, listed, metric
from pnn.reporting.transfer import EQUAL, LESS, MORE, matrices, tolerated
from pnn.reporting.transfer import sentences as transfer_sentences

CONFIG: dict[str, Any] = {
    "name": "fig2_plate",
    "seed": 0,
    "out": "somewhere",
    "reference": None,
    "system": {"_target_": "pnn.systems.OscillatingPlate"},
    "device": {"_target_": "pnn.devices.lab", "gap": 0.2, "seed": 0},
    "architecture": {"_target_": "pnn.architectures.Multilayer", "depth": 3},
    "training": {"name": "pat"},
    "task": {"batch_size": 10, "seed": 0, "split_seed": 0},
    "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]},
    "trainer": {"max_epochs": 3},
    "logger": {"name": "csv"},
}


def fake(folder: Path, accuracy: float = 0.8, *, seed: int = 0, epochs: int = 3, **changes: Any) -> Path:
    """A finished run; `changes` are dotted keys of its configuration with __ for the dot."""
    config = copy.deepcopy(CONFIG)
    config["seed"] = config["device"]["seed"] = config["task"]["seed"] = seed
    config["out"] = str(folder)
    for key, value in changes.items():
        *path, leaf = key.split("__")
        node = config
        for part in path:
            node = node[part]
        node[leaf] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = ["epoch,step,val_accuracy_device,val_accuracy_model"]
    rows += [f"{e},{10 * (e + 1)},{accuracy - 0.1 / (e + 1)},{accuracy}" for e in range(epochs)]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "devices.json").write_text(json.dumps({"devices": {"a": {"trainable": 70}, "b": {"trainable": 20}}}))
    (folder / "environment.json").write_text(json.dumps({"command": "pnn-train", "machine": "a machine"}))
    summary = {
        "name": config["name"],
        "training": config["training"]["name"],
        "test_accuracy_device": accuracy,
        "test_accuracy_model": accuracy - 0.05,
        "device_calls": 1234,
        "parameters": 100,
        "wall_seconds": 60.0,
        "seed": seed,
        "commit": "0123456789ab",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def groups_of(folder: Path) -> list[Group]:
    return group(find([folder]).runs)


def claim(**changes: Any) -> Target:
    base = {"title": "t", "mark": "paper", "source": "s", "experiment": "fig2_plate", "kind": "pat", "command": "c"}
    return Target(**(base | changes))


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_that_of_student(n: int) -> None:
    values = np.random.default_rng(n).normal(0.9, 0.01, n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    ours = estimate(values.tolist())
    assert ours.half is not None
    np.testing.assert_allclose([ours.mean - ours.half, ours.mean + ours.half], [low, high], rtol=1e-12)


def test_one_run_has_no_interval_and_none_has_no_mean() -> None:
    assert estimate([0.5]).half is None
    assert accuracy(estimate([0.5])) == "50.00 %"
    assert "±" in accuracy(estimate([0.5, 0.6]))
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
    assert difference([0.5], [0.4, 0.3]).half is None


def test_the_interval_of_a_difference_is_that_of_welch() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.9, 0.02, 7), draw.normal(0.85, 0.05, 4)
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    ours = difference(a.tolist(), b.tolist())
    assert ours.half is not None
    np.testing.assert_allclose([ours.mean - ours.half, ours.mean + ours.half], [low, high], rtol=1e-10)
    same = difference([0.5, 0.5], [0.4, 0.4])
    assert (same.half, pytest.approx(0.1)) == (0.0, same.mean)


def test_the_interval_of_pairs_is_that_of_students_paired_test() -> None:
    draw = np.random.default_rng(1)
    a = draw.normal(0.9, 0.05, 6)
    b = a - draw.normal(0.01, 0.002, 6)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    ours = paired(a.tolist(), b.tolist())
    assert ours.half is not None
    np.testing.assert_allclose([ours.mean - ours.half, ours.mean + ours.half], [low, high], rtol=1e-9)
    with pytest.raises(ValueError, match="shorter|longer"):
        paired([0.5], [0.4, 0.3])


def test_pairs_are_matched_by_replica_and_used_where_all_of_one_side_have_one(tmp_path: Path) -> None:
    """Splits that differ far more than the two kinds do: paired, the difference is seen; partners short, it is not."""
    for split, seen in enumerate((0.9, 0.6, 0.75)):
        fake(tmp_path / f"b/pat{split}", seen + 0.02 + 0.001 * split, task__split_seed=split)
        fake(tmp_path / f"a/silico{2 - split}", seen, task__split_seed=split, training__name="in_silico")
    pat, silico = groups_of(tmp_path)
    both = gain(pat, silico)
    expected = estimate([0.02, 0.021, 0.022])
    assert both.paired and both.shown and both.how == "paired t over 3 seeds or splits"
    assert (both.estimate.mean, both.estimate.half) == pytest.approx((expected.mean, expected.half))
    target = claim(claim="better_than", than="in_silico")
    assert (score(target, [pat, silico]).verdict, "paired t over 3" in score(target, [pat, silico]).why) == (
        REACHED,
        True,
    )
    fake(tmp_path / "b/more", 0.8, task__split_seed=9)
    assert gain(*groups_of(tmp_path)) == both  # over what both have
    fake(tmp_path / "a/more", 0.8, task__split_seed=8, training__name="in_silico")
    pat, silico = groups_of(tmp_path)
    alone = gain(pat, silico)
    assert not alone.paired and not alone.shown and "Welch" in score(target, [pat, silico]).why
    assert alone.estimate.half == pytest.approx(
        difference(pat.values("test_accuracy_device"), silico.values("test_accuracy_device")).half
    )


def test_the_seeds_of_a_split_are_no_independent_samples(tmp_path: Path) -> None:
    """Fifty runs on two splits are two samples: seeds agree within a split, splits do not."""
    for split, seen in enumerate((0.9, 0.6)):
        for seed in range(4):
            fake(tmp_path / f"pat{split}{seed}", seen + 0.001 * seed, seed=seed, task__split_seed=split)
        fake(tmp_path / f"silico{split}", seen - 0.02, task__split_seed=split, training__name="in_silico")
    pat, silico = groups_of(tmp_path)
    expected = estimate([0.9015, 0.6015])
    assert (pat.on_device.mean, pat.on_device.half, pat.on_device.n) == pytest.approx((expected.mean, expected.half, 2))
    more = gain(pat, silico)  # over what both have: seed 0 of both splits
    assert more.paired and more.estimate.n == 2 and more.estimate.mean == pytest.approx(0.02)
    for split, seen in enumerate((0.9, 0.6)):
        for seed in range(1, 4):
            fake(
                tmp_path / f"silico{split}{seed}",
                seen - 0.02,
                seed=seed,
                task__split_seed=split,
                training__name="in_silico",
            )
    both = gain(*groups_of(tmp_path))
    assert both.paired and both.estimate.n == 2 and both.estimate.mean == pytest.approx(0.0215)


def test_the_band_of_a_curve_counts_splits_as_its_table_does(tmp_path: Path) -> None:
    for split, seen in enumerate((0.9, 0.6, 0.8)):
        for seed in range(4):
            fake(tmp_path / f"{split}{seed}", seen + 0.001 * seed, seed=seed, task__split_seed=split)
    epochs, values = over_seeds(groups_of(tmp_path)[0], "val_accuracy_model")
    expected = estimate([0.9015, 0.6015, 0.8015])
    assert epochs == [1, 2, 3] and {v.n for v in values} == {3}
    assert [v.half for v in values] == pytest.approx([expected.half] * 3)


def curve(folder: Path, mode: str, values: dict[float, float], spread: float = 0.001) -> None:
    """Three seeds of one mode, the same spread of seeds in every mode."""
    for gap, seen in values.items():
        for seed in range(3):
            place = folder / f"training={mode},device.gap={gap},seed={seed}"
            fake(place, seen + spread * (seed - 1) + 1e-4 * seed**2, seed=seed, device__gap=gap, training__name=mode)


def test_gap_curves_are_put_into_words(tmp_path: Path) -> None:
    from pnn.reporting.gaps import sentences

    curve(tmp_path, "ideal", {0.0: 0.9, 0.2: 0.895, 0.4: 0.89})
    curve(tmp_path, "pat", {0.0: 0.9, 0.2: 0.890, 0.4: 0.87})
    curve(tmp_path, "in_silico", {0.0: 0.9, 0.2: 0.85, 0.4: 0.7})
    behind, close = sentences(groups_of(tmp_path))
    assert behind.startswith(
        "In silico falls behind PAT with significance at gap 0.2 (by 4.00 ± 0.00 points) and 0.4 (by 17"
    )
    assert "at 0 no difference is shown" in behind and "paired t over 3" in behind
    assert close.startswith("At gap 0.2 PAT is within 1 point of ideal: ideal − PAT = +0.50 ± 0.00 points")
    assert close.endswith("all of the 95 % interval is within 1 point.")
    for seed in range(3):  # PAT far off at 0.2
        run = tmp_path / f"training=pat,device.gap=0.2,seed={seed}/summary.json"
        run.write_text(json.dumps(json.loads(run.read_text()) | {"test_accuracy_device": 0.8 + 0.03 * seed}))
    text = " ".join(sentences(groups_of(tmp_path)))
    assert "PAT is not within 1 point of ideal" in text and "part of the 95 % interval is not" in text
    assert "significance at gap 0.4" in text and "at 0 and 0.2 no difference is shown" in text


def transferred(folder: Path, gap: float, seed: int, scores: dict[float, list[float]]) -> Path:
    """A run with a transfer study: accuracies of its network on the devices at every distance."""
    run = fake(folder, seed=seed, device__gap=gap)
    rows = [
        {"distance": d, "distance_seed": n, "accuracy": a} for d, seen in scores.items() for n, a in enumerate(seen)
    ]
    (run / "transfer.json").write_text(json.dumps({"trained_gap": gap, "rows": rows}))
    return run


def test_the_transfer_matrix_averages_devices_first_and_takes_its_interval_over_networks(tmp_path: Path) -> None:
    for seed, base in enumerate((0.90, 0.92, 0.88)):
        steep = {0.0: [base, base], 0.2: [base - 0.004, base - 0.006], 0.4: [base - 0.02, base - 0.08]}
        transferred(tmp_path / f"a{seed}", 0.2, seed, steep)  # within one point up to 0.2, its own gap
        flat = {0.0: [base], 0.2: [base - 0.001], 0.4: [base - 0.009]}
        transferred(tmp_path / f"b{seed}", 0.0, seed, flat)  # tolerates more than its gap
        transferred(tmp_path / f"c{seed}", 0.4, seed, {0.0: [base], 0.2: [base - 0.02], 0.4: [base - 0.05]})  # less
    (matrix,) = matrices(groups_of(tmp_path))
    assert [(row.gap, row.tolerance, row.verdict) for row in matrix.rows] == [
        (0.0, 0.4, MORE),
        (0.2, 0.2, EQUAL),
        (0.4, 0.0, LESS),
    ]
    cell = matrix.rows[1].at(0.4)
    expected = estimate([0.85, 0.87, 0.83])  # 3 networks, not 6 scores
    assert cell is not None and (cell.mean, cell.half, cell.n) == pytest.approx((expected.mean, expected.half, 3))
    first, *rest = transfer_sentences(matrix)
    assert "holds in part: it is equal to g at g = 0.2; more than g at g = 0; less than g at g = 0.4." in first
    assert rest[1] == (
        "Trained at g = 0.2: within 1 point of its accuracy at 0 up to distance 0.2 (0.50 ± 0.00 points); "
        "at 0.4 the drop is 5.00 ± 0.00 points."
    )
    assert "the largest that was measured" in rest[0]


def test_a_tolerance_ends_at_the_first_distance_beyond_it() -> None:
    assert tolerated({0.0: 0.9, 0.1: 0.87, 0.2: 0.9}) == 0.0
    assert tolerated({0.0: 0.9, 0.1: 0.89, 0.2: 0.95, 0.4: 0.5}) == 0.2


def test_a_tolerance_that_is_the_same_at_every_gap_does_not_follow_it(tmp_path: Path) -> None:
    for gap in (0.1, 0.2, 0.4):
        transferred(tmp_path / f"g{gap}", gap, 0, {0.0: [0.9], 0.2: [0.895], 0.4: [0.85]})
    (matrix,) = matrices(groups_of(tmp_path))
    assert "does not hold, since the tolerance is 0.2 whatever the gap" in transfer_sentences(matrix)[0]


@pytest.mark.parametrize(
    "content",
    [
        {"rows": []},
        {"trained_gap": 0.2, "rows": []},
        {"trained_gap": 0.2, "rows": [{"distance": 0.1}]},
        {"trained_gap": 0.2, "rows": [{"distance": -1, "accuracy": 0.5}]},
        {"trained_gap": 0.2, "rows": [{"distance": 0.1, "accuracy": 87}]},
        {"trained_gap": 0.2, "rows": [{"distance": 0.1, "accuracy": float("nan")}]},
    ],
)
def test_a_damaged_transfer_study_is_named_and_its_run_counts(tmp_path: Path, content: dict[str, Any]) -> None:
    (fake(tmp_path / "a") / "transfer.json").write_text(json.dumps(content))
    found = find([tmp_path])
    assert [(p.state, "transfer.json" in p.what, p.what.endswith("still counts")) for p in found.problems] == [
        ("damaged", True, True)
    ]
    assert len(found.runs) == 1 and matrices(group(found.runs)) == []


def test_seeds_are_pooled_and_everything_else_is_not(tmp_path: Path) -> None:
    for seed in range(3):
        fake(tmp_path / f"pat{seed}", 0.8 + 0.01 * seed, seed=seed)
    fake(tmp_path / "split", 0.9, task__split_seed=4)
    fake(tmp_path / "gap", gap := 0.7, device__gap=0.4)
    fake(tmp_path / "silico", training__name="in_silico")
    fake(tmp_path / "rate", optimizer__lr=0.3)
    fake(tmp_path / "identity", reference="identity")
    fake(tmp_path / "linear", reference="linear")
    fake(tmp_path / "classifier", architecture___target_="pnn.architectures.LinearClassifier")
    fake(tmp_path / "other", name="fig2_shg")
    found = groups_of(tmp_path)
    assert sorted((g.experiment, g.kind, g.gap, len(g.runs)) for g in found) == [
        ("fig2_plate", "identity", 0.2, 1),
        ("fig2_plate", "in_silico", 0.2, 1),
        ("fig2_plate", "linear_classifier", 0.2, 1),
        ("fig2_plate", "linear_physics", 0.2, 1),
        ("fig2_plate", "pat", 0.2, 1),
        ("fig2_plate", "pat", 0.2, 4),
        ("fig2_plate", "pat", 0.4, 1),
        ("fig2_shg", "pat", 0.2, 1),
    ]
    four = next(g for g in found if len(g.runs) == 4)
    assert four.on_device.mean == pytest.approx((0.81 + 0.90) / 2)  # of two splits, of which one has three seeds
    assert four.on_model.mean == pytest.approx(four.on_device.mean - 0.05)
    assert (four.seconds, four.commits, four.epochs, four.samples_seen) == (240.0, ["0123456789ab"], 3, 300)
    kinds = [g.kind for g in found if g.experiment == "fig2_plate"]
    assert kinds == sorted(kinds, key=list(KINDS).index)
    assert next(g for g in found if g.gap == 0.4).on_device.mean == pytest.approx(gap)


@pytest.mark.parametrize(
    ("reference", "hidden", "apart"),  # a perceptron without a size has the network's; the identity keeps its wiring
    [("linear_classifier", None, 1), ("perceptron", 8, 1), ("perceptron", None, 2), ("identity", None, 2)],
)
@pytest.mark.parametrize(
    "physics",
    [{"architecture__depth": 7}, {"system__grid": 64}, {"device__noise_factor": 3.0}, {"training__name": "in_silico"}],
)
def test_a_reference_without_physics_does_not_depend_on_the_physics(
    tmp_path: Path, reference: str, hidden: int | None, apart: int, physics: dict[str, Any]
) -> None:
    own = {"reference": reference, "hidden": hidden}
    fake(tmp_path / "a", **own)
    fake(tmp_path / "b", seed=1, **own, **physics)
    assert len(groups_of(tmp_path)) == apart
    fake(tmp_path / "c", seed=1, **own, optimizer__lr=0.3)
    assert len(groups_of(tmp_path)) == apart + 1


def test_keys_that_are_null_or_about_places_do_not_split_a_group(tmp_path: Path) -> None:
    fake(tmp_path / "a")
    fake(tmp_path / "b", seed=1, ckpt_path="x.ckpt", logger={"name": "wandb"}, model=None)
    (one,) = groups_of(tmp_path)
    assert len(one.runs) == 2


def test_a_repeated_seed_counts_once_the_newest(tmp_path: Path) -> None:
    for name, value, when in (("old", 0.7, 1000), ("new", 0.9, 2000)):
        os.utime(fake(tmp_path / name, value) / "summary.json", (when, when))
    (one,) = groups_of(tmp_path)
    assert (one.on_device.mean, one.on_device.n, one.repeats) == (0.9, 1, 1)


def test_folders_given_twice_count_once(tmp_path: Path) -> None:
    run = fake(tmp_path / "runs/a")
    assert len(find([tmp_path / "runs", run, tmp_path]).runs) == 1


def test_accuracy_has_no_say_in_what_stands_for_a_kind(tmp_path: Path) -> None:
    fake(tmp_path / "short", 0.99, epochs=2, trainer__max_epochs=2)
    for seed in (0, 1):
        fake(tmp_path / f"long{seed}", 0.6, seed=seed)
    fake(tmp_path / "single", 0.98, optimizer__lr=0.7)
    found = groups_of(tmp_path)
    best = standing(found, [])
    assert best is not None and best.on_device.mean == pytest.approx(0.6)
    single = next(g for g in found if g.on_device.mean == 0.98)
    assert differences(single, best) == {"optimizer.lr": 0.7}
    assert differences(best, best) == {}


def as_commanded(folder: Path, **changes: Any) -> Group:
    """What the command of a claim composes, as `commanded` gives it."""
    (made,) = groups_of(fake(folder, **changes))
    return Group(made.experiment, made.kind, made.settings, ())


@pytest.mark.parametrize(
    "reduced",
    [
        {"trainer__max_epochs": 1},
        {"trainer__limit_train_batches": 0.1},  # the command does not have this key
        {"optimizer__lr": 0.3},
        {"task__train_limit": 500},
        {"architecture__depth": None},
    ],
    ids=str,
)
def test_runs_at_other_settings_than_the_commands_answer_no_claim(tmp_path: Path, reduced: dict[str, Any]) -> None:
    """A smoke or quick scale, say: however good and however many they are."""
    command = as_commanded(tmp_path / "elsewhere/command")
    for seed in (0, 1, 2):
        fake(tmp_path / f"runs/quick{seed}", 0.99, seed=seed, epochs=9, **reduced)
    (key,) = reduced
    result = score(claim(value=0.9), groups_of(tmp_path / "runs"), [command])
    assert (result.verdict, result.ours, result.others) == (NOT_RUN, None, 1)
    assert result.why.startswith(f"only with {key.replace('__', '.')}=")
    fake(tmp_path / "runs/full", 0.6, seed=7)
    result = score(claim(value=0.9), groups_of(tmp_path / "runs"), [command])
    assert result.verdict == MISSED and result.ours is not None and result.ours.on_device.mean == 0.6


def test_a_reduced_rival_is_no_rival(tmp_path: Path) -> None:
    classifier = {"architecture___target_": "pnn.architectures.LinearClassifier"}
    commands = [as_commanded(tmp_path / "a/pat"), as_commanded(tmp_path / "a/linear", **classifier)]
    for seed in (0, 1):
        fake(tmp_path / f"runs/pat{seed}", 0.9 + 0.01 * seed, seed=seed)
        fake(tmp_path / f"runs/quick{seed}", 0.5 + 0.01 * seed, seed=seed, trainer__max_epochs=1, **classifier)
    target = claim(claim="better_than", than="linear_classifier")
    result = score(target, groups_of(tmp_path / "runs"), commands)
    assert (result.verdict, result.against) == (NOT_RUN, None)
    assert result.why.endswith("only with trainer.max_epochs=1")
    assert score(target, groups_of(tmp_path / "runs")).verdict == REACHED  # a claim without a command that composes


def test_the_shipped_commands_leave_reduced_runs_out(tmp_path: Path) -> None:
    """The configuration that the plate's command composes answers its claim; with fewer epochs it does not."""
    from pnn.config import compose, plain

    (target,) = (t for t in targets(conf_dir() / "paper.yaml") if t.title == "vibrating plate, MNIST")
    summary = json.loads((fake(tmp_path / "a") / "summary.json").read_text())
    for overrides, verdict in (([], MISSED), (["trainer.max_epochs=1"], NOT_RUN), (["task.train_limit=999"], NOT_RUN)):
        folder = tmp_path / f"runs{len(overrides)}{verdict}{''.join(overrides)}/r"
        folder.mkdir(parents=True)
        config = plain(compose("train", ["experiment=fig2_plate", "seed=3", *overrides]))
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "summary.json").write_text(json.dumps(summary))
        assert score(target, groups_of(folder), commanded([target])).verdict == verdict


def test_settings_that_came_after_a_run_are_named_and_it_counts(tmp_path: Path) -> None:
    command = as_commanded(tmp_path / "elsewhere/command", device__distance=0.0)
    fake(tmp_path / "runs/old", 0.6)
    result = score(claim(value=0.9), groups_of(tmp_path / "runs"), [command])
    assert (result.verdict, result.younger) == (MISSED, {"device.distance": None})
    assert result.why.endswith("; run before device.distance came")
    fake(tmp_path / "runs/off", 0.7, device__distance=None)  # known and switched off: another experiment
    assert score(claim(value=0.9), groups_of(tmp_path / "runs/off"), [command]).verdict == NOT_RUN


def test_a_grid_of_pnn_sweep_holds_ordinary_runs(tmp_path: Path) -> None:
    for mode in ("pat", "ideal"):
        for gap in (0.0, 0.2):
            for seed in (0, 1):
                name = f"training={mode},device.gap={gap:g},seed={seed}"
                fake(tmp_path / "grid" / name, seed=seed, training__name=mode, device__gap=gap)
    (tmp_path / "grid/sweep.yaml").write_text("sweep: reality_gap")
    assert [(g.kind, g.gap, len(g.runs)) for g in groups_of(tmp_path)] == [
        (mode, gap, 2) for mode in ("pat", "ideal") for gap in (0.0, 0.2)
    ]


def test_a_search_is_counted_but_its_trials_are_no_runs(tmp_path: Path) -> None:
    fake(tmp_path / "runs/a")
    fake(tmp_path / "runs/study/trial-0000", seed=3)
    (tmp_path / "runs/study/sweep.yaml").write_text("a: 1")
    fake(tmp_path / "runs/study/trial-0001/below", seed=4)
    assert [p.what for p in find([tmp_path / "runs"]).problems] == ["a search without trials.csv"]
    (tmp_path / "runs/study/trials.csv").write_text("trial,state,value\n0,complete,0.9\n1,pruned,\n")
    found = find([tmp_path / "runs"])
    assert (len(found.runs), found.problems) == (1, [])
    assert found.studies == [(Path("runs/study/trials.csv"), ["complete", "pruned"])]


def test_signals_are_shown_of_whatever_run_of_a_kind_has_some(tmp_path: Path) -> None:
    fake(tmp_path / "b", training__name="ideal")
    fake(tmp_path / "c", device__gap=0.4)
    for name, gap in (("a", 0.2), ("d", 0.2)):
        fake(tmp_path / name, device__gap=gap, seed=ord(name))
    (tmp_path / "c/signals-val.png").touch()  # not the group that stands for PAT
    assert first_pictures(groups_of(tmp_path)) == [Path("c/signals-val.png")]
    (tmp_path / "d/signals-val.png").touch()
    assert first_pictures(groups_of(tmp_path)) == [Path("d/signals-val.png")]


def test_representatives_share_the_device_that_most_kinds_were_run_on(tmp_path: Path) -> None:
    fake(tmp_path / "a", device__gap=0.4, epochs=9)
    fake(tmp_path / "b", device__gap=0.2)
    fake(tmp_path / "c", device__gap=0.2, training__name="ideal")
    assert {kind: g.gap for kind, g in representatives(groups_of(tmp_path)).items()} == {"pat": 0.2, "ideal": 0.2}


@pytest.mark.parametrize(
    ("value", "how", "verdict"),
    [
        (0.80, {}, REACHED),
        (0.805, {}, MISSED),
        (0.805, {"tolerance": 0.005}, REACHED),
        (0.81, {"tolerance": 0.005}, MISSED),
        (0.79, {"claim": "at_most"}, MISSED),
        (0.79, {"claim": "at_most", "tolerance": 0.01}, REACHED),
        (0.81, {"claim": "at_most"}, REACHED),
        (None, {}, NO_NUMBER),
    ],
)
def test_verdicts_on_a_number(tmp_path: Path, value: float | None, how: dict[str, Any], verdict: str) -> None:
    for seed, seen in enumerate((0.79, 0.80, 0.81)):
        fake(tmp_path / str(seed), seen, seed=seed)
    result = score(claim(value=value, **how), groups_of(tmp_path))
    assert result.verdict == verdict
    assert result.ours is not None and result.ours.on_device.n == 3


def test_a_verdict_says_whether_the_target_is_inside_the_interval(tmp_path: Path) -> None:
    for seed, seen in enumerate((0.79, 0.80, 0.81)):  # 0.80 ± 0.0248
        fake(tmp_path / str(seed), seen, seed=seed)
    groups = groups_of(tmp_path)
    assert score(claim(value=0.8247), groups).why == "−2.47 points; target inside the 95 % interval"
    assert score(claim(value=0.8250), groups).why == "−2.50 points; target outside the 95 % interval"
    assert "one run" in score(claim(value=0.9), groups[:0] + groups_of(tmp_path / "0")).why


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"value": 0.4, "claim": "at_most", "tolerance": 0.05}, "≤ 40 ± 5 %"),
        ({"value": 0.93, "tolerance": 0.005}, "93 %"),  # half of the last digit: printed so already
        ({"value": 0.899, "tolerance": 0.0005}, "89.9 %"),
        ({"value": 0.899, "tolerance": 0.005}, "89.9 ± 0.5 %"),
    ],
)
def test_a_tolerance_that_the_digits_do_not_imply_is_shown(tmp_path: Path, how: dict[str, Any], text: str) -> None:
    fake(tmp_path / "a", 0.8)
    assert claim_text(score(claim(**how), groups_of(tmp_path))) == text


def test_a_claim_without_runs_is_not_run(tmp_path: Path) -> None:
    fake(tmp_path / "a")
    groups = groups_of(tmp_path)
    for how in ({"experiment": "fig2_shg"}, {"kind": "ideal"}, {"config": {"device.gap": 0.3}}):
        assert score(claim(value=0.5, **how), groups).verdict == NOT_RUN
    assert score(claim(value=0.5, config={"device.gap": 0.2}), groups).verdict == REACHED
    assert score(claim(claim="better_than", than="ideal"), groups).verdict == NOT_RUN


@pytest.mark.parametrize(("more", "verdict"), [(0.05, REACHED), (0.005, MISSED), (-0.05, MISSED)])
def test_better_than_another_kind_needs_the_whole_interval(tmp_path: Path, more: float, verdict: str) -> None:
    classifier = {"architecture___target_": "pnn.architectures.LinearClassifier"}
    for seed, noise in enumerate((-0.01, 0.0, 0.01)):
        fake(tmp_path / f"pat{seed}", 0.8 + more + noise, seed=seed)
        fake(tmp_path / f"lin{seed}", 0.8 + noise, seed=seed + 1, **classifier)  # other seeds: no pairs
    result: Score = score(claim(claim="better_than", than="linear_classifier"), groups_of(tmp_path))
    assert result.verdict == verdict
    assert "±" in result.why and "Welch" in result.why


def test_another_experiment_can_be_the_rival(tmp_path: Path) -> None:
    for seed, noise in enumerate((-0.01, 0.0, 0.01)):
        fake(tmp_path / f"a{seed}", 0.85 + noise, seed=seed)
        fake(tmp_path / f"b{seed}", 0.8 + 1.1 * noise, seed=seed, name="fig2_shg")
        fake(tmp_path / f"c{seed}", 0.2, seed=seed, training__name="in_silico")  # of its own experiment: no rival here
    target = claim(claim="better_than", than="pat", rival="fig2_shg")
    result = score(target, groups_of(tmp_path))
    assert result.verdict == REACHED and "+5.00 ± 0.25 points, paired" in result.why
    assert claim_text(result) == "> fig2_shg"


def test_single_runs_do_not_show_that_one_kind_is_better(tmp_path: Path) -> None:
    fake(tmp_path / "pat", 0.9)
    fake(tmp_path / "lin", 0.8, architecture___target_="pnn.architectures.LinearClassifier")
    result = score(claim(claim="better_than", than="linear_classifier"), groups_of(tmp_path))
    assert result.verdict == NOT_SHOWN and "+10.00 points; too few runs" in result.why


def test_the_papers_claims_can_be_read_and_name_what_is_shipped() -> None:
    claims = targets(conf_dir() / "paper.yaml")
    shipped = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    assert {c.experiment for c in claims} <= shipped
    assert {c.mark for c in claims} == {"paper", "reference", "recall", "own"}
    assert all(c.value is None or 0 < c.value < 1 for c in claims)
    assert len({c.title for c in claims}) == len(claims)


@pytest.mark.parametrize("target", targets(conf_dir() / "paper.yaml"), ids=lambda t: t.title)
def test_the_command_of_a_claim_makes_a_run_that_answers_it(target: Target) -> None:
    if target.command.startswith("make "):
        return
    (made,) = commanded([target])
    if target.claim == "better_than":  # the command makes the other side
        assert (made.experiment, made.kind) == (target.experiment, target.than)
    else:
        assert target.fits(made)


def test_a_spoilt_list_of_claims_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "paper.yaml"
    for text in ("targets: [{title: a}]", "targets: 3", "other: []", "targets: [", "targets: [{tittle: a}]"):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(str(path))):
            targets(path)
    with pytest.raises(ValueError, match="kinds?|must be one of"):
        claim(kind="magic")


def test_damaged_and_unfinished_runs_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    fake(tmp_path / "runs/good", 0.75)
    for name, file, text in (
        ("torn", "summary.json", '{"test_acc'),
        ("list", "summary.json", "[1]"),
        ("nan", "summary.json", '{"test_accuracy_device": NaN}'),
        ("percent", "summary.json", '{"test_accuracy_device": 87.0}'),
        ("config", "config.yaml", "name: [unclosed"),
        ("nameless", "config.yaml", "seed: 0"),
        ("gapless", "config.yaml", yaml.safe_dump(CONFIG | {"device": {"gap": "wide"}})),
        ("curve", "metrics.csv", "epoch,step\n0,ten\n"),
        ("binary", "metrics.csv", "\x00"),
    ):
        (fake(tmp_path / f"runs/{name}", seed=5) / file).write_text(text)
    (fake(tmp_path / "runs/going", epochs=2) / "summary.json").unlink()
    text = report([tmp_path / "runs"], tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    rows = list(csv.DictReader((tmp_path / "out/problems.csv").open()))
    states = {Path(row["folder"]).name: row["state"] for row in rows}
    assert states.pop("going") == "unfinished"
    assert set(states) == {"torn", "list", "nan", "percent", "config", "nameless", "gapless", "curve", "binary"}
    assert set(states.values()) == {"damaged"}
    for name in states:
        assert f"runs/{name}" in page and f"runs/{name}" in text
    assert "2 of 3 epochs" in page
    strange = {"devices": {"a": {"records": 1, "drive": 2, "record": 2, "trainable": 0, "encoder": 0, "macs": 1}}}
    for number, part in enumerate(({"record_seconds": "1"}, {}, {"record_seconds": 1.0, "system": "SHG"})):
        folder = fake(tmp_path / f"strange/{number}", name=f"costs $1 and ${number}", device__dac_bits="eight")
        strange["devices"]["a"].update(part)
        (folder / "devices.json").write_text(json.dumps(strange | {"digital_macs": 1}))
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(summary | {"device_samples": None}))
    assert report([tmp_path / "strange"], tmp_path / "strange/out").startswith("3 runs")
    counted = [Path(r["folder"]).name for r in csv.DictReader((tmp_path / "out/runs.csv").open())]
    assert set(counted) == {"good", "curve", "binary"}  # their summaries are whole


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("card.json", {"fits": {"MLP": {"error": "small", "r2": 1}}}),
        ("card.json", {"fits": {"MLP": {"error": 0.1, "r2": 1, "jacobian": {"x": []}}}}),
        ("card.json", {"measurements": 3.5, "fits": {}}),
        ("card.json", {"verdict": 3, "fits": {}}),
        ("demo.json", {"gaps": [{"gap": 0.4, "modes": {}, "pat_minus": {"ideal": {"difference": 0.1}}}]}),
        ("demo.json", {"gaps": [], "references": {"identity": None}}),
        ("demo.json", {"gaps": [{"gap": 0.4, "modes": {"pat": {"device": [None]}}}]}),
        ("demo.json", {"gaps": [{"gap": 0.4, "modes": {"pat": {"device": [], "model": [], "output_gap": 0.1}}}]}),
        ("card.json", {"environment": ["a"], "fits": {}}),
        ("card.json", {"fits": {"MLP": {"error": 0.1, "r2": "1"}}}),
        ("other.json", {"alignment": [{"layer": "a"}]}),
    ],
)
def test_a_damaged_card_is_named(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    fake(tmp_path / "runs/good")
    (tmp_path / "runs" / name).write_text(json.dumps(content))
    found = find([tmp_path / "runs"])
    assert len(found.runs) == 1 and not (found.twins or found.demos or found.alignments)
    assert [(p.state, p.what.partition(" ")[0].rstrip(":")) for p in found.problems] == [("damaged", name)]


class Resources(HTMLParser):
    """What a page loads, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "srcset", "data", "poster", "xlink:href", *(() if tag == "a" else ("href",)))
        self.loaded += [value or "" for name, value in attrs if name in names]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three modes, two gaps, two seeds, references, a twin, a demo, an alignment and a picture."""
    top = tmp_path_factory.mktemp("outputs")
    for seed in (0, 1):
        for gap in (0.05, 0.45):
            for mode in ("pat", "in_silico", "ideal"):
                place, seen = top / f"fig2_plate/{mode}-{gap}-{seed}", 0.885 - gap / 5 + 0.01 * seed
                fake(place, seen, seed=seed, device__gap=gap, training__name=mode)
                if mode == "pat":
                    rows = [{"distance": d, "distance_seed": 0, "accuracy": seen - d / 10} for d in (0.0, 0.05, 0.45)]
                    (place / "transfer.json").write_text(json.dumps({"trained_gap": gap, "rows": rows}))
        fake(top / f"fig2_plate/identity-{seed}", 0.3 + 0.1 * seed, seed=seed, reference="identity", device__gap=0.05)
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(1, 1))
    twin = top / "<twin>"
    twin.mkdir()
    for path in (twin / "card.png", top / "fig2_plate/pat-0.05-0/signals-val.png"):
        figure.savefig(path)
    plt.close(figure)
    fit = {"error": 0.125, "noise": 0.02, "bias": 0.12, "r2": 0.98, "jacobian": {"x": 0.25, "x_cosine": 0.975}}
    fit |= {"visited": {"error": 0.375}, "error_by_output": [0.1, 0.2]}
    bare = {"error": 0.5, "noise": None, "bias": None, "r2": 0.75, "jacobian": None}
    card = {"model": "MLP", "system": "SHG", "fits": {"MLP": fit, "Linear": bare}, "scatter": {"measured": [1.0]}}
    card["learning_curve"] = {"MLP": [{"measurements": 50, "error": 0.625}, {"measurements": 1000, "error": 0.125}]}
    card["environment"] = {"command": "pnn-twin system=shg"}
    (twin / "card.json").write_text(json.dumps(card))
    modes = {m: {"device": [0.8, 0.9], "model": [0.9, 0.9], "output_gap": 0.3} for m in ("in_silico", "pat")}
    pairs = {"in_silico": {"difference": 0.01, "error": 0.02, "verdict": "not shown"}}
    (top / "demo.json").write_text(json.dumps({"gaps": [{"gap": 0.4, "modes": modes, "pat_minus": pairs}]}))
    rows = [{"layer": "body.0", "mode": "PAT", "cosine": 0.875, "norm_ratio": 0.81150003}]
    (top / "gradients.json").write_text(json.dumps({"ckpt_path": "best.ckpt", "alignment": rows}))
    return top


@pytest.fixture(scope="module")
def written(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "new/folder"
    out.mkdir(parents=True)
    (out / "README.md").write_text("# before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    report([outputs], out, out / "RESULTS.md", out / "README.md")
    return out


def test_the_page_needs_nothing_else(written: Path) -> None:
    text = (written / "report.html").read_text()
    page = Resources()
    page.feed(text)
    assert page.loaded, "the twin card and the markers of the figures"
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in page.loaded)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    clips = [i for i in identifiers if re.fullmatch(r"[mp][0-9a-f]{10}", i)]
    assert clips and len(clips) == len(set(clips))  # figures of one page do not share clip paths or markers


def test_the_page_holds_every_part(written: Path) -> None:
    text = (written / "report.html").read_text()
    parts = ("Scoreboard", "fig2_plate", "Digital twins", "&lt;twin&gt;", "Demo", "Gradients", "body.0", "0.875")
    for part in (*parts, "Transfer to other devices", "Cost sheet", "Horowitz", "In silico falls behind PAT"):
        assert part in text
    assert text.count("<img ") == 2  # the twin's card and the signals
    assert text.count("<svg ") == 3  # training curves, gap curve, transfer matrix; the runs answer no claim
    assert "No run here is at the settings of a claim" in text and "<summary>The claims</summary>" in text
    assert "by reality gap" in text
    assert "currentColor" in text and "#010203" not in text
    assert "25.0 % (∂f/∂x)" in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_the_tables_hold_the_numbers(written: Path) -> None:
    rows = list(csv.DictReader((written / "references.csv").open()))
    assert len(rows) == 7
    pat = next(r for r in rows if r["kind"] == "pat" and r["gap"] == "0.05")
    half = float(stats.t.ppf(0.975, 1)) * 0.005  # two values 0.01 apart: s/√2 = 0.005
    assert float(pat["accuracy_device"]) == pytest.approx(0.88)
    assert float(pat["half_width_device_95"]) == pytest.approx(half)
    assert (pat["n"], float(pat["parameters"]), float(pat["device_calls"])) == ("2", 100, 1234)
    assert len(list(csv.DictReader((written / "runs.csv").open()))) == 14
    board = list(csv.DictReader((written / "scoreboard.csv").open()))
    assert len(board) == len(targets(conf_dir() / "paper.yaml"))
    plate = next(r for r in board if r["claim"] == "vibrating plate, MNIST")
    assert plate["verdict"] == NOT_RUN and plate["why"].startswith("only with ")  # not what its command composes
    cells = {(r["trained_gap"], r["distance"]): r for r in csv.DictReader((written / "transfer.csv").open())}
    assert len(cells) == 6 and float(cells["0.05", "0.45"]["accuracy"]) == pytest.approx(0.88 - 0.045)
    assert float(cells["0.05", "0.45"]["drop"]) == pytest.approx(0.045)
    assert len(list(csv.DictReader((written / "gaps.csv").open()))) == 6
    assert len(list(csv.DictReader((written / "gap_gains.csv").open()))) == 4
    assert len(list(csv.DictReader((written / "costs.csv").open()))) == 7
    twins = list(csv.DictReader((written / "twins.csv").open()))
    assert [(r["fit"], r["visited_error"]) for r in twins] == [("MLP", "0.375"), ("Linear", "")]
    assert len(list(csv.DictReader((written / "alignment.csv").open()))) == 1


def test_the_markdown_tables_are_well_formed(written: Path) -> None:
    text = (written / "RESULTS.md").read_text()
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 9  # scoreboard, references, transfer, inference, training, constants, twin, demo, alignment
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
        assert set(block.splitlines()[1]) <= set("|-: ")
    assert "### fig2_plate" in text and "88.00 ± 6.35 %" in text
    assert "| MLP | 12.50 % | 2.00 % | 12.00 % | 0.9800 | 25.0 % (∂f/∂x) | 0.975 | 37.50 % |" in text
    assert "62.5 % (50), 12.5 % (1,000)" in text and "- command: pnn-twin system=shg" in text
    assert "| body.0 | PAT | 0.875 | 0.812 |" in text
    for target in targets(conf_dir() / "paper.yaml"):
        assert f"`{target.command}`" in text


def test_the_digest_stands_between_its_markers_and_nothing_else_changes(written: Path) -> None:
    text = (written / "README.md").read_text()
    assert text.startswith("# before\n<!-- results -->\n| claim | target |")
    assert text.endswith("|\n<!-- /results -->\nafter\n") and "old" not in text
    assert text.count("\n| ") == len(targets(conf_dir() / "paper.yaml")) + 2


def test_a_bar_in_a_cell_does_not_split_it() -> None:
    assert Table(("a",), [("x|y\nz",)]).markdown().splitlines()[-1] == "| x\\|y z |"


def test_durations_are_short() -> None:
    assert [duration(s) for s in (0.69, 35.2, 658, 12_240)] == ["0.7 s", "35 s", "11 min", "3.4 h"]


def test_quantities_have_three_digits_and_a_prefix() -> None:
    shown = [metric(v, "J") for v in (0.0, 4.0833e-3, 1.2345e-5, 999.7, 2.5e-12, None)]
    assert shown == ["0 J", "4.08 mJ", "12.3 µJ", "1.00 kJ", "2.50 pJ", "—"]
    assert [listed(w) for w in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def code(*arguments: str) -> int:
    """Exit code of the command; 0 where it returns."""
    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_mistakes_give_one_message_exit_code_2_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake(tmp_path / "runs/a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "turned.md").write_text("<!-- /results --> <!-- results -->")
    (tmp_path / "twice.md").write_text("<!-- results --> <!-- /results --> <!-- results -->")
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in (
        ((), "no folder given"),
        (("nowhere",), "nowhere is not a folder"),
        (("runs", "nowhere"), "nowhere is not a folder"),
        (("file",), "file is not a folder"),
        (("empty",), "no run in empty"),
        (("runs", "--out", "file"), "--out file cannot be written"),
        (("runs", "--out", "file/below"), "--out file/below cannot be written"),
        (("runs", "--markdown", "empty"), "--markdown empty is a folder"),
        (("runs", "--markdown", "file/a.md"), "--markdown file cannot be written"),
        (("runs", "--readme", "file"), "--readme file needs <!-- results --> and, after it, <!-- /results -->"),
        (("runs", "--readme", "turned.md"), "--readme turned.md needs"),
        (("runs", "--readme", "twice.md"), "--readme twice.md needs"),
        (("runs", "--readme", "nowhere.md"), "--readme nowhere.md cannot be read"),
    ):
        assert code(*arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("pnn: ") and message in said and said.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
    assert code("runs") == 0
    assert (tmp_path / "outputs/report/report.html").is_file()
    assert code("runs") == 0  # again, over itself


def test_the_command_starts_without_torch(tmp_path: Path) -> None:
    fake(tmp_path / "a")
    check = "import sys; from pnn.report import main; main(['a', '--out', 'r']); assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    helped = subprocess.run([sys.executable, "-m", "pnn.report", "--help"], capture_output=True, text=True, timeout=60)
    assert helped.returncode == 0 and "pnn-report outputs --markdown docs/RESULTS.md" in helped.stdout


# the ledger


def test_results_outlive_their_folders(tmp_path: Path) -> None:
    for seed, value in enumerate((0.80, 0.82, 0.84)):
        fake(tmp_path / f"runs/{seed}", value, seed=seed)
    fake(tmp_path / "runs/other", 0.7, training__name="in_silico", device__saturation=float("inf"))
    transfer = {"trained_gap": 0.2, "rows": [{"distance": 0.0, "distance_seed": 0, "accuracy": 0.8}]}
    (tmp_path / "runs/0/transfer.json").write_text(json.dumps(transfer))
    ledger = tmp_path / "docs/results.jsonl"
    report([tmp_path / "runs"], tmp_path / "a", tmp_path / "a.md", ledger=ledger)
    assert len(ledger.read_text().splitlines()) == 2  # a line a group
    kept = ledger.read_text()
    report([tmp_path / "runs"], tmp_path / "b", tmp_path / "b.md", ledger=ledger)  # nothing is counted twice
    shutil.rmtree(tmp_path / "runs")
    report([], tmp_path / "c", tmp_path / "c.md", ledger=ledger)
    assert (tmp_path / "a.md").read_text() == (tmp_path / "b.md").read_text() == (tmp_path / "c.md").read_text()
    assert ledger.read_text() == kept
    (tmp_path / "runs").mkdir()
    assert report([tmp_path / "runs"], tmp_path / "c", ledger=ledger).startswith("4 runs")  # a fresh clone has no run
    assert "82.00 ± 4.97 %" in (tmp_path / "c.md").read_text() and "Transfer" in (tmp_path / "c.md").read_text()
    fake(tmp_path / "runs/again", 0.9, seed=1)
    said = report([tmp_path / "runs"], tmp_path / "d", tmp_path / "d.md", ledger=ledger)
    assert (
        said.startswith("4 runs in 2 groups") and "84.67" in (tmp_path / "d.md").read_text()
    )  # of equal seeds the newest
    assert len(restored_runs(ledger)) == 4


def test_cards_demos_and_alignments_outlive_their_folders(outputs: Path, tmp_path: Path) -> None:
    ledger, top = tmp_path / "results.jsonl", shutil.copytree(outputs, tmp_path / "outputs")
    report([top], tmp_path / "a", tmp_path / "a.md", ledger=ledger)
    kept = ledger.read_text()
    assert "scatter" not in kept and "error_by_output" not in kept  # of no table
    report([top], tmp_path / "b", tmp_path / "b.md", ledger=ledger)
    shutil.rmtree(top)
    report([], tmp_path / "c", tmp_path / "c.md", ledger=ledger)
    assert (tmp_path / "a.md").read_text() == (tmp_path / "b.md").read_text() == (tmp_path / "c.md").read_text()
    assert ledger.read_text() == kept and "37.50 %" in (tmp_path / "c.md").read_text()
    (top / "<twin>").mkdir(parents=True)
    fits = {"MLP": {"error": 0.25, "r2": 0.9375}}
    (top / "<twin>/card.json").write_text(json.dumps({"model": "MLP", "system": "SHG", "fits": fits}))
    report([top], tmp_path / "d", tmp_path / "d.md", ledger=ledger)  # of one place the newest counts
    text = (tmp_path / "d.md").read_text()
    assert "| MLP | 25.00 % | — | — | 0.9375 | — | — | — |" in text and "12.50 %" not in text and "body.0" in text


def test_parts_that_a_folder_has_lost_are_kept_and_a_place_counts_once_however_it_is_named(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger, top = tmp_path / "results.jsonl", Path(shutil.copytree(outputs, tmp_path / "outputs").name)
    report([top], tmp_path / "a", tmp_path / "a.md", ledger=ledger)
    kept = ledger.read_text()
    for place in top.rglob("metrics.csv"):
        place.unlink()
    for place in top.rglob("devices.json"):
        place.unlink()
    report([tmp_path / top], tmp_path / "b", tmp_path / "b.md", ledger=ledger)
    restored, before = ([json.loads(line) for line in text.splitlines()] for text in (ledger.read_text(), kept))
    assert [line.get("path") for line in restored] == [line.get("path") for line in before]
    for old, new in zip(before, restored, strict=True):
        assert old.get("devices") == new.get("devices")
        assert [r["curves"] for r in old.get("runs", [])] == [r["curves"] for r in new.get("runs", [])]


def test_a_long_curve_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    fake(tmp_path / "runs/0", 0.8, epochs=137)
    ledger = tmp_path / "results.jsonl"
    report([tmp_path / "runs"], tmp_path / "a", tmp_path / "a.md", ledger=ledger)
    (run,) = restored_runs(ledger)
    assert len(run["curves"]["epoch"]) == 50 and run["curves"]["epoch"][::49] == [0, 136]
    report([], tmp_path / "b", tmp_path / "b.md", ledger=ledger)
    assert (tmp_path / "a.md").read_text() == (tmp_path / "b.md").read_text()  # epochs and steps among the rest


def restored_runs(ledger: Path) -> list[dict[str, Any]]:
    return [run for line in ledger.read_text().splitlines() for run in json.loads(line)["runs"]]


def test_what_a_ledger_does_not_know_is_a_dash(tmp_path: Path) -> None:
    fake(tmp_path / "runs/0", 0.8)
    ledger = tmp_path / "results.jsonl"
    report([tmp_path / "runs"], tmp_path / "a", ledger=ledger)
    content = json.loads(ledger.read_text())
    del content["runs"][0]["summary"]["test_accuracy_model"]
    ledger.write_text(json.dumps(content) + "\n")
    report([], tmp_path / "b", tmp_path / "b.md", ledger=ledger)
    text = (tmp_path / "b.md").read_text()
    assert "| physics-aware (PAT) | 0.2 | 80.00 % | — |" in text


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda line: line[:40], "line 1 cannot be read"),
        (lambda line: line.replace('"test_accuracy_device": 0.8', '"test_accuracy_device": 8'), "must lie in"),
        (lambda line: line.replace('"seeds"', '"sedes"'), "KeyError"),
        (lambda line: "[]", "line 1"),
        (
            lambda line: line + '\n{"kind": "twins", "path": "card.json", "content": {}}',
            "line 2 cannot be read .*incomplete",
        ),
        (lambda line: line + '\n{"kind": "runs", "path": "card.json", "content": {}}', "line 2"),
        (lambda line: "", "keeps no result"),
    ],
)
def test_a_damaged_ledger_is_never_overwritten(tmp_path: Path, damage: Any, words: str) -> None:
    fake(tmp_path / "runs/0", 0.8)
    ledger = tmp_path / "results.jsonl"
    report([tmp_path / "runs"], tmp_path / "a", ledger=ledger)
    ledger.write_text(damage(ledger.read_text().strip()))
    before = ledger.read_text()
    with pytest.raises(UserError, match=words) as caught:
        report([tmp_path / "runs"] if before else [], tmp_path / "b", ledger=ledger)
    assert str(ledger) in str(caught.value) and ledger.read_text() == before and not (tmp_path / "b").exists()


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_gains_over_gaps_are_ours_minus_theirs(tmp_path: Path) -> None:
    curve(tmp_path, "pat", {0.0: 0.9, 0.2: 0.89})
    curve(tmp_path, "in_silico", {0.0: 0.9, 0.2: 0.85})
    rows = read(gap_gains_csv(groups_of(tmp_path)))
    assert [(r["ours"], r["against"], r["gap"]) for r in rows] == [("pat", "in_silico", g) for g in ("0.0", "0.2")]
    assert float(rows[1]["difference"]) == pytest.approx(0.04)


def test_the_models_interval_is_its_own(tmp_path: Path) -> None:
    curve(tmp_path, "pat", {0.0: 0.9, 0.2: 0.89})
    for path in tmp_path.rglob("summary.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"test_accuracy_model": 0.7}))
    for row in read(gaps_csv(groups_of(tmp_path))):
        assert (float(row["accuracy_model"]), float(row["half_width_model_95"])) == pytest.approx((0.7, 0), abs=1e-9)
        assert float(row["half_width_95"]) > 1e-4


def test_costs_are_of_one_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake(tmp_path / str(seed), seed=seed)
    (row,) = read(costs_csv(groups_of(tmp_path), prices(conf_dir() / "costs.yaml")))
    assert (float(row["training_device_calls"]), float(row["training_wall_seconds"])) == (1234, 60)


def test_the_wall_time_is_of_one_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake(tmp_path / str(seed), seed=seed)
    table = reference_table(groups_of(tmp_path))
    assert dict(zip(table.heads, table.rows[0], strict=True))["wall time a run"] == "60 s"


def test_a_rival_is_one_on_the_same_device(tmp_path: Path) -> None:
    for seed, noise in enumerate((-0.01, 0.0, 0.01)):
        fake(tmp_path / f"a{seed}", 0.85 + noise, seed=seed)
        fake(tmp_path / f"b{seed}", 0.80 + 1.1 * noise, seed=seed, training__name="in_silico")
        fake(tmp_path / f"c{seed}", 0.90 + noise, seed=seed, epochs=9, training__name="in_silico", device__gap=0.0)
    result = score(claim(claim="better_than", than="in_silico"), groups_of(tmp_path))
    assert (result.verdict, result.against.gap) == (REACHED, 0.2)


def test_runs_with_a_given_twin_are_apart(tmp_path: Path) -> None:
    fake(tmp_path / "own")
    fake(tmp_path / "given", seed=1, twin="a/twin-0.pt")
    fake(tmp_path / "too", seed=2, twin="b/twin-0.pt")
    assert sorted(len(g.runs) for g in groups_of(tmp_path)) == [1, 2]


def test_the_demos_columns() -> None:
    modes = {"pat": {"device": [0.8, 0.9], "model": [0.9, 0.9], "output_gap": 0.3}}
    (row,) = demo_table({"gaps": [{"gap": 0.4, "modes": modes}]}).rows
    assert row[4] == "90.00 ± 0.00 %" and row[3].startswith("85.00")


def test_the_columns_of_twins() -> None:
    fit = {"error": 0.125, "noise": 0.02, "bias": 0.12, "r2": 0.98}
    (row,) = read(twins_csv(Found(twins=[(Path("a/card.json"), {"fits": {"MLP": fit}})])))
    assert {k: float(row[k]) for k in fit} == fit


def test_the_seeds_have_their_columns(tmp_path: Path) -> None:
    fake(tmp_path / "a", device__seed=3, task__seed=5, task__split_seed=7)
    (row,) = read(runs_csv(find([tmp_path]).runs))
    assert [row[k] for k in ("seed", "device_seed", "task_seed", "split_seed")] == ["0", "3", "5", "7"]


def test_accuracies_on_device_and_model_have_their_columns(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake(tmp_path / str(seed), 0.8 + 0.02 * seed, seed=seed)
    (row,) = read(references_csv(groups_of(tmp_path)))
    assert (float(row["accuracy_device"]), float(row["accuracy_model"])) == pytest.approx((0.81, 0.76))
