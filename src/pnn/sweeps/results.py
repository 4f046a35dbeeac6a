"""What a study leaves in its folder: tables, pictures, a guide."""

from __future__ import annotations

from typing import Any

from pnn.runs import write_atomically
from pnn.sweeps import figures, transfer
from pnn.sweeps.grid import Study
from pnn.sweeps.table import DIFFERENCES, differences, render, rows, write_csv

GUIDE = """\
This folder holds a study of pnn: a grid of complete training runs, each scored once on the test set.

  points.csv        one row per run: its value on every axis, seeds, accuracies on device and model, seconds
  differences.csv   paired differences over seeds: physics-aware minus in silico, and minus ideal
  {picture}
  <point>/          the run folder of a point, as pnn-train leaves it, with log.txt{transfer}
  study.yaml        what was asked for

Repeat the command to resume: a finished run is never repeated, one that was stopped goes on from its last checkpoint.
Other values of an axis (seed='range(0,10)') add runs to the folder; the tables show the grid of the last command.
"""


def report(plan: Study) -> list[dict[str, Any]]:
    """Write every table and picture of a study, print them in short; returns the rows of points.csv."""
    folder, table = plan.folder, rows(plan)
    write_csv(folder / "points.csv", table)
    paired = differences(plan, table)
    write_csv(folder / "differences.csv", paired, DIFFERENCES)
    done = [row for row in table if row["state"] == "finished"]
    print(f"\n{plan.name}: {len(done)} of {len(table)} runs finished")
    moved = any(point.transfers for point in plan.points)
    if done:
        print(render(plan, table, paired))
        figures.accuracy_figure(plan, table, folder / "accuracy.png")
    if done and moved:
        print(transfer.report(plan))
    picture = (
        "accuracy.png      test accuracy on the device against the study's axis; bands are 95 % intervals over seeds"
    )
    if moved:
        picture += "\n  transfer.csv      accuracy on fresh devices by gap and distance; transfer.png: a picture"
    more = "; transfer.json: its accuracies on fresh devices" if moved else ""
    guide = GUIDE.format(picture=picture, transfer=more)
    write_atomically(folder / "README.txt", lambda path: path.write_text(guide))
    print(f"table: {folder / 'points.csv'}    pictures and differences beside it")
    return table
