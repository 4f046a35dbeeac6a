"""Speed as ratios measured in one process: python -m benchmarks.speed [--quick] [--batch 32 256] [--out FILE].

Baseline and pnn are timed in turn and compared by their medians. Training steps are forward and backward, without the
optimiser.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.textbook import Fig3, torchdiffeq_solver
from pnn.build import build
from pnn.config import checked
from pnn.memory import keep_freed_memory
from pnn.module import PNNModule
from pnn.systems import SHG, ElectronicOscillator, OscillatingPlate
from pnn.tasks.loader import BatchLoader
from pnn.train import make_trainer

#: Formulations that differ by more than this (relative, logits of the digital model) are not compared.
TOLERANCE = 1e-3
#: The same for bfloat16 products, which carry three digits.
TOLERANCE_BFLOAT16 = 5e-3
#: Digital models: one that agrees with the textbook's in float32, the same with bfloat16 products, the experiment's.
AS_THE_TEXTBOOK = ("system.scheme=nystrom4", "system.steps=1", "system.products=float32")
LESS_PRECISE = (*AS_THE_TEXTBOOK[:2], "system.products=bfloat16")
AS_THE_EXPERIMENT = ("system.scheme=leapfrog", "system.steps=4", "system.products=bfloat16")
#: The least ratio of a PAT step against the textbook, by batch size.
PAT_TARGETS = {32: 10, 256: 6}


def main() -> None:
    """Measure, print the table, write JSON."""
    options = arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    setting = {
        "torch": torch.__version__,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "repeats": options.repeats,
        "device_steps": options.device_steps,
    }
    print(", ".join(f"{name} {value}" for name, value in setting.items()), flush=True)
    rows = [row for batch in options.batch for row in steps(batch, options.repeats, options.device_steps)]
    rows += device_calls(options.repeats)
    rows += [overhead(epochs=5 if options.quick else 20), help_time()]
    print(f"{'':<58}{'baseline':>10}{'pnn':>10}{'ratio':>8}  target")
    for row in rows:
        base = f"{row['baseline_ms']:.1f} ms" if "baseline_ms" in row else ""
        ratio = f"{row['ratio']:.1f}×" if "ratio" in row else ""
        print(f"{row['name']:<58}{base:>10}{row['ms']:>7.1f} ms{ratio:>8}  {target(row)}")
    if options.out:
        options.out.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The command line; --quick lowers what was not given."""
    parser = argparse.ArgumentParser("benchmarks.speed", description=__doc__)
    parser.add_argument("--repeats", type=positive, help="timed repeats of each step (15; 3 with --quick)")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--batch", type=positive, nargs="+", help="batch sizes (32 256; 32 with --quick)")
    parser.add_argument("--device-steps", type=positive, default=12, help="leapfrog steps of the device (12)")
    parser.add_argument("--quick", action="store_true", help="batch 32 and few repeats")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    options.repeats = options.repeats or (3 if options.quick else 15)
    options.batch = options.batch or ([32] if options.quick else [32, 256])
    return options


def positive(text: str) -> int:
    """A whole number >= 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be >= 1")
    return value


def target(row: dict[str, Any]) -> str:
    """The target and whether it is met."""
    if "at_least" in row:
        return f">= {row['at_least']}×: {'met' if row['ratio'] >= row['at_least'] else 'MISSED'}"
    if "at_most_ms" in row:
        return f"< {row['at_most_ms']} ms: {'met' if row['ms'] < row['at_most_ms'] else 'MISSED'}"
    return ""


def steps(batch: int, repeats: int, device_steps: int) -> list[dict[str, Any]]:
    """Forward and backward of the Fig. 3 network: PAT and in silico against the textbook, in silico against torchdiffeq.

    The textbook rebuilds the coupling matrix in every right-hand side, torchdiffeq's user once per pass.
    """
    x, y = torch.rand(batch, 784), torch.randint(0, 10, (batch,))
    ours, books, solver = network(device_steps), Fig3(), Fig3(torchdiffeq_solver)
    coarse, finer = network(device_steps, LESS_PRECISE), network(device_steps, AS_THE_EXPERIMENT)
    for book in (books, solver):
        copy_parameters(ours, book)
    for net in (coarse, finer):
        net.load_state_dict(ours.state_dict())
    compared = (
        ("pnn", ours, TOLERANCE),
        ("pnn in bfloat16", coarse, TOLERANCE_BFLOAT16),
        ("torchdiffeq", solver, TOLERANCE),
    )
    for name, other, tolerance in compared:
        difference = disagreement(other, books, x, tolerance)
        print(f"batch {batch}: logits of {name} and textbook differ by {difference:.1e}", flush=True)
    cases = [
        ("PAT step, batch {}, against the textbook (RK4 × 5)", (books, "pat"), (ours, "train"), None),
        (
            "PAT step, batch {}, bfloat16 products in the model",
            (books, "pat"),
            (coarse, "train"),
            PAT_TARGETS.get(batch),
        ),
        ("PAT step, batch {}, the same, model leapfrog × 4", (books, "pat"), (finer, "train"), None),
        ("in-silico step, batch {}, against the textbook", (books, "model"), (ours, "model"), None),
        ("in-silico step, batch {}, against torchdiffeq rk4", (solver, "model"), (ours, "model"), None),
    ]
    rows = []
    for name, (base, base_via), (mine, via), at_least in cases:
        slow, fast = interleaved(stepper(base, base_via, x, y), stepper(mine, via, x, y), repeats)
        row = {"name": name.format(batch), "baseline_ms": slow, "ms": fast, "ratio": slow / fast}
        rows.append(row | ({"at_least": at_least} if at_least else {}))
    return rows


def disagreement(net: nn.Module, truth: nn.Module, x: Tensor, tolerance: float) -> float:
    """Relative difference of the digital models' logits; refuses to compare the speed of different functions."""
    with torch.no_grad():
        expected = truth(x, "model")
        difference = float((net(x, "model") - expected).norm() / expected.norm())
    if not difference <= tolerance:
        raise SystemExit(f"the formulations disagree by {difference:.1e}; the comparison would mean nothing")
    return difference


def network(device_steps: int, model: Sequence[str] = ()) -> nn.Module:
    """The network of experiment=fig3_fashion_mnist with PAT, its device at `device_steps` leapfrog steps.

    Its digital model by the Nyström scheme in float32, which agrees with the textbook's RK4 × 5, unless overrides say
    otherwise.
    """
    device = ["experiment=fig3_fashion_mnist", "training=pat", f"system.device_steps={device_steps}"]
    return build(checked("train", [*device, *(model or AS_THE_TEXTBOOK)])).network


def copy_parameters(ours: Any, book: Fig3) -> None:
    """The same couplings and drives in both formulations."""
    with torch.no_grad():
        for mine, theirs in ((ours.shared, book.shared), (ours.last, book.last)):
            theirs.C.copy_(mine.coupling)
            theirs.e.copy_(mine.drive)


def stepper(net: nn.Module, via: str, x: Tensor, y: Tensor) -> Callable[[], None]:
    """One training step without the optimiser."""

    def step() -> None:
        net.zero_grad(set_to_none=True)
        functional.cross_entropy(net(x, via), y).backward()

    return step


def interleaved(a: Callable[[], None], b: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Median milliseconds of a and b, called in turn so that the machine's drift meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for run, kept in zip((a, b), times, strict=True):
            start = time.perf_counter()
            run()
            if repeat:  # the first is a warm-up
                kept.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


#: Most milliseconds of one call on 256 records: system, its options, drive length → limit.
CALLS = (
    ("plate, linear", OscillatingPlate, {"hardening": math.inf}, 196, 5),
    ("plate, with the suspension's cubic", OscillatingPlate, {}, 196, 25),
    ("circuit", ElectronicOscillator, {}, 196, 40),
    ("second-harmonic generation", SHG, {}, 100, 50),
)


def device_calls(repeats: int, batch: int = 256) -> list[dict[str, Any]]:
    """One call of each converged device; the time-series ones also at a quarter and at four times the record length."""
    rows = []
    for name, kind, options, length, limit in CALLS:
        lengths = (length,) if kind is SHG else (length // 4, length, 4 * length)
        for inputs in lengths:
            device = kind(inputs, inputs, **options).converged()
            low, high = device.input_range
            x = low + (high - low) * torch.rand(batch, device.input_size)
            row = {"name": f"device call, {name}, {batch} × {device.input_size}", "ms": call_time(device, x, repeats)}
            rows.append(row | ({"at_most_ms": limit} if inputs == length else {}))
    return rows


def call_time(system: nn.Module, x: Tensor, repeats: int) -> float:
    """Median milliseconds of one call, after a first one."""
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            system(x)
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])


class Tiny(nn.Module):
    """A network that costs next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor, via: str) -> Tensor:
        return self.linear(x)


def overhead(epochs: int) -> dict[str, Any]:
    """Milliseconds per training step outside the network: Lightning, data, logging, callbacks (validation left out).

    The median over epochs of the mean step, so that what happens every so many steps counts.
    """
    config = checked(
        "train",
        ["task=digits", "task.batch_size=32", f"trainer.max_epochs={epochs}", "trainer.enable_progress_bar=false"],
    )
    experiment = build(config)
    module = PNNModule(Tiny(), experiment.module.recipe, [], config=config)
    starts: dict[int, list[float]] = {}

    def started(*_: Any) -> None:
        starts.setdefault(module.current_epoch, []).append(time.perf_counter())

    module.on_train_batch_start = started  # type: ignore[assignment,method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        (folder / "checkpoints").mkdir(parents=True)
        trainer, _ = make_trainer(config, folder)
        trainer.fit(module, datamodule=experiment.task)
    whole = statistics.median((times[-1] - times[0]) / (len(times) - 1) for times in starts.values())
    bare = bare_step(experiment.task.train_dataloader())
    return {"name": "overhead per step (Lightning, data, logging)", "ms": 1e3 * (whole - bare), "at_most_ms": 2}


def bare_step(loader: BatchLoader) -> float:
    """Median seconds of the same network's own step: forward, backward, optimiser."""
    net = Tiny()
    optimiser = torch.optim.Adam(net.parameters(), fused=True)
    x, y = next(iter(loader))
    times = []
    for _ in range(300):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        functional.cross_entropy(net(x, "train"), y).backward()
        optimiser.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def help_time() -> dict[str, Any]:
    """Milliseconds of `pnn-train --help`, median of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pnn.train", "--help"], check=True, capture_output=True)
        times.append(1e3 * (time.perf_counter() - start))
    return {"name": "pnn-train --help", "ms": statistics.median(times), "at_most_ms": 4000}


if __name__ == "__main__":
    main()
