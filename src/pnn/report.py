"""pnn-report: run folders → one self-contained HTML page, CSV tables and Markdown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pnn.errors import UserError

if TYPE_CHECKING:
    from pnn.reporting.folders import Found
    from pnn.reporting.results import Results

PAGE = "report.html"
DEFAULT = Path("outputs") / "report"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `pnn-report`; exit code 2 for a mistake of the user's, before anything is written."""
    parser = argparse.ArgumentParser(
        prog="pnn-report",
        description="Read run folders and write one self-contained page, CSV tables and, if asked, Markdown.",
        epilog="The page: the paper's claims (conf/paper.yaml) beside our means and 95 % intervals, the references of every\n"
        "experiment, training and gap curves, twin cards, demo tables, signals and gradient alignment where they were\n"
        "made, and every unfinished or damaged run by name.\n\n"
        "examples:\n"
        "  pnn-report outputs\n"
        "  pnn-report outputs/fig3_fashion_mnist outputs/vowels_shg --out outputs/report-oscillators\n"
        "  pnn-report outputs --markdown docs/RESULTS.md\n"
        "  pnn-report outputs --readme README.md\n"
        "  pnn-report outputs --ledger docs/results.jsonl   (a line of JSON a result; without FOLDER: what it keeps)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="run folders, or folders that hold some"
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT, metavar="FOLDER", help=f"where to write; default {DEFAULT}"
    )
    parser.add_argument(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="also count what FILE keeps, and keep there what was counted: results outlive their folders",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write all tables and sentences as Markdown")
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help="also replace what FILE has between <!-- results --> and <!-- /results --> with a short scoreboard",
    )
    options = parser.parse_args(arguments)
    try:
        print(report(options.folders, options.out, options.markdown, options.readme, options.ledger))
    except UserError as error:
        print(f"pnn: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def report(
    folders: Sequence[Path],
    out: Path = DEFAULT,
    markdown: Path | None = None,
    readme: Path | None = None,
    ledger: Path | None = None,
) -> str:
    """Write the report of `folders` and `ledger` into `out`; returns the printed summary. Raises UserError before it writes."""
    found = gather(folders, ledger)
    check_place("--out", out)
    for option, file in (("--markdown", markdown), ("--ledger", ledger)):
        if file is not None:
            if file.is_dir():
                raise UserError(f"{option} {file} is a folder; name a file")
            check_place(option, file.parent)
    results = judge(found)

    from pnn.reporting import ledger as kept
    from pnn.reporting import page, tables

    files = {out / name: text for name, text in tables.csv_tables(results).items()}
    if readme is not None:
        files[readme] = page.with_digest(readme, results)
    if markdown is not None:
        files[markdown] = page.markdown(results)
    if ledger is not None:
        files[ledger] = kept.text(results.groups, found)
    files = {out / PAGE: page.render(results), **files}
    write(files)
    counts = ", ".join(f"{n} {verdict}" for verdict, n in results.counts.items() if n)
    lines = [f"{len(results.runs)} runs in {len(results.groups)} groups; claims: {counts}"]
    lines += [f"{p.state}: {p.folder}: {p.what}" for p in found.problems]
    return "\n".join([*lines, *(f"written: {path}" for path in files)])


def gather(folders: Sequence[Path], ledger: Path | None) -> Found:
    """What lies in `folders`, and what the ledger keeps besides. Raises UserError where there is nothing."""
    from pnn.reporting.folders import Found, find
    from pnn.reporting.ledger import add, read

    if ledger is None:
        return find(folders)
    kept = read(ledger)
    found = find(folders, may_be_empty=True) if folders else Found()
    add(found, kept)
    if not found:
        raise UserError(
            f"--ledger {ledger} keeps no result, nor is there one in a named folder; train a network (pnn-train) first"
        )
    return found


def judge(found: Found) -> Results:
    """Group the runs and score the claims of conf/paper.yaml; prices from conf/costs.yaml."""
    from pnn.plugins import conf_dir
    from pnn.reporting.costs import prices
    from pnn.reporting.groups import group
    from pnn.reporting.results import Results
    from pnn.reporting.scoreboard import commanded, score, targets

    groups = group(found.runs)
    claims = targets(conf_dir() / "paper.yaml")
    experiments = {g.experiment for g in groups}
    commands = commanded([claim for claim in claims if claim.experiment in experiments])
    scores = [score(target, groups, commands) for target in claims]
    return Results(scores, groups, found, prices(conf_dir() / "costs.yaml"))


def check_place(option: str, folder: Path) -> None:
    """Refuse a folder in which nothing can be written; creates nothing."""
    from pnn.runs import check_writable

    try:
        check_writable(folder)
        blocked = folder.exists() and not folder.is_dir()
    except UserError:
        blocked = True
    if blocked:
        raise UserError(f"{option} {folder} cannot be written; choose another place")


def write(files: dict[Path, str]) -> None:
    """Write every text, each file at once and whole."""
    from pnn.runs import write_atomically

    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda p, text=text: p.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}); choose another --out") from error


if __name__ == "__main__":
    main()
