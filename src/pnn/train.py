"""pnn-train: compose, train, judge on the device."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pnn.config import run_command
from pnn.errors import UserError
from pnn.rules import Config

#: Keys that may differ between a run and its resumption.
MAY_CHANGE = ("out", "ckpt_path", "logger", "trainer.enable_progress_bar")


def main() -> None:
    """Entry point of `pnn-train`."""
    run_command("train", train)


def train(config: Config, *, callbacks: Sequence[Any] = (), test: bool = True) -> dict[str, Any]:
    """Train the experiment of a checked, plain configuration; returns the content of summary.json.

    `callbacks` join the project's own. With `test=False` the test set is discarded before training, nothing is scored on
    it, and the best epoch's row of metrics.csv is returned: what a search over hyper-parameters may see.
    With several processes (`trainer.devices`) all of them come here; the first one writes, and returns that.
    Raises UserError for a mistake; nothing is written before the whole experiment has been built.
    """
    from pnn import ranks, runs
    from pnn.build import build
    from pnn.calibrate import calibrate
    from pnn.callbacks import Stopped
    from pnn.checkpoints import best_row
    from pnn.memory import keep_freed_memory

    keep_freed_memory()
    place = ranks.place_of(config)
    resumed = resume_from(config)
    folder = resumed or runs.new_folder(config["out"], config["name"]) if place.first else Path(config["out"] or ".")
    experiment = build(config)
    experiment.task.prepare_data()
    experiment.task.setup()
    if not test:
        del experiment.task.test
    trainer, clock = make_trainer(config, folder)
    while place.first and not runs.create(folder, resumed=resumed is not None):  # taken in the same second
        folder = runs.new_folder(config["out"], config["name"])
        trainer, clock = make_trainer(config, folder)
    own = len(trainer.checkpoint_callbacks)
    trainer.callbacks[-own:-own] = callbacks  # after metrics.csv, before the checkpoints, which Lightning keeps last
    if place.first:
        write_description(folder, experiment)
        say(experiment, folder)
    devices = experiment.laboratory.devices
    try:
        with ranks.together({**config, "out": str(folder)}, place) as ready:
            if resumed is None:  # a resumed run finds its digital models in the checkpoint
                calibrate(experiment.laboratory, config, folder if place.first else None)
                ranks.own_streams(devices, place.rank, config["seed"])
            ready()
            trainer.fit(experiment.module, datamodule=experiment.task, ckpt_path=config["ckpt_path"], weights_only=True)
            ranks.count_all(devices, place)
        if not place.first:
            return {}
        if not test:
            return dict(best_row(folder / "metrics.csv", config["training"]["monitor"]))
        return conclude(trainer if place.count == 1 else ranks.alone(config), experiment, folder, clock.seconds)
    except Stopped:
        resume = folder / "checkpoints" / "last.ckpt"
        if not place.first:
            raise KeyboardInterrupt from None
        print(f"\nstopped; resume with the same command and ckpt_path={resume}", file=sys.stderr)
        raise KeyboardInterrupt from None
    finally:
        close(trainer)


def say(experiment: Any, folder: Path) -> None:
    """One line on what is about to run."""
    from pnn.module import trainable

    config, network = experiment.config, experiment.network
    count = sum(p.numel() for p in trainable(network))
    print(
        f"{config['name']}: {len(experiment.layers)} physical layers, {count:,} trainable parameters, "
        f"training={config['training']['name']}, {config['trainer']['max_epochs']} epochs → {folder}"
    )


def resume_from(config: Config) -> Path | None:
    """The run folder of `ckpt_path`, if the run is to go on there. Refuses a checkpoint of another configuration."""
    from pnn.checkpoints import differences, read, run_folder

    path = config["ckpt_path"]
    if path is None:
        return None
    stored = read(path)["pnn"]["config"]
    different = differences(stored, config, ignore=MAY_CHANGE)
    if different:
        raise UserError(
            f"ckpt_path={path} belongs to another configuration: {'; '.join(different)}; "
            "repeat the command of that run (environment.json) and add ckpt_path"
        )
    folder = run_folder(path)
    if config["out"] and Path(config["out"]).resolve() != folder.resolve():
        raise UserError(
            f"out={config['out']}: a run goes on in its own folder, {folder}; leave out= out, or move that folder"
        )
    return Path(config["out"]) if config["out"] else folder


def make_trainer(config: Config, folder: Path) -> tuple[Any, Any]:
    """Lightning's Trainer with the project's callbacks and loggers; those that write only in a run's first process."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint

    from pnn import ranks
    from pnn.callbacks import Clock, LastCheckpoint, MetricsTable, Progress, quiet

    quiet()
    place = ranks.place_of(config)
    clock = Clock()
    checkpoints = folder / "checkpoints"
    callbacks: list[pl.Callback] = [
        clock,
        MetricsTable(folder / "metrics.csv", writes=place.first),
        ModelCheckpoint(
            dirpath=checkpoints,
            filename="best",
            monitor=config["training"]["monitor"],
            mode="max",
            enable_version_counter=False,
        ),
        LastCheckpoint(checkpoints / "last.ckpt"),
    ]
    if place.first and config["trainer"].get("enable_progress_bar", True):
        callbacks.append(Progress())
    arguments = {
        "callbacks": callbacks,
        "logger": make_loggers(config, folder) if place.first else [],
        "default_root_dir": str(folder),
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "log_every_n_steps": 50,
    }
    return ranks.trainer_of(config["trainer"], **(arguments | ranks.shared(place))), clock


def make_loggers(config: Config, folder: Path) -> list[Any]:
    """Loggers beside metrics.csv."""
    kind = config["logger"]["name"]
    if kind == "wandb":
        from pytorch_lightning.loggers import WandbLogger

        options = config["logger"]
        place: dict[str, Any] = {"name": folder.name, "save_dir": str(folder), "config": config}
        return [WandbLogger(project=options["project"], offline=options["offline"], **place)]
    if kind == "tensorboard":
        try:
            from pytorch_lightning.loggers import TensorBoardLogger

            return [TensorBoardLogger(str(folder), name="", version="tensorboard")]
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=tensorboard needs the package tensorboard; pip install 'pnn[tensorboard]'"
            ) from error
    return []


def write_description(folder: Path, experiment: Any) -> None:
    """config.yaml, environment.json and the device card."""
    from omegaconf import OmegaConf

    from pnn import runs
    from pnn.budget import budget

    config = {**experiment.config, "out": str(folder)}
    runs.write_atomically(folder / "config.yaml", lambda p: p.write_text(OmegaConf.to_yaml(OmegaConf.create(config))))
    if experiment.config["ckpt_path"] is None:
        runs.write_json(folder / "environment.json", runs.environment(sys.argv))
    needs = budget(experiment.network, experiment.laboratory, experiment.task.features)
    devices = {
        name: {
            "inputs": layer.input_size,
            "outputs": layer.output_size,
            "trainable": sum(t.numel() for t in layer.parameters() if t.requires_grad),
            **asdict(needs.layers[name]),
        }
        for name, layer in experiment.layers.items()
    }
    card = {"recipe": experiment.config["device"], "digital_macs": needs.digital_macs, "devices": devices}
    runs.write_json(folder / "devices.json", card)


def conclude(trainer: Any, experiment: Any, folder: Path, seconds: float) -> dict[str, Any]:
    """Score the test set once, with the best epoch's parameters, and write summary.json and curves.png."""
    from pnn import checkpoints, figures, runs
    from pnn.module import trainable

    best = checkpoints.read(folder / "checkpoints" / "best.ckpt")
    validation = best["callbacks"] and checkpoints.best_row(
        folder / "metrics.csv", experiment.config["training"]["monitor"]
    )
    checkpoints.load_network(experiment.network, best)
    trainer.test(experiment.module, datamodule=experiment.task, verbose=False)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test_")}
    summary = {
        "name": experiment.config["name"],
        "training": experiment.config["training"]["name"],
        "reference": experiment.config["reference"],
        "test_accuracy_device": scores["test_accuracy_device"],
        "test_accuracy_model": scores["test_accuracy_model"],
        "val_accuracy_device": validation["val_accuracy_device"],
        "best_epoch": int(validation["epoch"]),
        "gap_output_error": scores["test_gap_output_error"],
        "device_calls": sum(device.ledger.calls for device in experiment.laboratory.devices),
        "device_samples": sum(device.ledger.samples for device in experiment.laboratory.devices),
        "parameters": sum(p.numel() for p in trainable(experiment.network)),
        "wall_seconds": round(seconds, 3),
        "seed": experiment.config["seed"],
        "commit": json.loads((folder / "environment.json").read_text())[
            "commit"
        ],  # the code that ran, not the code now
    }
    figures.training_curves(folder)
    visited_drives(experiment, folder)
    runs.write_json(folder / "summary.json", summary)  # last: a run that has one is finished
    print(
        f"test accuracy: {summary['test_accuracy_device']:.2%} on the device, {summary['test_accuracy_model']:.2%} on the "
        f"model (gap: {summary['gap_output_error']:.1%} of the output)\nrun folder: {folder}"
    )
    return summary


def visited_drives(experiment: Any, folder: Path) -> None:
    """visited.npz: drives x (m, drive length) of the first device on training data, for judging digital twins there.

    Only for systems whose parameters are all in the drive; up to a thousand rows, as many of each layer. Of copies, the first.
    """
    import numpy as np

    from pnn.runs import write_atomically
    from pnn.signals import trace

    first = next(iter(experiment.layers.values()), None)
    if first is None or first.names:
        return
    x, _ = next(iter(experiment.task.train_dataloader()))
    signals, _ = trace(experiment.network, x[:300], "device")
    drives = [
        s.drive.reshape(-1, first.drive_size) for s in signals if experiment.layers[s.layer].device is first.device
    ]
    rows = np.concatenate([d[: -(-1000 // len(drives))].numpy() for d in drives])[:1000]
    write_atomically(folder / "visited.npz", lambda path: np.savez_compressed(path, x=rows))


def close(trainer: Any) -> None:
    """Finish a W&B run, so that the next job of a multirun does not continue it."""
    for logger in trainer.loggers:
        if type(logger).__name__ == "WandbLogger":
            import wandb

            wandb.finish()


if __name__ == "__main__":
    main()
