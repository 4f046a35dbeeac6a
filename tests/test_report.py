"""pnn-report: statistics against scipy, grouping, verdicts, damaged folders, a page that needs nothing else, exit codes."""

from __future__ import annotations

import copy
import csv
import json
import os
import re
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
from pnn.reporting.folders import find
from pnn.reporting.groups import KINDS, Group, differences, group, representatives
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
from pnn.reporting.statistics import difference, estimate
from pnn.reporting.tables import Table, accuracy, duration

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
    assert four.on_device.mean == pytest.approx((0.80 + 0.81 + 0.82 + 0.90) / 4)
    assert four.on_model.mean == pytest.approx(four.on_device.mean - 0.05)
    assert (four.seconds, four.commits, four.epochs, four.samples_seen) == (240.0, ["0123456789ab"], 3, 300)
    kinds = [g.kind for g in found if g.experiment == "fig2_plate"]
    assert kinds == sorted(kinds, key=list(KINDS).index)
    assert next(g for g in found if g.gap == 0.4).on_device.mean == pytest.approx(gap)


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


def test_the_configuration_closest_to_the_command_answers_a_claim(tmp_path: Path) -> None:
    fake(tmp_path / "long", 0.99, epochs=9, optimizer__lr=0.7, task__batch_size=20)
    fake(tmp_path / "close", 0.6, epochs=2, optimizer__lr=0.3)
    command = Group("fig2_plate", "pat", groups_of(fake(tmp_path / "elsewhere/as_commanded"))[0].settings, ())
    groups = [g for g in groups_of(tmp_path) if g.settings != command.settings]
    result = score(claim(value=0.9), groups, [command])
    assert (result.verdict, result.changed, result.others) == (MISSED, {"optimizer.lr": 0.3}, 1)
    assert result.why.endswith("; 1 setting differs from the command's")
    assert score(claim(value=0.9), groups_of(tmp_path / "elsewhere"), [command]).changed == {}


def test_a_search_is_counted_but_its_trials_are_no_runs(tmp_path: Path) -> None:
    fake(tmp_path / "runs/a")
    fake(tmp_path / "runs/study/trial-0000", seed=3)
    (tmp_path / "runs/study/sweep.yaml").write_text("a: 1")
    assert [p.what for p in find([tmp_path / "runs"]).problems] == ["a search without trials.csv"]
    (tmp_path / "runs/study/trials.csv").write_text("trial,state,value\n0,complete,0.9\n1,pruned,\n")
    found = find([tmp_path / "runs"])
    assert (len(found.runs), found.problems) == (1, [])
    assert found.studies == [(tmp_path / "runs/study/trials.csv", ["complete", "pruned"])]


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


def test_a_claim_without_runs_is_not_run(tmp_path: Path) -> None:
    fake(tmp_path / "a")
    groups = groups_of(tmp_path)
    for how in ({"experiment": "fig2_shg"}, {"kind": "ideal"}, {"config": {"device.gap": 0.3}}):
        assert score(claim(value=0.5, **how), groups).verdict == NOT_RUN
    assert score(claim(value=0.5, config={"device.gap": 0.2}), groups).verdict == REACHED
    assert score(claim(claim="better_than", than="ideal"), groups).verdict == NOT_RUN


@pytest.mark.parametrize(("gain", "verdict"), [(0.05, REACHED), (0.005, MISSED), (-0.05, MISSED)])
def test_better_than_another_kind_needs_the_whole_interval(tmp_path: Path, gain: float, verdict: str) -> None:
    for seed, noise in enumerate((-0.01, 0.0, 0.01)):
        fake(tmp_path / f"pat{seed}", 0.8 + gain + noise, seed=seed)
        fake(
            tmp_path / f"lin{seed}", 0.8 + noise, seed=seed, architecture___target_="pnn.architectures.LinearClassifier"
        )
    result: Score = score(claim(claim="better_than", than="linear_classifier"), groups_of(tmp_path))
    assert result.verdict == verdict
    assert "±" in result.why


def test_single_runs_do_not_show_that_one_kind_is_better(tmp_path: Path) -> None:
    fake(tmp_path / "pat", 0.9)
    fake(tmp_path / "lin", 0.8, architecture___target_="pnn.architectures.LinearClassifier")
    result = score(claim(claim="better_than", than="linear_classifier"), groups_of(tmp_path))
    assert result.verdict == NOT_SHOWN and "+10.00 points; too few runs" in result.why


def test_the_papers_claims_can_be_read_and_name_what_is_shipped() -> None:
    claims = targets(conf_dir() / "paper.yaml")
    shipped = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    assert {c.experiment for c in claims} <= shipped
    assert {c.mark for c in claims} == {"paper", "reference", "recall"}
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
        assert str(tmp_path / "runs" / name) in page and str(tmp_path / "runs" / name) in text
    assert "2 of 3 epochs" in page
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
        fake(top / f"fig2_plate/identity-{seed}", 0.3 + 0.1 * seed, seed=seed, reference="identity", device__gap=0.05)
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(1, 1))
    twin = top / "<twin>"
    twin.mkdir()
    for path in (twin / "card.png", top / "fig2_plate/pat-0.05-0/signals-val.png"):
        figure.savefig(path)
    plt.close(figure)
    fit = {"error": 0.125, "noise": 0.02, "bias": 0.12, "r2": 0.98, "jacobian": {"x": 0.25, "x_cosine": 0.975}}
    bare = {"error": 0.5, "noise": None, "bias": None, "r2": 0.75, "jacobian": None}
    (twin / "card.json").write_text(json.dumps({"model": "MLP", "system": "SHG", "fits": {"MLP": fit, "Linear": bare}}))
    modes = {m: {"device": [0.8, 0.9], "model": [0.9, 0.9], "output_gap": 0.3} for m in ("in_silico", "pat")}
    pairs = {"in_silico": {"difference": 0.01, "error": 0.02, "verdict": "not shown"}}
    (top / "demo.json").write_text(json.dumps({"gaps": [{"gap": 0.4, "modes": modes, "pat_minus": pairs}]}))
    rows = [{"layer": "body.0", "mode": "PAT", "cosine": 0.875, "norm_ratio": 1.125}]
    (top / "gradients.json").write_text(json.dumps({"ckpt_path": "best.ckpt", "alignment": rows}))
    return top


@pytest.fixture(scope="module")
def written(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "new/folder"
    report([outputs], out, out / "RESULTS.md")
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
    for part in ("Scoreboard", "fig2_plate", "Digital twins", "&lt;twin&gt;", "Demo", "Gradients", "body.0", "0.875"):
        assert part in text
    assert text.count("<img ") == 2  # the twin's card and the signals
    assert text.count("<svg ") == 3  # scoreboard, training curves, gap curve
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
    assert plate["verdict"] == REACHED and float(plate["wall_seconds"]) == 120
    assert [r["fit"] for r in csv.DictReader((written / "twins.csv").open())] == ["MLP", "Linear"]
    assert len(list(csv.DictReader((written / "alignment.csv").open()))) == 1


def test_the_markdown_tables_are_well_formed(written: Path) -> None:
    text = (written / "RESULTS.md").read_text()
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
        assert set(block.splitlines()[1]) <= set("|-: ")
    assert "### fig2_plate" in text and "88.00 ± 6.35 %" in text
    for target in targets(conf_dir() / "paper.yaml"):
        assert f"`{target.command}`" in text


def test_a_bar_in_a_cell_does_not_split_it() -> None:
    assert Table(("a",), [("x|y\nz",)]).markdown().splitlines()[-1] == "| x\\|y z |"


def test_durations_are_short() -> None:
    assert [duration(s) for s in (35.2, 658, 12_240)] == ["35 s", "11 min", "3.4 h"]


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
