"""The scoreboard: the paper's claims (conf/paper.yaml) beside our runs; verdicts follow from the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.reporting.groups import KINDS, Group, differences, kind_of, settings_of
from pnn.reporting.statistics import Estimate, difference

REACHED, MISSED, NOT_SHOWN = "reached", "not reached", "not shown"
NOT_RUN, NO_NUMBER = "not run", "no number to compare"
MARKS = {"paper": "paper", "reference": "reference code", "recall": "recalled, unverified"}
CLAIMS = ("at_least", "at_most", "better_than")


@dataclass(frozen=True)
class Target:
    """One claim: a test accuracy on the device, or being better than another kind of run of the same experiment."""

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
    others: int = 0  # further configurations that fit and were not taken
    changed: dict[str, Any] = field(default_factory=dict)  # settings in which our runs differ from the command's


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


def nearest(one: Group, commands: Sequence[Group]) -> dict[str, Any]:
    """Settings of `one` that differ from the command closest to it, gap included; {} where no command makes its kind."""
    same = [c for c in commands if (c.experiment, c.kind) == (one.experiment, one.kind)]
    return min((differences(one, c, but=()) for c in same), key=len, default={})


def standing(groups: Sequence[Group], commands: Sequence[Group]) -> Group | None:
    """The group that answers a claim: the closest to the commands, then by weight. Accuracy has no say."""
    return max(groups, key=lambda g: (-len(nearest(g, commands)), *g.weight), default=None)


def score(target: Target, groups: Sequence[Group], commands: Sequence[Group] = ()) -> Score:
    """The verdict on `target` from all groups; `commands` are what the claims' commands would run."""
    fitting = [g for g in groups if target.fits(g)]
    wanted = [c for c in commands if target.fits(c)]
    ours = standing(fitting, wanted)
    if ours is None:
        return Score(target, None, None, NOT_RUN, "")
    others, changed = len(fitting) - 1, nearest(ours, wanted)
    against = None
    if target.claim == "better_than":
        rivals = [g for g in groups if (g.experiment, g.kind) == (target.experiment, target.than)]
        against = standing([g for g in rivals if g.device == ours.device] or rivals, commands)
        if against is None:
            return Score(target, ours, None, NOT_RUN, f"no run of: {KINDS[str(target.than)]}", others, changed)
        verdict, why = compared(ours, against)
    else:
        verdict, why = measured(target, ours.on_device)
    count = len(changed)
    if count:
        why += f"; {count} setting{'s differ' if count > 1 else ' differs'} from the command's"
    return Score(target, ours, against, verdict, why.removeprefix("; "), others, changed)


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
    key = "test_accuracy_device"
    gain = difference(ours.values(key), against.values(key))
    text = signed(gain.mean)
    if gain.half is None:
        return NOT_SHOWN, f"{text} points; too few runs for an interval"
    return (REACHED if gain.mean > gain.half else MISSED), f"{text} ± {100 * gain.half:.2f} points"


def signed(fraction: float) -> str:
    """Percentage points with a sign."""
    return f"{100 * fraction:+.2f}".replace("-", "−")
