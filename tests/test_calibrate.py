"""Digital twins in training: fitted to the run's own device, counted, kept in the checkpoint, loaded from a file."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pnn import train as module
from pnn.build import build
from pnn.calibrate import calibrate
from pnn.callbacks import LastCheckpoint
from pnn.config import checked
from pnn.devices import lab
from pnn.errors import UserError
from pnn.evaluate import configuration, evaluate
from pnn.gradients import physics_aware
from pnn.layers import Laboratory, PhysicalLayer
from pnn.systems import Identity
from pnn.train import train, visited_drives
from pnn.twins import MLP, nominal, sample, save

PLATE = [
    "system=oscillating_plate",
    "device=plate",
    "one_device=true",
    "architecture.depth=2",
    "task.symmetric=true",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
]
LINEAR = [*PLATE, "model=linear", "model.measure.samples=300"]
NOISY = [*PLATE, "training=in_silico", "model=mlp", "model.noise=true", "model.epochs=2", "model.measure.samples=300"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(checked("train", [*LINEAR, f"out={folder}"]))
    return folder


def judge(run: Path, *overrides: str) -> dict:
    return evaluate(*configuration([f"ckpt_path={run}/checkpoints/best.ckpt", *overrides]))


def test_one_plate_is_measured_once_and_its_calls_are_counted(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    # 300 records measured twice; then two layers, each for 1,100 training and 297 validation digits an epoch, 400 at the end
    assert summary["device_samples"] == 2 * 300 + 2 * (2 * (1100 + 297) + 400)
    assert [p.name for p in run.glob("twin-*.pt")] == ["twin-0.pt"]
    assert summary["gap_output_error"] < 0.2


def test_the_twin_travels_with_the_checkpoint_to_another_device(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    other = judge(run, "device.seed=7", "device.gap=0.3")
    assert other["test_accuracy_model"] == summary["test_accuracy_model"]
    assert other["test_gap_output_error"] > 2 * summary["gap_output_error"]
    assert judge(run, "model=nominal", "device.seed=7")["test_accuracy_model"] != summary["test_accuracy_model"]


def test_visited_drives_are_what_the_network_sends(run: Path) -> None:
    x = np.load(run / "visited.npz")["x"]
    assert x.shape == (64, 64) and np.abs(x).max() <= 1  # a batch of 32 through two layers, 64 samples a record


def test_visited_drives_are_of_every_layer_alike_and_as_long_as_a_drive(tmp_path: Path) -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([laboratory.layer(8), laboratory.layer(8)])

        def forward(self, x: Tensor, via: str = "train") -> Tensor:
            x = self.layers[0](x.reshape(-1, 7, 8), via)  # patches through one layer
            return self.layers[1](x.mean(-2), via)

    laboratory = Laboratory(Identity, lab, nominal, physics_aware, reuse=True)
    network = Long()
    data = [(torch.rand(300, 56), torch.zeros(300))]
    layers = {name: m for name, m in network.named_modules() if isinstance(m, PhysicalLayer)}
    task = SimpleNamespace(train_dataloader=lambda: data)
    visited_drives(SimpleNamespace(layers=layers, task=task, network=network), tmp_path)
    x = torch.from_numpy(np.load(tmp_path / "visited.npz")["x"])
    means = data[0][0].reshape(300, 7, 8).mean(-2)
    assert x.shape == (800, 8)  # half of a thousand of the first layer's 2,100, and the second's 300
    torch.testing.assert_close(x[500:], means)


def test_a_twin_from_a_file_costs_no_measurement(run: Path) -> None:
    config = checked("train", [*LINEAR, f"twin={run}/twin-0.pt"])
    experiment = build(config)
    calibrate(experiment.laboratory, config)
    (bench,) = experiment.laboratory.benches
    assert bench.device.ledger.calls == 0 and bench.model.fitted
    stored = torch.load(run / "twin-0.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in bench.model.state_dict().items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["model=quadratic"], "holds a Linear, and model is Quadratic"),
        (["architecture=mixer", "architecture.patch=4"], "twin="),
        (["twin=/nowhere/twin.pt"], "does not exist"),
    ],
)
def test_a_twin_that_does_not_fit_is_refused(run: Path, more: list[str], message: str) -> None:
    given = [o for o in LINEAR if not o.startswith(("architecture", "model.measure"))]
    config = checked("train", [*given, f"twin={run}/twin-0.pt", *more])
    with pytest.raises(UserError, match=message):
        calibrate(build(config).laboratory, config)


def test_judging_beside_another_model_takes_it_from_a_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"no fitted Quadratic, and none is fitted here; add twin=FILE"):
        judge(run, "model=quadratic")
    with pytest.raises(UserError, match=r"/nowhere/twin\.pt does not exist"):
        judge(run, "twin=/nowhere/twin.pt")
    own = json.loads((run / "summary.json").read_text())["test_accuracy_model"]
    assert judge(run, f"twin={run}/twin-0.pt")["test_accuracy_model"] == own
    (other,) = build(checked("train", [*LINEAR, "device.seed=3"])).laboratory.benches
    other.model.fit(sample(other.device, other.system, 20, seed=0))
    save(other.model, tmp_path / "other.pt", {})
    assert judge(run, f"twin={tmp_path}/other.pt")["test_accuracy_model"] != own
    assert "one_device" not in capsys.readouterr().err


def test_one_twin_for_several_devices_is_worth_a_word(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = checked("train", [*LINEAR, "one_device=false", f"twin={run}/twin-0.pt"])
    report = calibrate(build(config).laboratory, config)
    assert len(report) == 2 and "now stands for 2; with one_device=true" in capsys.readouterr().err


def test_in_silico_training_draws_the_noise_and_judging_does_not() -> None:
    config = checked("train", NOISY)
    experiment = build(config)
    experiment.task.setup()
    calibrate(experiment.laboratory, config)
    (bench,) = experiment.laboratory.benches
    assert isinstance(bench.model, MLP)
    batch = next(iter(experiment.task.train_dataloader()))
    first, second = (float(experiment.module.training_step(batch, 0).detach()) for _ in range(2))
    assert first != second
    logits = [experiment.network(batch[0], "model") for _ in range(2)]
    assert torch.equal(*logits) and not bench.model.sampling


def test_a_run_with_a_noisy_twin_resumes_bit_for_bit(tmp_path: Path) -> None:
    class StopAt(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 40:  # in the second epoch
                next(c for c in trainer.callbacks if isinstance(c, LastCheckpoint)).stopped = True

    train(checked("train", [*NOISY, f"out={tmp_path}/never"]))
    make = module.make_trainer

    def with_stop(config: dict, where: Path) -> tuple:
        trainer, clock = make(config, where)
        trainer.callbacks.insert(0, StopAt())
        return trainer, clock

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_trainer", with_stop)
        with pytest.raises(KeyboardInterrupt):
            train(checked("train", [*NOISY, f"out={tmp_path}/stopped"]))
    train(checked("train", [*NOISY, f"out={tmp_path}/stopped", f"ckpt_path={tmp_path}/stopped/checkpoints/last.ckpt"]))
    never, stopped = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("never", "stopped"))
    for summary in (never, stopped):
        del summary["wall_seconds"], summary["commit"]  # not numbers of the training
    assert never == stopped
    assert (tmp_path / "never/metrics.csv").read_text() == (tmp_path / "stopped/metrics.csv").read_text()


def test_an_optimiser_factor_without_a_parameter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"optimizer.factors.masc: there is no such parameter; use .*mask"):
        train(checked("train", [*LINEAR, "+optimizer.factors.masc=2", f"out={tmp_path}/run"]))
