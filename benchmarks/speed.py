"""Speed as ratios measured in one process: python -m benchmarks.speed [--repeats N] [--batch 32 256] [--out FILE]."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.textbook import Fig3, torchdiffeq_solver
from pnn.build import build
from pnn.config import checked
from pnn.module import PNNModule
from pnn.tasks.loader import BatchLoader
from pnn.train import make_trainer


def main() -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser("benchmarks.speed", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} thread(s) of {os.cpu_count()} cores, {options.repeats} repeats"
    )
    rows = [row for batch in options.batch for row in steps(batch, options.repeats)]
    rows += [overhead(), help_time()]
    print(f"{'':<58}{'baseline':>10}{'pnn':>10}{'ratio':>8}  target")
    for row in rows:
        base = f"{row['baseline_ms']:.1f} ms" if "baseline_ms" in row else ""
        ratio = f"{row['ratio']:.1f}×" if "ratio" in row else ""
        print(f"{row['name']:<58}{base:>10}{row['ms']:>7.1f} ms{ratio:>8}  {target(row)}")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


def target(row: dict[str, Any]) -> str:
    """The target and whether it is met."""
    if "at_least" in row:
        return f">= {row['at_least']}×: {'met' if row['ratio'] >= row['at_least'] else 'MISSED'}"
    if "at_most_ms" in row:
        return f"< {row['at_most_ms']} ms: {'met' if row['ms'] < row['at_most_ms'] else 'MISSED'}"
    return ""


def steps(batch: int, repeats: int) -> list[dict[str, Any]]:
    """Forward and backward of the Fig. 3 network: PAT and in silico against the textbook, in silico against torchdiffeq."""
    x, y = torch.rand(batch, 784), torch.randint(0, 10, (batch,))
    ours, books, solver = network(), Fig3(), Fig3(torchdiffeq_solver)
    for book in (books, solver):
        copy_parameters(ours, book)
    with torch.no_grad():
        truth = books(x[:8], "model")
        for other in (ours(x[:8], "model"), solver(x[:8], "model")):
            difference = float((other - truth).norm() / truth.norm())
            if difference > 1e-3:
                raise SystemExit(f"the formulations disagree by {difference:.1e}; the comparison would mean nothing")
    pat, silico = {32: 10, 256: 6}.get(batch), None
    cases = [
        (f"PAT step, batch {batch}, against the textbook (RK4 × 5)", (books, "pat"), (ours, "train"), pat),
        (f"in-silico step, batch {batch}, against the textbook", (books, "model"), (ours, "model"), silico),
        (f"in-silico step, batch {batch}, against torchdiffeq rk4", (solver, "model"), (ours, "model"), silico),
    ]
    rows = []
    for name, (base, base_via), (mine, via), at_least in cases:
        slow, fast = interleaved(stepper(base, base_via, x, y), stepper(mine, via, x, y), repeats)
        row = {"name": name, "baseline_ms": slow, "ms": fast, "ratio": slow / fast}
        rows.append(row | ({"at_least": at_least} if at_least else {}))
    return rows


def network() -> nn.Module:
    """The network of experiment=fig3_fashion_mnist, its device converged as there."""
    return build(checked("train", ["experiment=fig3_fashion_mnist", "training=pat"])).network


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


class Tiny(nn.Module):
    """A network that costs next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor, via: str) -> Tensor:
        return self.linear(x)


def overhead(count: int = 600) -> dict[str, Any]:
    """Milliseconds per training step outside the network: Lightning, data, logging, callbacks (validation left out)."""
    config = checked(
        "train", [f"trainer.limit_train_batches={count}", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    )
    config["task"]["batch_size"] = 1
    experiment = build(config)
    module = PNNModule(Tiny(), experiment.module.recipe, [], config=config)
    times: list[float] = []
    module.on_train_batch_start = lambda *_: times.append(time.perf_counter())  # type: ignore[assignment,method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        (folder / "checkpoints").mkdir(parents=True)
        trainer, _ = make_trainer(config, folder)
        trainer.fit(module, datamodule=experiment.task)
    whole = statistics.median(b - a for a, b in itertools.pairwise(times))
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
