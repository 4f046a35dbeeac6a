"""Callbacks: the metrics table, a clean stop on a signal, and the clock."""

from __future__ import annotations

import csv
import logging
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from tqdm import tqdm

from pnn.runs import write_atomically

COLUMNS = (
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "val_accuracy_device",
    "val_accuracy_model",
    "val_loss_device",
    "val_loss_model",
    "val_gap_output_error",
    "learning_rate",
)


class MetricsTable(pl.Callback):
    """One row per epoch in `metrics.csv`; the rows are part of the checkpoint, so a resumed run repeats none.

    Of several processes of a run, which all have the same rows, one `writes`.
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.writes = path, writes
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items() if name in COLUMNS}
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        def fill(path: Path) -> None:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, restval="")
                writer.writeheader()
                writer.writerows(self.rows)

        if self.writes:
            write_atomically(self.path, fill)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state["rows"]]
        self._write()


class Stopped(Exception):
    """Training ended early on the user's wish, with a checkpoint."""


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Writes last.ckpt atomically at the end of every epoch, and when Ctrl-C or SIGTERM ends the run early.

    A signal ends training after the current optimizer step; at the last batch of an epoch, after its validation. At the end
    of the last epoch nothing is left to stop. The same signal again interrupts at once; a worker gets both for one Ctrl-C. Of
    several processes all stop when one is asked to. However training ends, the signals have their former handlers again.
    (Lightning's own `save_last` writes only when the monitored score improves.)
    """

    def __init__(self, path: Path):
        self.path, self.stopped = path, False
        self._asked_by: set[int] = set()
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._request)

    def _request(self, number: int, frame: Any) -> None:
        if number in self._asked_by:
            raise KeyboardInterrupt
        self._asked_by.add(number)
        self.stopped = True

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A run folder may have been moved: the best checkpoint so far lies beside the last one."""
        keeper = trainer.checkpoint_callback
        if not isinstance(keeper, ModelCheckpoint):
            return
        saved = checkpoint["callbacks"].get(keeper.state_key)
        if saved and saved["best_model_path"]:
            folder = str(keeper.dirpath)  # as the keeper will compare it
            best = str(Path(folder) / Path(saved["best_model_path"]).name)
            saved |= {"dirpath": folder, "best_model_path": best, "kth_best_model_path": best}
            saved["best_k_models"] = {best: saved["best_model_score"]}

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        done = batch_index + 1
        whole = done % trainer.accumulate_grad_batches == 0  # gradients of half a step are in no checkpoint
        if whole and done < trainer.num_training_batches and self._asked(trainer):
            self._save(trainer)
            raise Stopped

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save(trainer)
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0) and self._asked(trainer):
            raise Stopped

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether this process or another one of the run has been asked to stop."""
        if trainer.world_size > 1:
            return bool(trainer.strategy.reduce_boolean_decision(self.stopped, all=False))
        return self.stopped

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            write_atomically(self.path, trainer.save_checkpoint)
        else:
            trainer.save_checkpoint(self.path)  # gives its part to the first process, which writes

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


class Progress(pl.callbacks.ProgressBar):
    """One bar over the whole run with the accuracy on device and model; without a terminal, one line per epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._lines = not sys.stderr.isatty()

    def disable(self) -> None:
        self._lines = True

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        total = (trainer.max_epochs or 1) * int(trainer.num_training_batches)
        done = trainer.current_epoch * int(trainer.num_training_batches)
        self._bar = (
            None if self._lines else tqdm(total=total, initial=done, unit="step", desc="training", mininterval=0.2)
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        scores = trainer.callback_metrics
        text = (
            f"loss {float(scores['train_loss']):.3f}, validation {float(scores['val_accuracy_device']):.2%} on the device, "
            f"{float(scores['val_accuracy_model']):.2%} on the model"
        )
        if self._bar is None:
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {text}", flush=True)
        else:
            self._bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")
            self._bar.set_postfix_str(text)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._bar is not None:
            self._bar.close()


def quiet() -> None:
    """Keep Lightning's remarks about itself from hiding what matters."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*treespec.*",
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*GPU available but.*",
        ".*smaller than the logging interval.*",
        ".*sync_dist=True.*",  # what is logged is the sum over all processes already
        ".*find_unused_parameters.*",
    ):
        warnings.filterwarnings("ignore", message)


class Clock(pl.Callback):
    """Wall time of training in seconds, summed over resumes."""

    def __init__(self) -> None:
        self.before, self._start = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self._start

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.before = state["seconds"]


class Pruning(pl.Callback):
    """Reports the validation score of every epoch to an Optuna trial, and ends the run when the trial's pruner says so.

    (optuna-integration has one, but imports the package `lightning`.)
    """

    def __init__(self, trial: Any, monitor: str):
        self.trial, self.monitor = trial, monitor

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.trial.report(float(trainer.callback_metrics[self.monitor]), trainer.current_epoch)
        if self.trial.should_prune():
            from optuna import TrialPruned

            raise TrialPruned(f"worse than the median after epoch {trainer.current_epoch + 1}")
