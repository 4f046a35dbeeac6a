"""Tables: the same rows for the page, for CSV (numbers) and for Markdown (text)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pnn.reporting.folders import Found, Run
from pnn.reporting.groups import Group, bases, differences, kind_of, replica, representatives
from pnn.reporting.scoreboard import MARKS, Score
from pnn.reporting.statistics import Estimate, estimate

DASH = "—"
#: Settings that a table names before it says "and n more".
NAMED = 4


@dataclass(frozen=True)
class Table:
    """Rows of text with their heads. `classes` are one word a row for the page; `left`: columns that hold words."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    classes: Sequence[str] = ()
    left: frozenset[int] = field(default_factory=lambda: frozenset({0}))

    @property
    def marked(self) -> list[tuple[str, Sequence[str]]]:
        """(class, cells) of every row."""
        return list(zip(self.classes or [""] * len(self.rows), self.rows, strict=True))

    def only(self, word: str, there: bool = True) -> Table:
        """The rows of class `word`, or all the others."""
        kept = [(c, cells) for c, cells in self.marked if (c == word) is there]
        return Table(self.heads, [cells for _, cells in kept], [c for c, _ in kept], self.left)

    def markdown(self) -> str:
        """A Markdown table; words left, numbers right."""
        rule = ["---" if n in self.left else "---:" for n in range(len(self.heads))]
        lines = [self.heads, rule, *self.rows]
        return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def percent(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{100 * value:.{digits}f} %"


def accuracy(value: Estimate) -> str:
    """Mean ± 95 % interval in per cent; one run has no interval."""
    return f"{100 * value.mean:.2f} %" if value.half is None else f"{100 * value.mean:.2f} ± {100 * value.half:.2f} %"


def duration(seconds: float) -> str:
    """Seconds as 35 s, 12 min, 3.4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def count(value: float) -> str:
    return f"{value:,.0f}"


def short(commit: str) -> str:
    """The first digits of a commit; `-dirty` stays."""
    name, dirty, _ = commit.partition("-dirty")
    return name[:8] + dirty


def range_of(values: Sequence[float]) -> str:
    """One number where all agree, else the mean."""
    return count(values[0]) if len(set(values)) == 1 else f"≈ {count(sum(values) / len(values))}"


def claim_text(score: Score) -> str:
    """What was claimed, as a number or as a comparison."""
    target = score.target
    if target.claim == "better_than":
        return f"> {(target.than or '').replace('_', ' ')}"
    if target.value is None:
        return DASH
    digits = max(0, len(f"{target.value:.4f}".rstrip("0")) - 4)
    return f"{'≤ ' if target.claim == 'at_most' else ''}{percent(target.value, digits)}"


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
    heads = (
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
    )
    return Table(heads, rows, classes, frozenset({0, 1, 6, 7, 9}))


def settings_text(settings: dict[str, Any]) -> str:
    """key=value of the first few settings."""
    items = [f"{key}={'null' if value is None else value}" for key, value in settings.items()]
    more = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {more} more" if more > 0 else "")


def reference_table(groups: Sequence[Group]) -> Table:
    """One experiment: every kind, gap and configuration; rows that stand for their kind are marked."""
    shown, base = representatives(groups).values(), bases(groups)
    rows, classes = [], []
    for one in groups:
        parameters = one.values("parameters")
        physical = [float(r.physical) for r in one.runs if r.physical is not None]
        rows.append(
            [
                one.label,
                one.device,
                accuracy(one.on_device),
                accuracy(one.on_model),
                str(one.on_device.n),
                range_of(parameters),
                range_of(physical) if physical and max(physical) <= max(parameters) else DASH,
                range_of(one.values("device_calls")),
                DASH if one.epochs is None else str(one.epochs),
                duration(one.seconds / len(one.runs)),
                settings_text(differences(one, base[one.experiment, one.kind])) or DASH,
            ]
        )
        standing = any(one is s for s in shown)
        classes.append("shown" if standing else "variant" if rows[-1][-1] != DASH else "")
    heads = (
        "network and training",
        "gap",
        "on the device",
        "on its model",
        "n",
        "parameters",
        "of them physical",
        "device calls a run",
        "epochs",
        "wall time a run",
        "differs from the first choice of its kind by",
    )
    return Table(heads, rows, classes, frozenset({0, 10}))


def twin_table(fits: dict[str, Any]) -> Table:
    """card.json → one line a fit."""
    rows = []
    for name, fit in fits.items():
        jacobian = fit.get("jacobian") or {}
        errors = {k: v for k, v in jacobian.items() if not k.endswith("_cosine")}
        cosine = jacobian.get("x_cosine")
        rows.append(
            [
                name,
                percent(fit["error"]),
                percent(fit.get("noise")),
                percent(fit.get("bias")),
                f"{fit['r2']:.4f}",
                ", ".join(f"{percent(v, 1)} (∂f/∂{k})" for k, v in errors.items() if v is not None) or DASH,
                DASH if cosine is None else f"{cosine:.3f}",
            ]
        )
    return Table(("fit", "error", "noise floor", "bias", "R²", "Jacobian error", "cosine, ∂f/∂x"), rows)


def demo_table(report: dict[str, Any]) -> Table:
    """demo.json → one line a gap and mode, mean and 95 % interval over its seeds."""
    rows = []
    for entry in report["gaps"]:
        for mode, row in entry["modes"].items():
            cells = [accuracy(estimate(row["device"])), accuracy(estimate(row["model"])), percent(row["output_gap"], 0)]
            pair = entry.get("pat_minus", {}).get(mode)
            gain = f"{100 * pair['difference']:+.1f} ± {100 * pair['error']:.1f} (s.e.)" if pair else DASH
            rows.append([f"{entry['gap']:g}", mode.replace("_", " "), str(len(row["device"])), *cells, gain])
    heads = ("gap", "training", "n", "on the device", "on its model", "outputs differ by", "PAT − this, points")
    return Table(heads, rows, left=frozenset({1}))


def alignment_table(report: dict[str, Any]) -> Table:
    """pnn-evaluate diagnose=gradients → one line a layer and mode."""
    rows = [[r["layer"], r["mode"], f"{r['cosine']:.3f}", f"{r['norm_ratio']:.3f}"] for r in report["alignment"]]
    heads = ("layer", "gradient of", "cosine with the ideal gradient", "norm, relative to it")
    return Table(heads, rows, left=frozenset({0, 1}))


def study_table(states: Sequence[str]) -> Table:
    """How the trials of a search ended."""
    kinds = sorted(set(states))
    return Table(("trials", *kinds), [[str(len(states)), *(str(states.count(k)) for k in kinds)]], left=frozenset())


def problem_table(found: Found) -> Table:
    """Folders that were not counted, or not wholly."""
    rows = [[str(p.folder), p.state, p.what] for p in found.problems]
    return Table(("folder", "state", "what is wrong"), rows, [p.state for p in found.problems], frozenset({0, 1, 2}))


def csv_text(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """RFC 4180 with plain newlines; None is an empty cell."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([heads, *rows])
    return stream.getvalue()


def csv_tables(scores: Sequence[Score], groups: Sequence[Group], found: Found) -> dict[str, str]:
    """File name → content: the tables as numbers, with every digit."""
    tables = {
        "scoreboard.csv": _scoreboard_csv(scores),
        "references.csv": _references_csv(groups),
        "runs.csv": _runs_csv(found.runs),
        "problems.csv": csv_text(("folder", "state", "what"), [(p.folder, p.state, p.what) for p in found.problems]),
    }
    if found.twins:
        keys = ("error", "noise", "bias", "r2", "r2_worst_output")
        fits = [(path.parent, name, fit) for path, card in found.twins for name, fit in card["fits"].items()]
        rows = [
            (place, name, *(fit.get(k) for k in keys), (fit.get("jacobian") or {}).get("x"))
            for place, name, fit in fits
        ]
        tables["twins.csv"] = csv_text(("folder", "fit", *keys, "jacobian_error_x"), rows)
    if found.alignments:
        rows = [
            (path, r["layer"], r["mode"], r["cosine"], r["norm_ratio"])
            for path, report in found.alignments
            for r in report["alignment"]
        ]
        tables["alignment.csv"] = csv_text(("file", "layer", "mode", "cosine", "norm_ratio"), rows)
    return tables


def _scoreboard_csv(scores: Sequence[Score]) -> str:
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


def _references_csv(groups: Sequence[Group]) -> str:
    rows, base = [], bases(groups)
    for g in groups:
        d, m = g.on_device, g.on_model
        means = [sum(g.values(key)) / d.n for key in ("parameters", "device_calls", "wall_seconds")]
        other = "; ".join(f"{k}={v}" for k, v in differences(g, base[g.experiment, g.kind]).items())
        mine = (g.experiment, g.kind, g.gap, g.settings.get("device._target_"))
        rows.append((*mine, d.mean, d.half, m.mean, m.half, d.n, g.repeats, *means, " ".join(g.commits), other))
    heads = (
        "experiment kind gap device accuracy_device half_width_device_95 accuracy_model half_width_model_95 n "
        "repeats_left_out parameters device_calls wall_seconds commits differs_by"
    )
    return csv_text(heads.split(), rows)


def _runs_csv(runs: Sequence[Run]) -> str:
    keys = ("test_accuracy_device", "test_accuracy_model", "val_accuracy_device", "best_epoch", "gap_output_error")
    more = ("device_calls", "device_samples", "parameters", "wall_seconds", "commit")
    rows = [
        (
            r.folder,
            r.config["name"],
            kind_of(r.config),
            r.config["training"].get("name"),
            r.config.get("reference"),
            r.config["device"].get("gap"),
            *replica(r.config),
            *(r.summary.get(k) for k in (*keys, *more)),
            r.physical,
            r.environment.get("command"),
        )
        for r in runs
    ]
    heads = ("folder", "experiment", "kind", "training", "reference", "gap")
    seeds = ("seed", "device_seed", "task_seed", "split_seed")
    return csv_text((*heads, *seeds, *keys, *more, "parameters_physical", "command"), rows)
