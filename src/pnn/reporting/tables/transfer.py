"""The transfer matrix as a table and as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from pnn.reporting.tables.table import Table, csv_text
from pnn.reporting.text import DASH, accuracy
from pnn.reporting.transfer import Matrix


def transfer_table(matrix: Matrix) -> Table:
    """Rows: trained gap; columns: distance of the device that it is scored on."""
    rows = []
    for row in matrix.rows:
        cells = [row.at(d) for d in matrix.distances]
        n = max(len(values) for values in row.seen.values())
        tolerance = DASH if row.tolerance is None else f"{row.tolerance:g}"
        shown = [accuracy(cell) if cell else DASH for cell in cells]
        rows.append([f"g = {row.gap:g}", str(n), *shown, tolerance, row.verdict])
    heads = ("trained on", "n", *(f"d = {d:g}" for d in matrix.distances), "tolerance", "which is")
    return Table(heads, rows, left=frozenset({0, len(heads) - 1}))


def transfer_csv(found: Sequence[Matrix]) -> str:
    rows = []
    for matrix in found:
        for row in matrix.rows:
            for distance in row.distances:
                cell = row.at(distance)
                drop = row.drop(distance) if 0.0 in row.seen else None
                assert cell is not None
                rows.append(
                    (
                        *(matrix.experiment, matrix.label, row.gap, distance, cell.mean, cell.half, cell.n),
                        *((drop.mean, drop.half) if drop else (None, None)),
                        *(row.tolerance, row.verdict),
                    )
                )
    heads = (
        "experiment training trained_gap distance accuracy half_width_95 n drop drop_half_width_95 tolerance verdict"
    )
    return csv_text(heads.split(), rows)
