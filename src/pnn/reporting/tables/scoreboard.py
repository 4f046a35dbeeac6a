"""Claims and verdicts as a table, as the README's digest, and as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from pnn.reporting.scoreboard import MARKS, Score
from pnn.reporting.tables.table import Table, csv_text
from pnn.reporting.text import DASH, accuracy, duration, percent, short

HEADS = [
    "claim",
    "source",
    "target",
    "ours, on the device",
    "n",
    "epochs",
    "verdict",
    "ours − target",
    "wall time",
    "commit",
]


def claim_text(score: Score) -> str:
    """What was claimed, as a number or as a comparison; with its tolerance where the printed digits do not imply it."""
    target = score.target
    if target.claim == "better_than":
        return f"> {target.rival or (target.than or '').replace('_', ' ')}"
    if target.value is None:
        return DASH
    digits = max(0, len(f"{target.value:.4f}".rstrip("0")) - 4)
    number = percent(target.value, digits)
    if target.tolerance > 0.5 * 10 ** -(2 + digits) + 1e-9:
        number = f"{number.removesuffix(' %')} ± {percent(target.tolerance, digits)}"
    return f"{'≤ ' if target.claim == 'at_most' else ''}{number}"


def scoreboard_table(scores: Sequence[Score]) -> Table:
    """One line a claim; commands and sources have a list of their own."""
    rows, classes = [], []
    for score in scores:
        ours = score.ours
        cells = [DASH, "0", DASH, DASH, DASH]
        if ours is not None:
            epochs = DASH if ours.epochs is None else str(ours.epochs)
            cells = [accuracy(ours.on_device), str(ours.on_device.n), epochs]
            cells += [duration(ours.seconds), ", ".join(short(c) for c in ours.commits)]
        seen, n, epochs, seconds, commits = cells
        target = [score.target.title, MARKS[score.target.mark], claim_text(score)]
        rows.append([*target, seen, n, epochs, score.verdict, score.why or DASH, seconds, commits])
        classes.append(score.verdict.replace(" ", "-"))
    return Table(HEADS, rows, classes, frozenset({0, 1, 6, 7, 9}))


def digest_table(scores: Sequence[Score]) -> Table:
    """The scoreboard in five columns."""
    rows = []
    for s in scores:
        seen = (accuracy(s.ours.on_device), str(s.ours.on_device.n)) if s.ours else (DASH, "0")
        rows.append([s.target.title, claim_text(s), *seen, s.verdict])
    return Table(("claim", "target", "ours, on the device", "n", "verdict"), rows, left=frozenset({0, 4}))


def scoreboard_csv(scores: Sequence[Score]) -> str:
    rows = []
    for s in scores:
        t, e = s.target, s.ours.on_device if s.ours else None
        numbers = (e.mean, e.half, e.n) if e else (None, None, 0)
        run = (s.ours.seconds, " ".join(s.ours.commits)) if s.ours else (None, None)
        rows.append(
            (t.title, t.mark, t.claim, t.value, t.tolerance, *numbers, s.verdict, s.why, *run, t.command, t.source)
        )
    heads = (
        "claim mark comparison target tolerance ours half_width_95 n verdict why wall_seconds commits command source"
    )
    return csv_text(heads.split(), rows)
