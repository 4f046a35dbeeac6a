"""Every mistake stops before any work, with name, value, limit and remedy; every YAML composes and trains."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from pnn.build import build
from pnn.config import checked, conf_dir, expand
from pnn.errors import UserError
from pnn.rules import FLAGS, NUMBERS, look_up
from pnn.train import train

GROUPS = (
    "system",
    "device",
    "model",
    "architecture",
    "training",
    "task",
    "optimizer",
    "trainer",
    "logger",
    "experiment",
)
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((conf_dir() / group).glob("*.yaml"))]


def command(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"pnn.{name}", *arguments], capture_output=True, text=True, timeout=120
    )


#: Options that make no sense with the defaults around them, and what they need.
NEEDS = {"mixer": ["architecture.patch=4"]}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_has_a_header(group: str, option: str) -> None:
    assert checked("train", [f"{group}={option}", *NEEDS.get(option, [])])
    assert (conf_dir() / group / f"{option}.yaml").read_text().startswith("#")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["device.gap=-0.1"], ["device.gap=-0.1", ">= 0", "use 0"]),
        (["device.gap=1"], ["device.gap=1", "< 1"]),
        (["device.gap=abc"], ["device.gap=abc", "number"]),
        (["device.gap=.nan"], ["device.gap=.nan", "number"]),
        (["task.batch_size=0"], ["task.batch_size=0", ">= 1", "use 32"]),
        (["task.batch_size=1.5"], ["task.batch_size=1.5", "whole number"]),
        (["task.batch_size=true"], ["task.batch_size=True", "whole number"]),
        (["seed=-1"], ["seed=-1", ">= 0"]),
        (["training=patt"], ["training=patt", "did you mean pat?", "ideal, in_silico, pat"]),
        (["optimzer.lr=0.1"], ["optimzer.lr", "did you mean optimizer.lr?"]),
        (["optimizer.lr=0"], ["optimizer.lr=0", "> 0"]),
        (["optimizer.schedule=linear"], ["optimizer.schedule=linear", "constant, cosine"]),
        (["device.adc_bits=1"], ["device.adc_bits=1", ">= 2", "null"]),
        (["system.steps=2"], ["system.steps=2", "nystrom4", "leapfrog"]),
        (["one_device=no"], ["one_device=no", "true or false"]),
        (["trainer.enable_progress_bar=off"], ["trainer.enable_progress_bar=off", "true or false"]),
        (["twin=/nowhere.pt"], ["twin=/nowhere.pt", "would not be used", "model=linear"]),
        (["trainer.limit_test_batches=0"], ["trainer.limit_test_batches=0", "> 0"]),
        (["system.scheme=euler"], ["system.scheme=euler", "nystrom4, leapfrog, rk4"]),
        (["architecture=mixer", "architecture.patch=3"], ["architecture.patch=3", "8 × 8", "[1, 2, 4, 8]"]),
        (["architecture=mixer", "task=vowels"], ["mixer", "vowels", "multilayer"]),
        (["system=identity", "device=notebook_gap"], ["notebook_gap", "identity", "device=lab"]),
        (["system=identity", "device.timing_jitter=0.1"], ["timing_jitter=0.1", "identity"]),
        (["hidden=5"], ["hidden=5", "reference=perceptron", "leave it out"]),
        (["reference=perceptron", "hidden=0"], ["hidden=0", ">= 1", "as many parameters"]),
        (["architecture.depth=0"], ["architecture.depth=0", ">= 1"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0", ">= 1"]),
        (["a=[1"], ["a=[1"]),
        (["device=null"], ["device=null: no such option", "ideal, lab"]),
        (["device=3"], ["device=3", "string"]),
        (["optimizer.betas=[0.9]"], ["optimizer.betas=[0.9]", "two numbers", "[0.9, 0.999]"]),
        (["optimizer.betas=[0.9,1]"], ["optimizer.betas=[0.9, 1]", "[0, 1)"]),
        (["+device.parts.leak=much"], ["device.parts={'leak': 'much'}", "table of numbers"]),
        (["+trainer.check_val_every_n_epoch=2"], ["check_val_every_n_epoch=2", "must be 1"]),
        (["name=[a]"], ["name=['a']", "one name"]),
        (["out={a: b}"], ["out={'a': 'b'}", "one name"]),
    ],
)
def test_a_mistake_is_named_with_its_remedy(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        checked("train", overrides)
    for word in words:
        assert word in str(caught.value)


def test_a_patch_that_divides_a_thinned_image_is_accepted() -> None:
    assert checked("train", ["architecture=mixer", "task=mnist", "task.stride=2"])  # 14 × 14 pixels, patches of 7


def test_several_mistakes_are_reported_together() -> None:
    wrong = ["training=patt", "optimzer.lr=0.1", "device.gap=-0.1", "task.batch_size=0", "architecture.depth=0"]
    with pytest.raises(UserError) as caught:
        checked("train", wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(wrong)
    for override in wrong:
        assert any(override.partition("=")[0] in line for line in lines)


def test_every_number_in_the_rules_exists_in_the_yaml_tree() -> None:
    """A rule for a key that was renamed would silently check nothing."""
    trees = [checked("train", [f"{group}={option}", *NEEDS.get(option, [])]) for group, option in OPTIONS]
    trees += [checked("twin", []), checked("toy", []), checked("demo", []), checked("evaluate", ["ckpt_path=a"])]
    for key in (*(rule.key for rule in NUMBERS), *FLAGS):
        found = False
        for tree in trees:
            try:
                look_up(tree, key)
                found = True
            except KeyError:
                continue
        assert found, key


def test_a_mistake_ends_the_command_with_code_2_and_leaves_nothing(tmp_path: Path) -> None:
    result = command("train", "device.gap=-0.1", "task.batch_size=0", f"out={tmp_path}/run")
    assert result.returncode == 2
    assert "2 mistakes" in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_grid_is_checked_before_its_first_point_runs(tmp_path: Path) -> None:
    result = command("train", "-m", "seed=0,1", "device.gap=0,-1", f"out={tmp_path}/run")
    assert result.returncode == 2 and "device.gap=-1" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_grid_runs_every_point_into_its_own_folder(tmp_path: Path) -> None:
    result = command("train", "-m", "training=in_silico,pat", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("outputs/custom/*/summary.json"))) == 2


def test_a_grid_expands_to_every_combination() -> None:
    assert expand(["seed=1,2", "device.gap=0.1", "training=pat,ideal"]) == [
        [f"seed={s}", "device.gap=0.1", f"training={t}"] for s, t in itertools.product((1, 2), ("pat", "ideal"))
    ]


@pytest.mark.parametrize("name", ["train", "evaluate", "demo"])
def test_help_lists_what_can_be_said(name: str) -> None:
    result = command(name, "--help")
    assert result.returncode == 0
    assert f"pnn-{name}" in result.stdout and "key=value" in result.stdout


SHORT = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
]


@pytest.mark.parametrize("option", [o for g, o in OPTIONS if g == "experiment"])
def test_every_experiment_trains_one_batch(option: str, images: Path, vowels: Path, tmp_path: Path) -> None:
    composed = checked("train", [f"experiment={option}"])
    data = {
        "Digits": [],
        "Vowels": [f"task.path={vowels}", "task.batch_size=4"],
    }.get(
        composed["task"]["_target_"].rpartition(".")[2],
        [f"task.path={images}", "task.validation=20", "task.batch_size=4"],
    )
    quick = (
        [f"model.measure.samples={64 if 'records' in composed['model'] else 400}"]
        if "measure" in composed["model"]
        else []
    )
    quick += ["model.epochs=1"] if "epochs" in composed["model"] else []
    summary = train(checked("train", [f"experiment={option}", *data, *quick, *SHORT, f"out={tmp_path}/run"]))
    assert summary["name"] == option
    assert 0 <= summary["test_accuracy_device"] <= 1


@pytest.mark.parametrize(
    ("system", "device", "architecture", "training"),
    itertools.product(
        ("coupled_oscillators", "identity"),
        ("ideal", "lab", "notebook_gap"),
        ("multilayer", "mixer"),
        ("in_silico", "pat", "ideal"),
    ),
)
def test_every_combination_trains_one_batch_or_is_refused(
    system: str, device: str, architecture: str, training: str
) -> None:
    overrides = [f"system={system}", f"device={device}", f"architecture={architecture}", f"training={training}"]
    if architecture == "mixer":
        overrides += ["architecture.patch=4", "architecture.width=16"]
    if system == "identity" and device == "notebook_gap":
        with pytest.raises(UserError, match="notebook_gap"):
            checked("train", overrides)
        return
    experiment = build(checked("train", overrides))
    experiment.task.setup()
    batch = next(iter(experiment.task.train_dataloader()))
    loss = experiment.module.training_step(batch, 0)
    loss.backward()
    for name, parameter in experiment.network.named_parameters():
        assert parameter.grad is not None, name


def test_keys_of_the_group_that_was_left_are_the_mistake_not_the_group() -> None:
    with pytest.raises(UserError) as caught:
        checked("train", ["architecture.depth=3", "architecture=mixer"])
    assert "architecture.depth=3: there is no key architecture.depth" in str(caught.value)
    assert "architecture=mixer" not in str(caught.value)


def test_a_file_that_is_no_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("name: mine\nsystem: {duration: 0.5\n")
    with pytest.raises(UserError) as caught:
        checked("train", ["experiment=mine", "seed=-1"], str(tmp_path))
    first, *others = str(caught.value).splitlines()
    assert first.startswith("experiment=mine: not a YAML file") and "mine.yaml" in first and "line 2" in first
    assert "seed=-1" in others[0]


def test_a_config_dir_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    refused = command("train", "--config-dir", str(tmp_path / "nowhere"), "experiment=digits", f"out={tmp_path}/run")
    assert refused.returncode == 2 and "nowhere is not a folder" in refused.stderr
    assert "Traceback" not in refused.stderr and not (tmp_path / "run").exists()


def test_a_table_of_constants_is_filled_entry_by_entry() -> None:
    with pytest.raises(UserError, match=r"use \+device.parts.NAME=VALUE"):
        checked("train", ["device.parts={gain: 1}"])
    assert checked("train", ["+device.parts.gain=1"])["device"]["parts"] == {"gain": 1}


def test_a_key_that_an_experiment_left_behind_is_named_with_its_remedy() -> None:
    left = ["experiment=digits", "architecture=ensemble"]
    with pytest.raises(
        UserError, match=r"architecture.depth=3 is not an option of Ensemble; take it out with ~architecture.depth"
    ):
        build(checked("train", left))
    assert build(checked("train", [*left, "~architecture.depth"])).layers
