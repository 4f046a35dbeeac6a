"""The scoreboard: the paper's claims (conf/paper.yaml) beside our runs; verdicts follow from the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.reporting.groups import KINDS, Group, differences, gain, kind_of, settings_of
from pnn.reporting.statistics import Estimate
from pnn.reporting.text import points, settings_text, signed

REACHED, MISSED, NOT_SHOWN = "reached", "not reached", "not shown"
NOT_RUN, NO_NUMBER = "not run", "no number to compare"
MARKS = {"paper": "paper", "reference": "reference code", "recall": "recalled, unverified", "own": "own question"}
CLAIMS = ("at_least", "at_most", "better_than")


@dataclass(frozen=True)
class Target:
    """One claim: a test accuracy on the device, or being better than another kind of run, of `rival` or the same experiment."""

    title: str
    mark: str
    source: str
    experiment: str
    kind: str
    command: str
    value: float | None = None
    tolerance: float = 0.0
    claim: str = "at_least"
    than: str | None = None
    rival: str | None = None
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = (self.kind, self.than) if self.claim == "better_than" else (self.kind,)
        for value, allowed in ((self.mark, MARKS), (self.claim, CLAIMS), *((kind, KINDS) for kind in kinds)):
            if value not in allowed:
                raise ValueError(f"{self.title}: {value} must be one of {', '.join(allowed)}")

    def fits(self, group: Group) -> bool:
        """Whether the runs of `group` answer this claim."""
        return (
            (group.experiment, group.kind) == (self.experiment, self.kind)
            and all(group.settings.get(key) == value for key, value in self.config.items())
        )  # fmt: skip


@dataclass(frozen=True)
class Score:
    """A claim, the runs that answer it (None: not run), the verdict, and the numbers behind it as a sentence."""

    target: Target
    ours: Group | None
    against: Group | None
    verdict: str
    why: str
    others: int = 0  # further configurations of the same kind and gap that were not taken
    younger: dict[str, Any] = field(default_factory=dict)  # settings of the command that came after our runs


def targets(path: Path) -> list[Target]:
    """The claims in `path`. Raises UserError for a file that cannot be understood."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
        return [Target(**entry) for entry in content["targets"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error


def commanded(claims: Sequence[Target]) -> list[Group]:
    """What the commands of `claims` run now, as groups without runs; of a grid of seeds the first."""
    from pnn.config import compose, plain

    groups = []
    for command in dict.fromkeys(c.command for c in claims):
        name, *words = command.split()
        if name == "pnn-train":
            config = plain(compose("train", [word.partition(",")[0] for word in words if word != "-m"]))
            groups.append(Group(config["name"], kind_of(config), settings_of(config), ()))
    return groups


def nearest(one: Group, commands: Sequence[Group]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How `one` departs from the command closest to it: (settings that differ, settings that came after its runs).

    A setting that the command has and the runs' configuration does not know is younger than the runs; everything else
    that differs, gap, epochs and sizes included, is another experiment. ({}, {}) where no command makes its kind.
    """
    same = [c for c in commands if (c.experiment, c.kind) == (one.experiment, one.kind)]
    found = min((differences(one, c, but=()) for c in same), key=len, default={})
    younger = {key: value for key, value in found.items() if value is None and not knows(one, key)}
    return {key: value for key, value in found.items() if key not in younger}, younger


def knows(one: Group, key: str) -> bool:
    """Whether the runs' configuration has `key`, if only as null."""
    node: Any = one.runs[0].config if one.runs else {}
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def standing(groups: Sequence[Group], commands: Sequence[Group]) -> Group | None:
    """The group that answers a claim: as the commands say, the closest to them, then by weight. Accuracy has no say."""
    as_said = [g for g in groups if not nearest(g, commands)[0]]
    return max(as_said, key=lambda g: (-len(nearest(g, commands)[1]), *g.weight), default=None)


def score(target: Target, groups: Sequence[Group], commands: Sequence[Group] = ()) -> Score:
    """The verdict on `target` from all groups; `commands` are what the claims' commands would run.

    Runs at other settings than the command's (a smoke or quick scale, say) do not answer a claim.
    """
    fitting = [g for g in groups if target.fits(g)]
    wanted = [c for c in commands if target.fits(c)]
    ours = standing(fitting, wanted)
    if ours is None:
        return Score(target, None, None, NOT_RUN, only_otherwise(fitting, wanted), len(fitting))
    others, younger = len(fitting) - 1, nearest(ours, wanted)[1]
    against = None
    if target.claim == "better_than":
        against_whom = (target.rival or target.experiment, target.than)
        rivals = [g for g in groups if (g.experiment, g.kind) == against_whom]
        against = standing([g for g in rivals if g.device == ours.device] or rivals, commands)
        if against is None:
            why = only_otherwise(rivals, commands) or "none"
            return Score(target, ours, None, NOT_RUN, f"{KINDS[str(target.than)]}: {why}", others, younger)
        verdict, why = compared(ours, against)
    else:
        verdict, why = measured(target, ours.on_device)
    if younger:
        why += f"; run before {', '.join(younger)} came"
    return Score(target, ours, against, verdict, why.removeprefix("; "), others, younger)


def only_otherwise(groups: Sequence[Group], commands: Sequence[Group]) -> str:
    """What sets the closest of `groups` apart from the command; empty without groups."""
    changed = min((nearest(g, commands)[0] for g in groups), key=len, default={})
    return f"only with {settings_text(changed)}" if changed else ""


def measured(target: Target, ours: Estimate) -> tuple[str, str]:
    """at_least: mean ≥ value − tolerance; at_most: mean ≤ value + tolerance."""
    if target.value is None:
        return NO_NUMBER, ""
    sign = -1 if target.claim == "at_most" else 1
    reached = sign * (ours.mean - target.value) >= -target.tolerance - 1e-9  # float32 accuracies
    gap = f"{signed(ours.mean - target.value)} points"
    if ours.half is None:
        return (REACHED if reached else MISSED), f"{gap}; one run, no interval"
    inside = abs(ours.mean - target.value) <= ours.half
    return (REACHED if reached else MISSED), f"{gap}; target {'inside' if inside else 'outside'} the 95 % interval"


def compared(ours: Group, against: Group) -> tuple[str, str]:
    """better_than: the 95 % interval of the difference lies above zero; single runs show nothing either way."""
    found = gain(ours, against)
    if found.estimate.half is None:
        return NOT_SHOWN, f"{points(found.estimate)} points; too few runs for an interval"
    return (REACHED if found.shown else MISSED), f"{points(found.estimate)} points, {found.how}"
