"""How far a grid of runs is, and how long it will still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from pnn.sweeps import runs
from pnn.sweeps.grid import Point


class Progress:
    """A bar over all points; without a terminal, a line for every point that has ended.

    `cost` says what a point costs compared with the others (in any unit); without it, its epochs.
    """

    def __init__(self, points: Sequence[Point], cost: Callable[[Point], float] | None = None):
        from tqdm import tqdm

        self.points, self.start = points, time.monotonic()
        self.epochs = {p.folder: int(p.config["trainer"]["max_epochs"]) for p in points}
        self.cost = {p.folder: cost(p) if cost else float(self.epochs[p.folder]) for p in points}
        self.total = sum(self.cost.values())
        self.seen = {p.folder for p in points if runs.finished(p)}
        self.before = self.done()
        self.lines = not sys.stderr.isatty()
        if self.seen:
            print(f"{len(self.seen)} of {len(points)} runs are finished already", flush=True)
        shape = "{l_bar}{bar}| [{elapsed}, {postfix}]"
        self.bar = tqdm(total=self.total, initial=self.before, disable=self.lines, leave=False, bar_format=shape)

    def done(self) -> float:
        """The cost of what has been trained."""
        return sum(self.cost[p.folder] * (1.0 if p.folder in self.seen else self._part(p)) for p in self.points)

    def _part(self, point: Point) -> float:
        """The part of a point's epochs that has been trained."""
        try:
            rows = (point.folder / "metrics.csv").read_text().count("\n") - 1
        except OSError:
            return 0.0
        return min(1.0, max(0, rows) / self.epochs[point.folder])

    def show(self) -> None:
        new = [p for p in self.points if p.folder not in self.seen and (runs.finished(p) or _failed(p))]
        self.seen |= {p.folder for p in new}
        left = self.left(self.done())
        self.bar.n = self.done()
        self.bar.set_postfix_str(f"{len(self.seen)}/{len(self.points)} runs, {left}")
        for number, point in enumerate(new if self.lines else (), len(self.seen) - len(new) + 1):
            print(f"{number}/{len(self.points)} {_outcome(point)}; {left}", flush=True)

    def left(self, done: float) -> str:
        """The time left, from what has been done since the start."""
        rate = (done - self.before) / max(time.monotonic() - self.start, 1e-9)
        if len(self.seen) == len(self.points):
            return "all done"
        return f"about {duration((self.total - done) / rate)} left" if rate > 0 else "time left unknown"

    def close(self) -> None:
        self.bar.close()


def _failed(point: Point) -> bool:
    return runs.claims_of(point).failure(point.name) is not None


def _outcome(point: Point) -> str:
    from pnn.sweeps.table import summary

    name, reason = f"{point.folder.parent.name}/{point.name}", runs.claims_of(point).failure(point.name)
    if reason is not None:
        return f"{name}: failed, {reason}"
    found = summary(point)
    return f"{name}: {found['test_accuracy_device']:.2%} on the device, {found['wall_seconds']:.0f} s"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
