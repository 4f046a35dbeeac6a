"""Networks trained on devices of one gap, scored on others at a distance from these: a matrix, and what it says of the claim.

The claim (paper): a network trained with a gap g tolerates devices that differ by g. A network tolerates a distance while
its accuracy there stays within one point of its own at distance 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from pnn.reporting.folders import Run
from pnn.reporting.groups import Group
from pnn.reporting.statistics import Estimate, estimate, paired
from pnn.reporting.text import listed, points

TOLERATED = 0.01
EQUAL, MORE, LESS, OPEN = "equal to g", "more than g", "less than g", "cannot be told"


def tolerated(seen: Mapping[float, float]) -> float:
    """Distance → mean accuracy, that at 0 among them: the largest distance up to which it is within one point of that."""
    inside = takewhile(lambda distance: seen[0.0] - seen[distance] <= TOLERATED + 1e-9, sorted(seen))
    return max(inside)


@dataclass(frozen=True)
class Row:
    """One trained gap: distance → accuracy of every network (mean over the devices at that distance), in one order."""

    gap: float
    seen: dict[float, list[float]]

    @property
    def distances(self) -> list[float]:
        return sorted(self.seen)

    def at(self, distance: float) -> Estimate | None:
        """Mean and 95 % interval over networks."""
        return estimate(self.seen[distance]) if distance in self.seen else None

    def drop(self, distance: float) -> Estimate:
        """Accuracy at distance 0 minus that at `distance`, network by network."""
        return paired(self.seen[0.0], self.seen[distance])

    @property
    def tolerance(self) -> float | None:
        """How far its mean accuracy stays within one point of that at 0; None where 0 was not measured."""
        if 0.0 not in self.seen:
            return None
        return tolerated({distance: estimate(values).mean for distance, values in self.seen.items()})

    @property
    def verdict(self) -> str:
        """Tolerance against training gap, on the grid of measured distances."""
        tolerance = self.tolerance
        if tolerance is None:
            return OPEN
        within = max(d for d in self.seen if d <= self.gap + 1e-9)
        if tolerance < within:
            return LESS
        if tolerance > within:
            return MORE
        return EQUAL if any(d > within for d in self.seen) else OPEN


@dataclass
class Matrix:
    """One experiment and kind of training: a row a trained gap."""

    experiment: str
    label: str
    rows: list[Row] = field(default_factory=list)

    @property
    def distances(self) -> list[float]:
        return sorted({d for row in self.rows for d in row.seen})


def matrices(groups: Sequence[Group]) -> list[Matrix]:
    """All transfer studies; rows that differ in more than the gap get matrices of their own."""
    found: dict[str, Matrix] = {}
    for one in groups:
        runs = [run for run in one.runs if run.transfer is not None]
        if not runs:
            continue
        rest = {k: v for k, v in one.settings.items() if k != "device.gap"}
        key = f"{one.experiment} {one.kind} {sorted(rest.items(), key=str)}"
        found.setdefault(key, Matrix(one.experiment, one.label)).rows += rows_of(runs)
    for matrix in found.values():
        matrix.rows.sort(key=lambda row: row.gap)
    return list(found.values())


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """A row a trained gap, over the distances at which every one of its networks was scored."""
    gaps: dict[float, list[dict[float, list[float]]]] = {}
    for run in runs:
        scores: dict[float, list[float]] = {}
        for row in (run.transfer or {})["rows"]:
            scores.setdefault(float(row["distance"]), []).append(float(row["accuracy"]))
        gaps.setdefault(float((run.transfer or {})["trained_gap"]), []).append(scores)
    rows = []
    for gap, networks in gaps.items():
        shared = set.intersection(*(set(scores) for scores in networks))
        seen = {d: [sum(scores[d]) / len(scores[d]) for scores in networks] for d in sorted(shared)}
        if seen:
            rows.append(Row(gap, seen))
    return rows


def sentences(matrix: Matrix) -> list[str]:
    """The verdict on the claim, then each row's tolerance with the drop there and at the next distance."""
    told = [row for row in matrix.rows if row.verdict != OPEN]
    if not told:
        return ["Whether tolerance equals the training gap cannot be told: no distance beyond it, or none of 0."]
    counts = {verdict: [f"{r.gap:g}" for r in told if r.verdict == verdict] for verdict in (EQUAL, MORE, LESS)}
    parts = [f"{verdict} at g = {listed(gaps)}" for verdict, gaps in counts.items() if gaps]
    tolerances = {row.tolerance for row in told}
    if len(counts[EQUAL]) == len(told):
        holds = "holds"
    elif len(told) > 1 and len(tolerances) == 1:
        holds = f"does not hold, since the tolerance is {told[0].tolerance:g} whatever the gap"
    else:
        holds = "holds in part" if counts[EQUAL] else "does not hold"
    said = [f"The claim that tolerance equals the training gap {holds}: it is {'; '.join(parts)}."]
    return said + [tolerance_text(row) for row in matrix.rows if row.tolerance is not None]


def tolerance_text(row: Row) -> str:
    tolerance = row.tolerance or 0.0
    inside = f" ({fall(row, tolerance)})" if tolerance else ""
    beyond = [d for d in row.distances if d > tolerance]
    after = f"; at {beyond[0]:g} the drop is {fall(row, beyond[0])}" if beyond else ", the largest that was measured"
    return (
        f"Trained at g = {row.gap:g}: within 1 point of its accuracy at 0 up to distance {tolerance:g}{inside}{after}."
    )


def fall(row: Row, distance: float) -> str:
    return f"{points(row.drop(distance)).lstrip('+')} points"
