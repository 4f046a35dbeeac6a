"""A run folder holds everything about its run; a checkpoint is judged on any device."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pnn.build import build
from pnn.config import checked
from pnn.errors import UserError
from pnn.evaluate import configuration, evaluate, main
from pnn.signals import trace
from pnn.train import train

RUN = ["trainer.max_epochs=3", "architecture.depth=2", "device.gap=0.3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(checked("train", [*RUN, f"out={folder}"]))
    return folder


def judge(run: Path, *overrides: str) -> dict:
    return evaluate(*configuration([f"ckpt_path={run}/checkpoints/best.ckpt", *overrides]))


def test_the_run_folder_holds_what_it_promises(run: Path) -> None:
    there = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert there == {
        "README.txt",
        "config.yaml",
        "environment.json",
        "devices.json",
        "metrics.csv",
        "curves.png",
        "summary.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    summary = json.loads((run / "summary.json").read_text())
    for key in (
        "test_accuracy_device",
        "test_accuracy_model",
        "val_accuracy_device",
        "gap_output_error",
        "device_calls",
        "wall_seconds",
        "seed",
        "commit",
    ):
        assert key in summary
    assert summary["gap_output_error"] > 0.01
    # PAT calls each of the two devices once per training batch (35 an epoch), per validation and per test batch
    assert summary["device_calls"] == 2 * (3 * (35 + 1) + 1)


def test_training_learns(run: Path) -> None:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["epoch"]) for r in rows] == [0, 1, 2]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[-1]["val_accuracy_device"]) > 0.6


def test_the_epoch_to_keep_is_the_best_or_the_last(tmp_path: Path) -> None:
    """Too high a rate makes a later epoch worse: the monitor decides which one is judged."""
    wild = ["optimizer.lr=1.0", "optimizer.schedule=constant", "trainer.limit_train_batches=4", "architecture.depth=1"]
    kept = {}
    for monitor in ("val_accuracy_device", "epoch"):
        folder = tmp_path / monitor
        summary = train(
            checked("train", [*wild, "trainer.max_epochs=4", f"training.monitor={monitor}", f"out={folder}"])
        )
        kept[monitor] = summary["best_epoch"]
        stored = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
        assert stored["epoch"] == summary["best_epoch"]
        assert judge(folder)["test_accuracy_model"] == pytest.approx(summary["test_accuracy_model"])
    assert kept["epoch"] == 3 > kept["val_accuracy_device"]


def test_checkpoints_are_plain_containers(run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["pnn"]["config"]["device"]["gap"] == 0.3


def test_the_same_device_gives_the_same_score_up_to_its_noise(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    result = judge(run)
    assert result["test_accuracy_model"] == pytest.approx(summary["test_accuracy_model"])
    assert result["test_accuracy_device"] == pytest.approx(summary["test_accuracy_device"], abs=0.02)


def test_another_device_is_another_device(run: Path, tmp_path: Path) -> None:
    far = judge(run, "device.gap=0.9", "device.seed=7", f"out={tmp_path}/new/far.json")
    near = judge(run, "device=ideal")
    assert far["test_gap_output_error"] > 3 * near["test_gap_output_error"]
    assert near["test_gap_output_error"] < 0.01  # the two integrators
    assert json.loads((tmp_path / "new/far.json").read_text())["device"]["seed"] == 7
    own = json.loads((run / "summary.json").read_text())["test_accuracy_device"]
    assert far["change"] == pytest.approx(far["test_accuracy_device"] - own)


def test_a_finer_integration_of_the_device_changes_little(run: Path) -> None:
    coarse, fine = (
        judge(run, "device=ideal", "split=val"),
        judge(run, "device=ideal", "split=val", "system.device_steps=128"),
    )
    assert fine["val_accuracy_device"] == pytest.approx(coarse["val_accuracy_device"], abs=0.01)


def test_diagnose_gradients_reports_every_layer_and_mode(run: Path) -> None:
    rows = judge(run, "diagnose=gradients")["alignment"]
    assert {(r["layer"], r["mode"]) for r in rows} == {
        (f"layers.{n}", mode) for n in (0, 1) for mode in ("in_silico", "pat", "ideal")
    }
    by = {(r["layer"], r["mode"]): r["cosine"] for r in rows}
    assert by["layers.0", "ideal"] == pytest.approx(1, abs=1e-5)
    assert by["layers.0", "pat"] > 0.5


def test_plot_signals_draws_every_layer_and_counts_every_sample(run: Path) -> None:
    result = judge(run, "plot=signals", "split=val")
    assert (run / "signals-val.png").stat().st_size > 20_000
    assert sum(map(sum, result["confusion"])) == 297 and result["picture"] == str(run / "signals-val.png")


def test_a_traced_pass_is_the_pass(run: Path) -> None:
    experiment = build(checked("train", [*RUN, "device=ideal", "training=in_silico"]))
    x = torch.rand(3, 64)
    signals, logits = trace(experiment.network, x, "model")
    assert torch.equal(logits, experiment.network(x, "model"))
    assert [s.layer for s in signals] == ["layers.0", "layers.1"]
    assert torch.equal(signals[0].drive, x) and torch.equal(signals[1].drive, signals[0].recording)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["device.gap=-1"], ["device.gap=-1", ">= 0"]),
        (["device.gapp=0.1"], ["device.gapp", "did you mean device.gap"]),
        (["device=labb"], ["device=labb: no such option", "did you mean lab?"]),
        (["device=null"], ["device=null: no such option", "ideal, lab"]),
        (["split=train"], ["split=train", "test or val"]),
        (["~device.gap"], ["~device.gap", "none is taken out"]),
        (["+device.partz.q=1"], ["device.partz.q", "did you mean device.parts?"]),
        (["device.parts=3"], ["device.parts=3", "table of numbers"]),
        (["architecture.depth=3"], ["another architecture", "layers.2"]),
        (["plot=weights"], ["plot=weights", "signals"]),
        (["diagnose=weights"], ["diagnose=weights", "gradients"]),
    ],
)
def test_evaluate_refuses_what_does_not_fit(run: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        judge(run, *overrides)
    for word in words:
        assert word in str(caught.value)


def test_evaluate_finds_the_devices_of_its_config_dir(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "bench.yaml").write_text("defaults: [ideal]\ngap: 0.7\n")
    arguments = ["--config-dir", str(tmp_path), f"ckpt_path={run}/checkpoints/best.ckpt", "device=bench"]
    monkeypatch.setattr(sys, "argv", ["pnn-evaluate", *arguments, f"out={tmp_path}/judged.json"])
    main()
    assert json.loads((tmp_path / "judged.json").read_text())["device"]["gap"] == 0.7


def test_gradients_of_no_physics_are_not_compared(tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "reference=linear_classifier"]
    train(checked("train", [*short, f"out={tmp_path}/run"]))
    with pytest.raises(UserError, match="this network has none"):
        judge(tmp_path / "run", "diagnose=gradients")


def test_resuming_with_another_configuration_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"architecture.depth=4 \(was 2\)"):
        train(checked("train", [*RUN, "architecture.depth=4", f"ckpt_path={run}/checkpoints/last.ckpt"]))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused(run: Path, tmp_path: Path, content: bytes | None) -> None:
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes((run / "checkpoints/last.ckpt").read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match=r"damaged\.ckpt"):
        train(checked("train", [*RUN, f"ckpt_path={damaged}"]))


def test_an_occupied_output_folder_is_refused_and_left_alone(run: Path) -> None:
    before = (run / "summary.json").read_bytes()
    with pytest.raises(UserError, match="not an empty folder"):
        train(checked("train", [*RUN, f"out={run}"]))
    assert (run / "summary.json").read_bytes() == before


def test_an_output_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        train(checked("train", [*RUN, f"out={tmp_path}/file/run"]))


def test_a_diverging_run_ends_with_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lower optimizer\.lr"):
        train(checked("train", [*RUN, "optimizer.lr=1e9", "optimizer.warmup=0", f"out={tmp_path}/run"]))


def test_truncated_data_is_refused_before_a_run_folder_exists(images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in images.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    path = broken / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="train-images-idx3-ubyte"):
        train(checked("train", ["task=mnist", f"task.path={broken}", "task.validation=20", f"out={tmp_path}/run"]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_other_loggers_write_into_the_run_folder(logger: str, tmp_path: Path) -> None:
    more = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", f"logger={logger}", f"out={tmp_path}/run"]
    command = [sys.executable, "-m", "pnn.train", *more]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "WANDB_SILENT": "true"}, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "run" / logger).rglob("*"))
