"""pnn-evaluate: score a checkpoint on any device, or diagnose its gradients."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pnn.config import REFUSED, application, checked, compose, expand, explain, no_such_key, plain
from pnn.errors import UserError, fail
from pnn.launch import launch, split
from pnn.rules import Config, problems

GROUPS = ("system", "device", "model", "architecture", "training", "task", "optimizer", "trainer", "logger")
OWN = ("ckpt_path", "split", "diagnose", "plot", "batches", "out")


def main() -> None:
    """Entry point of `pnn-evaluate`."""
    arguments = get_args_parser().parse_args()
    if arguments.help or arguments.hydra_help or arguments.info or arguments.shell_completion:
        application("evaluate", lambda _: None)
        return
    try:
        hydras, own = split(arguments.overrides)
        points = expand(own) if arguments.multirun else [own]
        jobs = [configuration(point, arguments.config_dir) for point in points]
        if arguments.multirun and not arguments.cfg:
            refuse_shared_file(jobs)
            launch("evaluate", evaluate_job, points, jobs, hydras)
            return
        for options, config in jobs:
            if arguments.cfg:
                print(OmegaConf.to_yaml(OmegaConf.create({**config, **options})))
            else:
                evaluate(options, config)
    except (UserError, HydraException) as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def evaluate_job(job: tuple[Config, Config]) -> None:
    """One point of a multirun."""
    evaluate(*job)


def refuse_shared_file(jobs: list[tuple[Config, Config]]) -> None:
    """Points that would overwrite each other's result are a mistake."""
    files = [options["out"] for options, _ in jobs if options["out"]]
    for file in files:
        if files.count(file) > 1:
            raise UserError(
                f"out={file} would be written by {files.count(file)} points; give one each: out=a.json,b.json"
            )


def configuration(overrides: list[str], config_dir: str | None = None) -> tuple[Config, Config]:
    """The command's own options, and the run's configuration with the overrides laid over it."""
    from pnn.checkpoints import read

    own = [o for o in overrides if o.partition("=")[0] in OWN]
    options = checked("evaluate", own, config_dir)
    if options["split"] not in ("test", "val"):
        raise UserError(f"split={options['split']} must be test or val")
    if options["diagnose"] not in (None, "gradients"):
        raise UserError(f"diagnose={options['diagnose']} must be gradients or null")
    if options["out"] and Path(options["out"]).is_dir():
        raise UserError(f"out={options['out']} is a folder; give a file, such as {options['out']}/evaluated.json")
    if options["plot"] not in (None, "signals"):
        raise UserError(f"plot={options['plot']} must be signals or null")
    stored = read(options["ckpt_path"])["pnn"]["config"]
    config = OmegaConf.create({**stored, "device": {**_later_keys(stored["device"]), **stored["device"]}})
    OmegaConf.set_struct(config, True)
    found = [m for o in overrides if o not in own for m in [_apply(config, o, config_dir)] if m]
    resolved = plain(config)
    found += problems(resolved)
    if found:
        raise UserError("\n".join(found))
    return options, resolved


def _later_keys(device: Config) -> Config:
    """Keys of a simulated device that checkpoints written before them lack, with the values that mean no change."""
    simulated = str(device.get("_target_")).startswith("pnn.devices.")
    return {"distance": 0.0, "distance_seed": 0, "noise_factor": 1.0} if simulated else {}


def _apply(config: DictConfig, text: str, config_dir: str | None) -> str | None:
    """Lay one override over the run's configuration; the message for one that does not fit."""
    override = OverridesParser.create().parse_override(text)
    if override.is_sweep_override():
        return f"{text}: several values need -m"
    key = override.key_or_group
    if key in GROUPS:
        seed = f"seed={config.seed}"
        try:
            config[key] = compose("train", [seed, text], config_dir)[key]
        except REFUSED as error:
            return explain("train", text, error, [seed], config_dir)
        return None
    if override.is_delete():
        return f"{text}: keys are changed here, none is taken out"
    added = override.is_add() and isinstance(OmegaConf.select(config, key.rpartition(".")[0]), DictConfig)
    if not added and not _has(config, key):
        return no_such_key(key, text, OmegaConf.to_container(config), "see config.yaml of the run")
    try:
        OmegaConf.update(config, key, override.value(), force_add=added)
    except OmegaConfBaseException as error:
        return explain("train", text, error, [])
    return None


def _has(config: DictConfig, key: str) -> bool:
    parent, _, leaf = key.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and leaf in node


def evaluate(options: Config, config: Config) -> dict[str, Any]:
    """Score the checkpoint on the device that `config` describes; returns what is printed, as numbers."""
    from pnn import alignment, checkpoints, runs
    from pnn.build import build

    if options["out"]:
        runs.check_writable(Path(options["out"]).parent)
    experiment = build(config)
    checkpoint = checkpoints.read(options["ckpt_path"])
    checkpoints.load_network(experiment.network, checkpoint)
    _twins(experiment.laboratory, config, checkpoint["pnn"]["config"])
    experiment.task.prepare_data()
    experiment.task.setup()
    result: dict[str, Any] = {
        "ckpt_path": options["ckpt_path"],
        "device": config["device"],
        "seed": config["seed"],
    }
    if options["diagnose"] == "gradients":
        if not experiment.layers:
            raise UserError("diagnose=gradients compares gradients through physical layers, and this network has none")
        loader = iter(experiment.task.train_dataloader())
        batches = [next(loader) for _ in range(min(options["batches"], len(experiment.task.train_dataloader())))]
        try:
            rows = alignment.gradient_alignment(experiment.network, experiment.laboratory.devices, batches)
        except ValueError as error:
            raise UserError(str(error)) from error
        print(alignment.table(rows))
        result["alignment"] = [
            {"layer": r.layer, "mode": r.mode, "cosine": float(r.cosine), "norm_ratio": float(r.ratio)} for r in rows
        ]
    elif options["plot"] == "signals":
        result |= _draw(experiment, options)
    else:
        result |= _score(experiment, config, options["split"])
        result |= _against_the_run(result, options)
    if options["out"]:
        Path(options["out"]).parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(Path(options["out"]), result)
    return result


def _twins(laboratory: Any, config: Config, stored: Config) -> None:
    """Fitted digital models that are not the checkpoint's: from the file that twin= names. Raises UserError without one."""
    from pnn.calibrate import adopt, unfitted
    from pnn.twins import Twin

    lacking = unfitted(laboratory)
    if config.get("twin") and config["twin"] != stored.get("twin"):
        adopt([bench for bench in laboratory.benches if isinstance(bench.model, Twin)], config["twin"])
    elif lacking:
        name = type(lacking[0].model).__name__
        raise UserError(
            f"model: the checkpoint holds no fitted {name}, and none is fitted here; add twin=FILE of pnn-twin"
        )


def _draw(experiment: Any, options: Config) -> dict[str, Any]:
    """RUN/signals-<split>.png: input, signal after every physical layer, outputs, confusion matrix."""
    import torch

    from pnn import figures
    from pnn.checkpoints import run_folder
    from pnn.signals import confusion, trace

    task = experiment.task
    loader = task.test_dataloader() if options["split"] == "test" else task.val_dataloader()
    batches = list(loader)
    x, target = batches[0]
    shown = torch.stack([(target == c).nonzero()[0, 0] for c in target.unique()[:3]])
    counts = confusion(experiment.network, batches, task.classes)
    routes = {via: trace(experiment.network, x[shown], via) for via in ("device", "model")}
    path = run_folder(options["ckpt_path"]) / f"signals-{options['split']}.png"
    figures.signals_figure(task, x[shown], target[shown].tolist(), routes, counts, path)
    print(f"picture: {path}")
    return {"picture": str(path), "confusion": counts.tolist()}


def _score(experiment: Any, config: Config, split: str) -> dict[str, Any]:
    """Accuracy on the device and on the model over one split."""
    from pnn import ranks
    from pnn.callbacks import quiet

    quiet()
    trainer = ranks.alone(config)
    run = trainer.test if split == "test" else trainer.validate
    run(experiment.module, datamodule=experiment.task, verbose=False)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    calls = sum(device.ledger.calls for device in experiment.laboratory.devices)
    print(
        f"{split} accuracy: {scores[f'{split}_accuracy_device']:.2%} on the device, "
        f"{scores[f'{split}_accuracy_model']:.2%} on the model; the two outputs differ by "
        f"{scores[f'{split}_gap_output_error']:.1%}; {calls} device calls"
    )
    return {**scores, "device_calls": calls}


def _against_the_run(result: dict[str, Any], options: Config) -> dict[str, float]:
    """The change of the device's test accuracy against the run's own summary, printed; empty where there is none."""
    from pnn.checkpoints import run_folder

    summary = run_folder(options["ckpt_path"]) / "summary.json"
    if options["split"] != "test" or not summary.is_file():
        return {}
    change = result["test_accuracy_device"] - json.loads(summary.read_text())["test_accuracy_device"]
    print(f"that is {100 * change:+.2f} points against the run's own device")
    return {"change": change}


if __name__ == "__main__":
    main()
