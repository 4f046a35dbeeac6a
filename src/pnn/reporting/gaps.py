"""Accuracy against the reality gap: series of groups that differ in the gap alone, and what they say in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pnn.reporting.groups import Gain, Group, gain
from pnn.reporting.text import listed, points

MODES = ("pat", "in_silico", "ideal")
#: Where and how close PAT should be to the ideal gradient (the project's claim).
WATCHED, CLOSE = 0.2, 0.01


@dataclass(frozen=True)
class Series:
    """Groups of one kind that differ in device.gap alone, by rising gap."""

    members: tuple[Group, ...]

    @property
    def first(self) -> Group:
        return self.members[0]

    def at(self, gap: float) -> Group | None:
        return next((g for g in self.members if math.isclose(g.gap or 0.0, gap, abs_tol=1e-9)), None)


def gap_series(groups: Sequence[Group]) -> list[Series]:
    """All series of two gaps or more."""
    found: dict[str, list[Group]] = {}
    for one in groups:
        if one.gap is not None:
            rest = {k: v for k, v in one.settings.items() if k != "device.gap"}
            found.setdefault(f"{one.kind} {sorted(rest.items(), key=str)}", []).append(one)
    return [
        Series(tuple(sorted(members, key=lambda g: g.gap or 0.0)))
        for members in found.values()
        if len({g.gap for g in members}) > 1
    ]


def studies(groups: Sequence[Group]) -> list[dict[str, Series]]:
    """Training mode → its series, for every setting (training.* aside) in which two modes or more were run."""
    found: dict[str, dict[str, Series]] = {}
    for series in gap_series(groups):
        if series.first.kind in MODES:
            rest = {k: v for k, v in series.first.settings.items() if not k.startswith(("device.gap", "training."))}
            modes = found.setdefault(str(sorted(rest.items(), key=str)), {})
            other = modes.get(series.first.kind)
            if other is None or len(series.members) > len(other.members):
                modes[series.first.kind] = series
    return [modes for modes in found.values() if len(modes) > 1]


def gains(modes: dict[str, Series], ours: str, against: str) -> list[tuple[float, Gain]]:
    """(gap, accuracy of mode `ours` minus that of `against`) at every gap where both were run."""
    if ours not in modes or against not in modes:
        return []
    both = [(g, modes[against].at(g.gap or 0.0)) for g in modes[ours].members]
    return [(g.gap or 0.0, gain(g, other)) for g, other in both if other is not None]


def sentences(groups: Sequence[Group]) -> list[str]:
    """What the gap curves of one experiment say: where in silico falls behind PAT, and how close PAT is to the ideal."""
    said = []
    for modes in studies(groups):
        behind = gains(modes, "pat", "in_silico")
        if behind:
            said.append(falls_behind(behind))
        said += [closeness(g, found) for g, found in gains(modes, "ideal", "pat") if math.isclose(g, WATCHED)]
    return said


def falls_behind(behind: Sequence[tuple[float, Gain]]) -> str:
    """Where the 95 % interval of PAT − in silico lies above zero, gap by gap."""
    shown = [(g, found) for g, found in behind if found.shown]
    how = f"95 % intervals gap by gap, {behind[0][1].how}"
    if not shown:
        alone = all(found.estimate.half is None for _, found in behind)
        why = "one seed each gives no interval" if alone else how
        return f"In silico falls behind PAT with significance at no gap of {listed([_text(g) for g, _ in behind])} ({why})."
    each = listed([f"{_text(g)} (by {points(found.estimate).lstrip('+')} points)" for g, found in shown])
    rest = [_text(g) for g, found in behind if not found.shown]
    others = f"; at {listed(rest)} no difference is shown" if rest else ""
    return f"In silico falls behind PAT with significance at gap {each}{others} ({how})."


def closeness(gap: float, found: Gain) -> str:
    """Whether PAT is within one point of the ideal gradient: by the mean, and by the whole interval."""
    gain = found.estimate
    near = gain.mean <= CLOSE + 1e-9
    text = f"At gap {_text(gap)} PAT is {'within' if near else 'not within'} 1 point of ideal: ideal − PAT = {points(gain)}"
    if gain.half is None:
        return f"{text} points, one seed each, no interval."
    whole = gain.mean + gain.half <= CLOSE + 1e-9
    reach = "all of the 95 % interval is" if whole else "part of the 95 % interval is not"
    return f"{text} points ({found.how}); {reach}{' within 1 point' if whole else ''}."


def _text(gap: float) -> str:
    return f"{gap:g}"
