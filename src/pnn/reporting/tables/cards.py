"""Twin cards, demos, gradient alignments, searches and damaged folders as tables and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pnn.reporting.folders import Found
from pnn.reporting.statistics import estimate
from pnn.reporting.tables.table import Table, csv_text
from pnn.reporting.text import DASH, accuracy, percent


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
                percent((fit.get("visited") or {}).get("error")),
            ]
        )
    return Table(("fit", "error", "noise floor", "bias", "R²", "Jacobian error", "cosine, ∂f/∂x", "visited"), rows)


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


def problems_csv(found: Found) -> str:
    return csv_text(("folder", "state", "what"), [(p.folder, p.state, p.what) for p in found.problems])


def twins_csv(found: Found) -> str:
    keys = ("error", "noise", "bias", "r2", "r2_worst_output")
    fits = [(path.parent, name, fit) for path, card in found.twins for name, fit in card["fits"].items()]
    rows = [
        (
            place,
            name,
            *(fit.get(k) for k in keys),
            (fit.get("jacobian") or {}).get("x"),
            (fit.get("visited") or {}).get("error"),
        )
        for place, name, fit in fits
    ]
    return csv_text(("folder", "fit", *keys, "jacobian_error_x", "visited_error"), rows)


def alignments_csv(found: Found) -> str:
    rows = [
        (path, r["layer"], r["mode"], r["cosine"], r["norm_ratio"])
        for path, report in found.alignments
        for r in report["alignment"]
    ]
    return csv_text(("file", "layer", "mode", "cosine", "norm_ratio"), rows)
