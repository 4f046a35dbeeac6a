"""The page: one HTML file that needs nothing else, and the same results as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.reporting import costs, figures, gaps, transfer
from pnn.reporting.folders import Found
from pnn.reporting.groups import Group, by_experiment, representatives
from pnn.reporting.results import Results
from pnn.reporting.scoreboard import MARKS, Score
from pnn.reporting.tables.cards import alignment_table, demo_table, problem_table, study_table, twin_table
from pnn.reporting.tables.costs import inference_table, price_table, training_table
from pnn.reporting.tables.references import reference_table
from pnn.reporting.tables.scoreboard import digest_table, scoreboard_table
from pnn.reporting.tables.table import Table
from pnn.reporting.tables.transfer import transfer_table
from pnn.reporting.text import duration, percent, settings_text

NOTE = (
    "Accuracies are test accuracies, scored once with the parameters of the best validation epoch (of the last epoch where "
    "training.monitor=epoch). ± is the half width of "
    "the 95 % confidence interval (Student t) over n seeds or splits; with n = 1 there is no interval. The seeds of a split are "
    "averaged first, since they share its data: n then counts splits. Random splits overlap, so that an interval over splits is "
    "too narrow, by √(1 + n · test/training data) after Nadeau and Bengio (2003). Differences are "
    "paired over the seeds, devices and splits that both sides have, where these are all of one side's, and Welch's otherwise. "
    "Only runs that differ in "
    "nothing but their seeds are averaged; of equal seeds the newest counts. A claim is answered by runs at the settings of "
    "its command alone, not at a reduced scale; of several the one trained longest, with most seeds, the newest: accuracy "
    "has no say."
)
TRANSFER_NOTE = (
    "Networks trained on a device of gap g, scored on others at a distance d: every constant of that device changed by up to "
    "±d; d = 0 is the device itself. Of every network the mean over the devices at a distance, then mean and 95 % interval "
    "over networks. Tolerance: the largest d up to which the mean "
    "accuracy is within one point of that at d = 0, on the distances that were measured."
)
COST_NOTE = (
    "One inference, records one after the other on one instrument. Parameters in memory are masks, offsets and "
    "digital layers; those in the apparatus (couplings) are set once. MACs done by physics are what a digital computer would "
    "need to compute the device's record at the simulation's resolution. Energies follow from the constants below, most of "
    "them assumed: orders of magnitude, not measurements. An instrument is priced by all that it draws while it records, a "
    "digital network by arithmetic and memory alone, without the rest of its computer. —: an older run folder, or a system "
    "without an absolute scale of time and energy (coupled oscillators)."
)
TWIN_NOTE = (
    "Relative to the spread of the outputs; error² = bias² + noise², so no twin is better than the noise floor. Visited: the "
    "error on inputs that were recorded in a training run. Jacobians against the simulated device's, without its noise."
)
ALIGNMENT_NOTE = (
    "Of each layer's trainable parameters, at the checkpoint's: gradients of every training mode against backpropagation through "
    "the simulated device. At the end of a training they are small, and their directions say less."
)
#: The README's results stand between these.
BEGIN, END = "<!-- results -->", "<!-- /results -->"


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
    says: tuple[str, ...] = ()  # what the numbers say, computed
    more: Table | None = None


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
    pictures = [p for path in first_pictures(groups) for p in embedded(path)]
    repeats = sum(g.repeats for g in groups)
    notes = [f"{repeats} older repetitions of the same seeds are not counted."] if repeats else []
    says = tuple(gaps.sentences(groups))
    return Section(name, reference_table(groups), tuple(s for s in svgs if s), tuple(pictures), tuple(notes), says)


def first_pictures(groups: Sequence[Group]) -> list[Path]:
    """The signals of one run a kind: of the group that stands for it where that has some, else of any other."""
    shown = representatives(groups)
    found: dict[str, tuple[Path, ...]] = {}
    for one in sorted(groups, key=lambda g: g is not shown.get(g.kind)):
        pictures = next((run.pictures for run in one.runs if run.pictures), ())
        if pictures:
            found.setdefault(one.kind, pictures)
    return [path for paths in found.values() for path in paths]


def twin_sections(found: Found) -> list[Section]:
    sections = []
    for path, card in found.twins:
        cost = card.get("measurements") or {}
        what = f"{card.get('model', 'twin')} of {card.get('system', 'a device')}"
        notes = [str(v) for v in card.get("verdict", [])]
        for name, curve in (card.get("learning_curve") or {}).items():
            errors = ", ".join(f"{percent(p['error'], 1)} ({p['measurements']:,})" for p in curve)
            notes.append(f"error of {name} by number of measurements: {errors}")
        if {"fitted", "device_samples"} <= set(cost):
            notes.append(f"fitted to {cost['fitted']:,} measurements; {cost['device_samples']:,} device samples in all")
        if command := (card.get("environment") or {}).get("command"):
            notes.append(f"command: {command}")
        pictures = tuple(embedded(path.parent / "card.png"))
        sections.append(Section(f"{what}: {path.parent}", twin_table(card["fits"]), (), pictures, tuple(notes)))
    return sections


def demo_sections(found: Found) -> list[Section]:
    sections = []
    for path, report in found.demos:
        pairs = [(e["gap"], pair) for e in report["gaps"] for pair in e.get("pat_minus", {}).values()]
        notes = [f"gap {gap:g}: {pair['verdict']}" for gap, pair in pairs]
        for name, value in (report.get("references") or {}).items():
            notes.append(f"{name.replace('_', ' ')}: {100 * value:.1f} %")
        pictures = tuple(embedded(path.parent / "demo.png"))
        sections.append(Section(str(path.parent), demo_table(report), (), pictures, tuple(notes)))
    return sections


def alignment_sections(found: Found) -> list[Section]:
    return [
        Section(str(path), alignment_table(report), notes=(f"checkpoint: {report.get('ckpt_path', 'unknown')}",))
        for path, report in found.alignments
    ]


def study_sections(found: Found) -> list[Section]:
    return [
        Section(str(path.parent), study_table(states), (), tuple(embedded(path.parent / "history.png")))
        for path, states in found.studies
    ]


def transfer_sections(groups: Sequence[Group]) -> list[Section]:
    return [
        Section(
            f"{matrix.experiment}, {matrix.label}",
            transfer_table(matrix),
            (figures.transfer_figure(matrix),),
            says=tuple(transfer.sentences(matrix)),
        )
        for matrix in transfer.matrices(groups)
    ]


def cost_sections(groups: Sequence[Group], rate: costs.Prices) -> list[Section]:
    sections = []
    for name, members in by_experiment(groups).items():
        table, said = inference_table(members, rate), costs.equal_accuracy(members, rate)
        if table.rows:
            training = training_table(members, rate)
            says = (said,) if said else ()
            sections.append(Section(name, table, says=says, more=training if training.rows else None))
    return sections


def render(results: Results) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("pnn.reporting", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found, groups = results.found, results.groups
    content: dict[str, Any] = {
        "note": NOTE,
        "transfer_note": TRANSFER_NOTE,
        "cost_note": COST_NOTE,
        "twin_note": TWIN_NOTE,
        "alignment_note": ALIGNMENT_NOTE,
        "counts": results.counts,
        "answered": results.answered,
        "runs": len(results.runs),
        "seconds": duration(results.seconds),
        "scoreboard": scoreboard_table(results.scores),
        "scoreboard_svg": figures.scoreboard_figure(results.scores),
        "scores": results.scores,
        "marks": MARKS,
        "experiments": [experiment_section(name, members) for name, members in by_experiment(groups).items()],
        "transfers": transfer_sections(groups),
        "costs": cost_sections(groups, results.rate),
        "energy_svg": figures.energy_figure(
            [line for members in by_experiment(groups).values() for line in costs.sheet(members, results.rate)]
        ),
        "prices": price_table(results.rate),
        "twins": twin_sections(found),
        "demos": demo_sections(found),
        "alignments": alignment_sections(found),
        "studies": study_sections(found),
        "problems": problem_table(found),
        "machines": results.machines,
    }
    return environment.get_template("page.html.j2").render(content)


def younger(score: Score) -> str:
    """Settings of the command that are younger than our runs, as a clause."""
    return f"; ours was run before {settings_text(score.younger)} came" if score.younger else ""


def bullets(says: Sequence[str]) -> list[str]:
    """A Markdown list, where there is something to say."""
    return ["\n".join(f"- {s}" for s in says)] if says else []


def markdown(results: Results) -> str:
    """Scoreboard, reference tables, transfer matrices, cost sheet, twins, demos and alignments, with the commands."""
    scores, groups, found = results.scores, results.groups, results.found
    counts = ", ".join(f"{n} {verdict}" for verdict, n in results.counts.items() if n)
    parts = [
        "# Results",
        "Generated by `pnn-report`; do not edit.",
        f"{len(results.runs)} runs, {duration(results.seconds)} of training. "
        f"Machine: {'; '.join(results.machines) or 'unknown'}.",
        NOTE,
        "## Scoreboard",
        f"Claims: {counts}.",
        scoreboard_table(scores).markdown(),
        "### Commands and sources",
        "\n".join(
            f"- {s.target.title} ({MARKS[s.target.mark]}: {s.target.source}): `{s.target.command}`{younger(s)}"
            for s in scores
        ),
    ]
    if groups:
        parts.append("## What the physical part contributes")
    for name, members in by_experiment(groups).items():
        parts += [f"### {name}", reference_table(members).markdown(), *bullets(gaps.sentences(members))]
    if matrices := transfer.matrices(groups):
        parts += ["## Transfer to other devices", TRANSFER_NOTE]
        for matrix in matrices:
            parts += [f"### {matrix.experiment}, {matrix.label}", transfer_table(matrix).markdown()]
            parts += bullets(transfer.sentences(matrix))
    if sections := cost_sections(groups, results.rate):
        parts += ["## Cost sheet", COST_NOTE]
        for section in sections:
            parts += [f"### {section.title}: one inference", section.table.markdown(), *bullets(section.says)]
            parts += [f"### {section.title}: training", section.more.markdown()] if section.more else []
        parts += ["### Constants", price_table(results.rate).markdown()]
    for title, note, sections in (
        ("Digital twins", TWIN_NOTE, twin_sections(found)),
        ("Demo", None, demo_sections(found)),
        ("Gradients against the ideal one", ALIGNMENT_NOTE, alignment_sections(found)),
    ):
        parts += [f"## {title}", *filter(None, [note])] if sections else []
        for section in sections:
            parts += [f"### {section.title}", section.table.markdown(), *bullets(section.notes)]
    if found.problems:
        parts += ["## Runs that were not counted, or not wholly", problem_table(found).markdown()]
    return "\n\n".join(parts) + "\n"


def with_digest(path: Path, results: Results) -> str:
    """The text of `path` with the scoreboard's digest between its markers. Raises UserError where they are missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"--readme {path} cannot be read ({error})") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise UserError(
            f"--readme {path} needs {BEGIN} and, after it, {END}, each once; put them where the table belongs"
        )
    return f"{before}{begin}\n{digest_table(results.scores).markdown()}\n{end}{after}"
