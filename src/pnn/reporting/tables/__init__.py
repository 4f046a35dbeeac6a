"""Tables, one file a noun: rows for the page and Markdown, and CSV with every digit."""

from __future__ import annotations

from pnn.reporting.results import Results
from pnn.reporting.tables.cards import alignments_csv, problems_csv, twins_csv
from pnn.reporting.tables.costs import costs_csv
from pnn.reporting.tables.gaps import gap_gains_csv, gaps_csv
from pnn.reporting.tables.references import references_csv, runs_csv
from pnn.reporting.tables.scoreboard import scoreboard_csv
from pnn.reporting.tables.transfer import transfer_csv
from pnn.reporting.transfer import matrices


def csv_tables(results: Results) -> dict[str, str]:
    """File name → content; tables of what was not run are left out."""
    found, groups = results.found, results.groups
    tables = {
        "scoreboard.csv": scoreboard_csv(results.scores),
        "references.csv": references_csv(groups),
        "runs.csv": runs_csv(found.runs),
        "problems.csv": problems_csv(found),
        "costs.csv": costs_csv(groups, results.rate),
    }
    gaps = {"gaps.csv": gaps_csv(groups), "gap_gains.csv": gap_gains_csv(groups)}
    tables |= {name: text for name, text in gaps.items() if text.count("\n") > 1}
    if transfers := matrices(groups):
        tables["transfer.csv"] = transfer_csv(transfers)
    if found.twins:
        tables["twins.csv"] = twins_csv(found)
    if found.alignments:
        tables["alignment.csv"] = alignments_csv(found)
    return tables
