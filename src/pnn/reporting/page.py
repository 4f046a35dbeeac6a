"""The page: one HTML file that needs nothing else, and the same results as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnn.reporting import figures, tables
from pnn.reporting.folders import Found
from pnn.reporting.groups import Group, by_experiment, representatives
from pnn.reporting.scoreboard import MARKS, MISSED, NO_NUMBER, NOT_RUN, NOT_SHOWN, REACHED, Score
from pnn.reporting.tables import Table

NOTE = (
    "Accuracies are test accuracies, scored once with the parameters of the best validation epoch. ± is the half width of "
    "the 95 % confidence interval (Student t) over n seeds or splits; with n = 1 there is no interval. Only runs that "
    "differ in nothing but their seeds are averaged; of equal seeds the newest counts. Where several configurations fit a "
    "claim, the one closest to its command stands, then the one trained longest, with most seeds, the newest: accuracy has "
    "no say."
)


@dataclass(frozen=True)
class Picture:
    """An embedded image file."""

    caption: str
    data: str


@dataclass(frozen=True)
class Section:
    """One experiment, twin, demo or alignment."""

    title: str
    table: Table
    svgs: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


def embedded(path: Path) -> list[Picture]:
    """A PNG as a data URI; nothing where it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return []
    return [Picture(str(path), f"data:image/png;base64,{base64.b64encode(data).decode()}")]


def experiment_section(name: str, groups: Sequence[Group]) -> Section:
    """Reference table, curves, gap curve and the pictures of its runs."""
    svgs = (figures.curves_figure(name, groups), figures.gap_figure(name, groups))
    shown = representatives(groups)
    pictures = [p for g in groups if g is shown.get(g.kind) for path in first_pictures(g) for p in embedded(path)]
    repeats = sum(g.repeats for g in groups)
    notes = [f"{repeats} older repetitions of the same seeds are not counted."] if repeats else []
    return Section(name, tables.reference_table(groups), tuple(s for s in svgs if s), tuple(pictures), tuple(notes))


def first_pictures(group: Group) -> tuple[Path, ...]:
    """The signals of the first run of `group` that has some: one picture a kind is enough."""
    return next((run.pictures for run in group.runs if run.pictures), ())


def twin_sections(found: Found) -> list[Section]:
    sections = []
    for path, card in found.twins:
        cost = card.get("measurements") or {}
        what = f"{card.get('model', 'twin')} of {card.get('system', 'a device')}"
        notes = [str(v) for v in card.get("verdict", [])]
        if {"fitted", "device_samples"} <= set(cost):
            notes.append(f"fitted to {cost['fitted']:,} measurements; {cost['device_samples']:,} device samples in all")
        pictures = tuple(embedded(path.parent / "card.png"))
        sections.append(Section(f"{what}: {path.parent}", tables.twin_table(card["fits"]), (), pictures, tuple(notes)))
    return sections


def demo_sections(found: Found) -> list[Section]:
    sections = []
    for path, report in found.demos:
        pairs = [(e["gap"], pair) for e in report["gaps"] for pair in e.get("pat_minus", {}).values()]
        notes = [f"gap {gap:g}: {pair['verdict']}" for gap, pair in pairs]
        for name, value in (report.get("references") or {}).items():
            notes.append(f"{name.replace('_', ' ')}: {100 * value:.1f} %")
        pictures = tuple(embedded(path.parent / "demo.png"))
        sections.append(Section(str(path.parent), tables.demo_table(report), (), pictures, tuple(notes)))
    return sections


def alignment_sections(found: Found) -> list[Section]:
    return [
        Section(str(path), tables.alignment_table(report), notes=(f"checkpoint: {report.get('ckpt_path', 'unknown')}",))
        for path, report in found.alignments
    ]


def study_sections(found: Found) -> list[Section]:
    return [
        Section(str(path.parent), tables.study_table(states), (), tuple(embedded(path.parent / "history.png")))
        for path, states in found.studies
    ]


def verdict_counts(scores: Sequence[Score]) -> dict[str, int]:
    return {v: sum(s.verdict == v for s in scores) for v in (REACHED, MISSED, NOT_SHOWN, NOT_RUN, NO_NUMBER)}


def render(scores: Sequence[Score], groups: Sequence[Group], found: Found) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("pnn.reporting", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    content: dict[str, Any] = {
        "note": NOTE,
        "counts": verdict_counts(scores),
        "runs": len(found.runs),
        "seconds": tables.duration(sum(r.summary["wall_seconds"] for r in found.runs)),
        "scoreboard": tables.scoreboard_table(scores),
        "scoreboard_svg": figures.scoreboard_figure(scores),
        "scores": scores,
        "marks": MARKS,
        "settings_text": tables.settings_text,
        "experiments": [experiment_section(name, members) for name, members in by_experiment(groups).items()],
        "twins": twin_sections(found),
        "demos": demo_sections(found),
        "alignments": alignment_sections(found),
        "studies": study_sections(found),
        "problems": tables.problem_table(found),
        "machines": machines(found),
    }
    return environment.get_template("page.html.j2").render(content)


def machines(found: Found) -> list[str]:
    """The machines that the runs name, each once."""
    return sorted({str(r.environment["machine"]) for r in found.runs if "machine" in r.environment})


def changes(score: Score) -> str:
    """How our runs differ from the command of their claim, as a clause."""
    return f"; ours differs by {tables.settings_text(score.changed)}" if score.changed else ""


def markdown(scores: Sequence[Score], groups: Sequence[Group], found: Found) -> str:
    """Scoreboard and reference tables, with the commands."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdict_counts(scores).items() if n)
    seconds = tables.duration(sum(r.summary["wall_seconds"] for r in found.runs))
    parts = [
        "# Results",
        "Generated by `pnn-report`; do not edit.",
        f"{len(found.runs)} runs, {seconds} of training. Machine: {'; '.join(machines(found)) or 'unknown'}.",
        NOTE,
        "## Scoreboard",
        f"Claims: {counts}.",
        tables.scoreboard_table(scores).markdown(),
        "### Commands and sources",
        "\n".join(
            f"- {s.target.title} ({MARKS[s.target.mark]}: {s.target.source}): `{s.target.command}`{changes(s)}"
            for s in scores
        ),
    ]
    if groups:
        parts.append("## What the physical part contributes")
    for name, members in by_experiment(groups).items():
        parts += [f"### {name}", tables.reference_table(members).markdown()]
    if found.problems:
        parts += ["## Runs that were not counted, or not wholly", tables.problem_table(found).markdown()]
    return "\n\n".join(parts) + "\n"
