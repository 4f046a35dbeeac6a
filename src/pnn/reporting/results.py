"""Everything a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pnn.reporting.costs import Prices
from pnn.reporting.folders import Found, Run
from pnn.reporting.groups import Group
from pnn.reporting.scoreboard import MISSED, NO_NUMBER, NOT_RUN, NOT_SHOWN, REACHED, Score


@dataclass(frozen=True)
class Results:
    """The claims' verdicts, all groups of runs, what else lies in the folders, and the prices of the cost sheet."""

    scores: Sequence[Score]
    groups: Sequence[Group]
    found: Found
    rate: Prices

    @property
    def counts(self) -> dict[str, int]:
        """Verdict → number of claims."""
        verdicts = (REACHED, MISSED, NOT_SHOWN, NOT_RUN, NO_NUMBER)
        return {v: sum(s.verdict == v for s in self.scores) for v in verdicts}

    @property
    def answered(self) -> bool:
        """Whether any run answers a claim; runs of a reduced scale do not."""
        return any(s.ours is not None for s in self.scores)

    @property
    def runs(self) -> list[Run]:
        """The runs that are counted: of equal seeds the newest."""
        return [run for group in self.groups for run in group.runs]

    @property
    def machines(self) -> list[str]:
        """The machines that the runs name, each once."""
        return sorted({str(r.environment["machine"]) for r in self.runs if "machine" in r.environment})

    @property
    def seconds(self) -> float:
        """Wall time of the runs that are counted."""
        return sum(float(r.summary["wall_seconds"]) for r in self.runs)
