"""Two processes train as one does: the same samples, the same steps, one result; what cannot work is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from pnn import ranks
from pnn import train as module
from pnn.callbacks import LastCheckpoint
from pnn.config import checked
from pnn.devices import SimulatedDevice, lab
from pnn.errors import UserError
from pnn.ranks import Other, Place, own_streams, place_of
from pnn.systems import CoupledOscillators
from pnn.tasks.loader import NOBODY, BatchLoader
from pnn.train import train

#: Without noise in the device, but with a gap: 1100 samples in 8 steps an epoch, of which the last one has a single sample.
RUN = [
    "device.gap=0.3",
    "device.input_noise=0",
    "device.output_noise=0",
    "task.batch_size=157",
    "task.noise=0.1",
    "trainer.gradient_clip_val=0.5",
    "trainer.max_epochs=2",
    "trainer.precision=64-true",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
]


def outcome(folder: Path) -> tuple[dict, list[str], dict]:
    summary = json.loads((folder / "summary.json").read_text())
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return summary, (folder / "metrics.csv").read_text().splitlines(), checkpoint


def test_two_processes_stopped_and_resumed_give_the_result_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class StopAt(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 10:  # only the first process is asked to
                next(c for c in trainer.callbacks if isinstance(c, LastCheckpoint)).stopped = True

    train(checked("train", [*RUN, "out=one"]))
    two = checked("train", [*RUN, "out=two", "trainer.devices=2"])
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        train(two, callbacks=[StopAt()])
    stopped = torch.load("two/checkpoints/last.ckpt", weights_only=True)
    assert stopped["global_step"] == 11 and not Path("two/summary.json").exists()
    train({**two, "ckpt_path": "two/checkpoints/last.ckpt"})
    assert capsys.readouterr().out.count("test accuracy") == 1
    assert not torch.distributed.is_initialized() and "LOCAL_RANK" not in ranks.os.environ

    (summary, table, checkpoint), (its_summary, its_table, its_checkpoint) = outcome(Path("one")), outcome(Path("two"))
    assert {p.name for p in Path("two").rglob("*")} == {p.name for p in Path("one").rglob("*")}
    weights, its_weights = checkpoint["state_dict"], its_checkpoint["state_dict"]
    assert weights.keys() == its_weights.keys()
    moved = 0.0
    for name, value in weights.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(its_weights[name], value, rtol=1e-10, atol=1e-10)
        if "coupling" in name:
            moved = max(moved, float(value.abs().max()))
    assert moved > 0.1  # it was not both of them standing still
    assert len(table) == len(its_table) == 3 and table[0] == its_table[0]
    for row, its_row in zip(table[1:], its_table[1:], strict=True):
        assert [float(v) for v in its_row.split(",")] == pytest.approx([float(v) for v in row.split(",")], rel=1e-6)
    for key in ("test_accuracy_device", "test_accuracy_model", "val_accuracy_device", "best_epoch", "parameters"):
        assert its_summary[key] == summary[key]
    assert its_summary["gap_output_error"] == pytest.approx(summary["gap_output_error"], rel=1e-6)
    # every sample was measured once; and in each of 2 epochs, by each of 2 devices, one for the process without a sample
    assert its_summary["device_samples"] == summary["device_samples"] + 2 * 2
    assert its_summary["device_calls"] == 2 * summary["device_calls"] - 2  # the test: by one process
    # each process has a stream of noise of its own, which it finds again
    streams = [rank["devices"][0]["generator"] for rank in its_checkpoint["pnn"]["ranks"]]
    assert not torch.equal(*streams)
    assert torch.equal(streams[1], stopped["pnn"]["ranks"][1]["devices"][0]["generator"])
    assert torch.equal(streams[0], its_checkpoint["pnn"]["devices"][0]["generator"])


def test_a_mistake_of_all_processes_is_one_mistake() -> None:
    wrong = ["optimizer.lr=1e300", "optimizer.warmup=0", "trainer.devices=2"]
    with pytest.raises(UserError, match=r"^[^\n]*lower optimizer.lr[^\n]*$"):
        train(checked("train", [*RUN, *wrong]))


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("import sys; sys.exit('a bug')", RuntimeError, "process 1 of the run ended with code 1: a bug"),
        ("import os; os.kill(os.getpid(), 9)", UserError, "process 1 of the run was killed by SIGKILL .*ckpt_path="),
        ("import sys; print('noise\\nx=1 must be 2', file=sys.stderr); sys.exit(2)", UserError, "^x=1 must be 2$"),
        ("", None, ""),
    ],
)
def test_a_process_that_died_is_told(code: str, error: type[Exception] | None, words: str) -> None:
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=said, text=True)
        other = Other(1, process, said)
        if error is None:
            other.await_ready()
        else:
            with pytest.raises(error, match=words):
                other.await_ready()


@pytest.mark.parametrize(("samples", "size", "count"), [(10, 4, 2), (10, 3, 3), (7, 5, 4), (9, 8, 2)])
def test_the_parts_of_a_batch_are_the_batch(samples: int, size: int, count: int) -> None:
    x, y = torch.arange(samples, dtype=torch.float32)[:, None], torch.arange(samples)

    def add(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x + torch.rand(x.shape, generator=generator)

    how = {"batch_size": size, "shuffle": True, "seed": 1, "augment": add}
    whole = BatchLoader(x, y, **how)
    parts = [BatchLoader(x, y, **how, rank=rank, ranks=count) for rank in range(count)]
    assert all(len(part) == len(whole) for part in parts)
    for batch, *shares in zip(whole, *parts, strict=True):
        assert all(len(share[1]) for share in shares)
        kept = [(sx, sy) for sx, sy in shares if not (sy == NOBODY).any()]
        assert torch.equal(torch.cat([sx for sx, _ in kept]), batch[0])
        assert torch.equal(torch.cat([sy for _, sy in kept]), batch[1])
    assert all(part.state_dict() == whole.state_dict() for part in parts)


@pytest.mark.parametrize(
    ("overrides", "environment", "words"),
    [
        (["trainer.devices=4", "task.batch_size=3"], {}, ["task.batch_size=3", "4 processes", "trainer.devices=3"]),
        (["trainer.devices=2", "+trainer.num_nodes=2"], {}, ["trainer.num_nodes=2", "srun or torchrun"]),
        (["trainer.devices=2", "+trainer.strategy=ddp_spawn"], {}, ["trainer.strategy=ddp_spawn", "use ddp"]),
        (["trainer.devices=2", "+trainer.strategy=dpp"], {}, ["trainer:", "dpp"]),
        (
            ["trainer.devices=2"],
            {
                "SLURM_NTASKS": "1",
                "SLURM_JOB_NAME": "x",
                "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0",
                "SLURM_NODEID": "0",
            },
            ["= 2", "Slurm started 1", "--ntasks-per-node=2"],
        ),
    ],
)
def test_what_cannot_work_is_refused(
    overrides: list[str], environment: dict, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        train(checked("train", [*RUN, *overrides]))
    for word in words:
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_process_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of(checked("train", RUN)) == Place(0, 1, False)
    two = checked("train", [*RUN, "trainer.devices=2"])
    assert place_of(two) == Place(0, 2, False)
    for name, value in {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert place_of(two) == Place(1, 2, True)


def test_later_processes_have_the_same_device_and_noise_of_their_own() -> None:
    def measured(rank: int) -> tuple[torch.Tensor, SimulatedDevice]:
        device = lab(CoupledOscillators(4, outputs=4), gap=0.3, output_noise=0.1, drift=0.2, seed=1)
        x, theta = torch.full((50, 4), 0.2), [spec.sample(()) for spec in device.system.parameters_spec]
        torch.manual_seed(0)
        theta = [torch.zeros_like(t) for t in theta]
        device.respond(x, *theta)  # before training, as fitting a digital model does
        own_streams([device], rank, seed=0)
        return device.respond(x, *theta), device

    (first, a), (second, b), (again, _), (third, _) = measured(0), measured(1), measured(1), measured(2)
    assert torch.equal(second, again)
    assert len({float(y.flatten()[0]) for y in (first, second, third)}) == 3
    for name in a.system.constants:
        assert torch.equal(getattr(a.system, name), getattr(b.system, name))
    assert (a.ledger.samples, b.ledger.samples) == (100, 50)


def test_the_handlers_of_signals_are_put_back_after_a_mistake() -> None:
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(UserError, match="lower optimizer.lr"):
        module.train(checked("train", [*RUN, "optimizer.lr=1e300", "optimizer.warmup=0"]))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
