"""A run stopped at any step and resumed ends with the same numbers, bit for bit, as one never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pnn.callbacks import LastCheckpoint
from pnn.config import checked
from pnn.errors import UserError
from pnn.train import train

#: Noise, drift, jitter and augmentation all on: whatever has a random state must survive.
RUN = [
    "architecture.depth=2",
    "device.gap=0.3",
    "device.drift=0.05",
    "device.timing_jitter=0.02",
    "task.noise=0.1",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
]
FRESH = ("wall_seconds", "commit")  # not numbers of the training


def outcome(folder: Path) -> tuple[dict, str, dict[str, torch.Tensor]]:
    summary = json.loads((folder / "summary.json").read_text())
    weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {k: v for k, v in summary.items() if k not in FRESH}, (folder / "metrics.csv").read_text(), weights


def same(a: Path, b: Path) -> None:
    (summary_a, table_a, weights_a), (summary_b, table_b, weights_b) = outcome(a), outcome(b)
    assert table_a == table_b
    assert summary_a == summary_b
    assert all(torch.equal(weights_a[name], weights_b[name]) for name in weights_a)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "never_stopped"
    train(checked("train", [*RUN, f"out={folder}"]))
    return folder


def start(folder: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "pnn.train", *RUN, f"out={folder}", *more]
    one_thread = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
    }  # as in this process: the sums are then added in the same order
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=one_thread)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_resumes_bit_for_bit(how: signal.Signals, never_stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = start(folder)
    last = folder / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists():  # the first epoch's checkpoint
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(how)
    output, _ = process.communicate(timeout=120)
    if (folder / "summary.json").exists():  # it had ended before the signal reached it
        same(folder, never_stopped)
        return
    assert how == signal.SIGKILL or ("resume with" in output and process.returncode == 130), output
    train(checked("train", [*RUN, f"out={folder}", f"ckpt_path={last}"]))
    same(folder, never_stopped)


def test_one_ctrl_c_may_come_as_two_signals_and_a_second_one_interrupts(tmp_path: Path) -> None:
    """A terminal interrupts a whole group, and its parent then asks a worker to end."""
    callback = LastCheckpoint(tmp_path / "last.ckpt")
    callback._request(signal.SIGINT, None)
    callback._request(signal.SIGTERM, None)
    assert callback.stopped
    with pytest.raises(KeyboardInterrupt):
        callback._request(signal.SIGINT, None)


def stopped_then_resumed(run: list[str], step: int, folder: Path, moved: Path | None = None) -> None:
    """Ask a run to stop while it computes its step `step`; then resume it, where it is or after its folder has moved."""
    import pytorch_lightning as pl

    from pnn import train as module

    reached = []

    class StopAt(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == step - 1:
                next(c for c in trainer.callbacks if isinstance(c, LastCheckpoint)).stopped = True
            reached.append(trainer.global_step + 1)

    make = module.make_trainer

    def with_stop(config: dict, where: Path) -> tuple:
        trainer, clock = make(config, where)
        trainer.callbacks.insert(0, StopAt())
        return trainer, clock

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_trainer", with_stop)
        with pytest.raises(KeyboardInterrupt):
            train(checked("train", [*run, f"out={folder}"]))
    assert max(reached) == step and not (folder / "summary.json").exists()
    if moved is not None:
        folder = folder.rename(moved)
    train(checked("train", [*run, f"out={folder}", f"ckpt_path={folder}/checkpoints/last.ckpt"]))


@pytest.mark.parametrize("step", [1, 17, 35, 36, 69, 70, 104])
def test_a_run_stopped_after_any_step_resumes_bit_for_bit(step: int, never_stopped: Path, tmp_path: Path) -> None:
    """35 steps an epoch: within an epoch, at its last step, just after, and before the very last one."""
    stopped_then_resumed(RUN, step, tmp_path / "stopped")
    same(tmp_path / "stopped", never_stopped)


def test_a_run_that_accumulates_gradients_stops_between_steps(tmp_path: Path) -> None:
    whole = [*RUN, "task.batch_size=200", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=1"]
    train(checked("train", [*whole, f"out={tmp_path / 'whole'}"]))
    stopped_then_resumed(whole, 2, tmp_path / "stopped")
    same(tmp_path / "stopped", tmp_path / "whole")


def test_a_run_whose_folder_has_moved_keeps_its_best_epoch(
    never_stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the last step, moved, resumed: the best epoch so far stays the best, and is what is tested."""
    run = [*RUN, "optimizer.lr=0.5", "optimizer.schedule=constant"]  # too fast: the first epoch is the best
    train(checked("train", [*run, f"out={tmp_path / 'whole'}"]))
    stopped_then_resumed(run, 104, tmp_path / "stopped", tmp_path / "moved")
    same(tmp_path / "moved", tmp_path / "whole")
    monkeypatch.chdir(tmp_path)  # as most people name a folder
    stopped_then_resumed(run, 104, Path("near"))
    same(Path("near"), tmp_path / "whole")
    assert torch.load("near/checkpoints/best.ckpt", weights_only=True)["epoch"] == 0
    best = json.loads((tmp_path / "moved/summary.json").read_text())["best_epoch"]
    kept = torch.load(tmp_path / "moved/checkpoints/best.ckpt", weights_only=True)
    assert kept["epoch"] == best
    with pytest.raises(UserError, match="a run goes on in its own folder"):
        train(checked("train", [*RUN, f"out={tmp_path / 'new'}", f"ckpt_path={never_stopped}/checkpoints/last.ckpt"]))


@pytest.mark.parametrize("step", [1, 2])
def test_a_run_of_one_batch_an_epoch_can_be_stopped(step: int, tmp_path: Path) -> None:
    whole = [*RUN, "task.batch_size=2000"]
    train(checked("train", [*whole, f"out={tmp_path / 'whole'}"]))
    stopped_then_resumed(whole, step, tmp_path / "stopped")
    same(tmp_path / "stopped", tmp_path / "whole")
