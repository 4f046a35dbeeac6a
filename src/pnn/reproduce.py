"""pnn-reproduce: everything behind a figure of the paper, or all of them, at a scale; resumable, with one progress."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnn.config import checked
from pnn.errors import UserError, fail
from pnn.plugins import conf_dir

if TYPE_CHECKING:
    from pnn.sweeps.grid import Point, Study

SCALES = ("smoke", "quick", "full")
ALL = "paper"
KEYS = ("scale", "workers", "out")
HELP = """\
pnn-reproduce TARGET [scale=quick] [workers=N] [out=FOLDER] [--plan]

{targets}
  {all:<10} all of them, then pnn-report

scale    {scales}: seconds on embedded data; minutes on 2 cores; the paper's size (hours)
workers  processes of one thread each; default: one per core
out      where the studies go; default: {out}
--plan   print what would run and how long it takes, and stop

Repeat the command to resume: a finished run is never repeated. What is run: conf/reproduce.yaml.
"""


@dataclass(frozen=True)
class Entry:
    """One line of conf/reproduce.yaml: its study or none (pnn-toy), and the minutes that all of it takes on 2 cores."""

    target: str
    line: str
    minutes: float
    study: Study | None = None
    judge: list[str] = field(default_factory=list)  # overrides of pnn-evaluate

    def finished(self) -> int:
        from pnn.sweeps import runs

        return sum(runs.finished(point) for point in self.study.points) if self.study else 0

    @property
    def minutes_left(self) -> float:
        return self.minutes * (1 - self.finished() / len(self.study.points)) if self.study else self.minutes


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `pnn-reproduce`; exit code 2 for a mistake of the user's, before anything is written."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print(_help())
        return
    try:
        target, scale, workers, out = parse([a for a in given if a != "--plan"])
        chosen = entries(target, scale, out)
        print(plan(chosen, workers), flush=True)
        if "--plan" not in given:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            reproduce(chosen, target, scale, workers, out)
    except UserError as error:
        fail(error)
    except KeyboardInterrupt:
        print("\nstopped; repeat the command to resume", file=sys.stderr)
        sys.exit(130)


def content() -> dict[str, Any]:
    """conf/reproduce.yaml."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "reproduce.yaml"))
    return dict(found)


def _help() -> str:
    found = content()
    targets = "\n".join(f"  {name:<10} {entry['about']}" for name, entry in found["targets"].items())
    out = ", ".join(f"{place} ({scale})" for scale, place in found["out"].items())
    return HELP.format(targets=targets, all=ALL, scales=", ".join(SCALES), out=out)


def parse(arguments: Sequence[str]) -> tuple[str, str, int, Path]:
    """Target, scale, workers, folder. Raises UserError that lists every mistake."""
    found, known = [], content()
    words = [a for a in arguments if "=" not in a]
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    targets = [*known["targets"], ALL]
    if len(words) != 1 or words[0] not in targets:
        found.append(f"target {' '.join(words) or '(none)'} must be one of {', '.join(targets)}")
    found += [
        f"{key}={options[key]}: there is no such key; use {', '.join(KEYS)}" for key in options if key not in KEYS
    ]
    scale = options.get("scale", "quick")
    if scale not in SCALES:
        found.append(f"scale={scale} must be one of {', '.join(SCALES)}")
    workers = options.get("workers", str(os.cpu_count() or 1))
    if not workers.isdecimal() or not 1 <= int(workers) <= 1024:
        found.append(f"workers={workers} must be a whole number from 1 to 1024; leave it out for one per core")
    if found:
        raise UserError("\n".join(found))
    return words[0], scale, int(workers), Path(options.get("out") or known["out"][scale])


def entries(target: str, scale: str, out: Path) -> list[Entry]:
    """The checked entries of a target. Runs of a reduced scale say so in their name, and are no figures of the paper."""
    from pnn.sweeps import study

    known = content()["targets"]
    chosen = []
    for name in known if target == ALL else (target,):
        for entry in known[name][scale]:
            if "toy" in entry:
                chosen.append(Entry(name, f"pnn-toy {entry['toy']}".strip(), entry["minutes"]))
                continue
            own, lines = _split(shlex.split(entry["sweep"]))
            options = checked("sweep", own)
            experiment = next(o.partition("=")[2] for o in lines if o.startswith("experiment="))
            options = {**options, "name": options["name"] or f"{options['sweep']['name']}-{experiment}"}
            options["out"] = str(out / options["name"])
            lines += _without(lines)
            renamed = [] if scale == "full" else [f"name={experiment}-{scale}"]
            found = study.configuration(options, [*lines, *renamed], check=False)
            judge = shlex.split(entry.get("judge", ""))
            chosen.append(Entry(name, f"pnn-sweep {entry['sweep']}", entry["minutes"], found, judge))
    return chosen


def _split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """pnn-sweep's own keys, and the rest."""
    from pnn.sweep import OWN

    own = [o for o in overrides if o.partition("=")[0] in OWN]
    return own, [o for o in overrides if o not in own]


def _without(lines: Sequence[str]) -> list[str]:
    """Take out the keys that an experiment gives to its task and another task, `task=digits`, does not have."""
    from pnn.config import compose, plain
    from pnn.sweeps.plan import foreign

    option = next((o for o in lines if o.startswith("task=")), None)
    if option is None:
        return []
    groups = [o for o in lines if o == option or o.startswith("experiment=")]
    there, own = plain(compose("train", groups))["task"], plain(compose("train", [option]))["task"]
    return [f"~{key}" for key in foreign(there, own, "task")]


def plan(chosen: Sequence[Entry], workers: int) -> str:
    """What will run, and about how long it takes: the minutes in the YAML hold for two workers."""
    from pnn.sweeps.progress import duration

    lines = []
    for entry in chosen:
        size = f"{entry.finished()}/{len(entry.study.points)}" if entry.study else "-"
        lines.append(f"{entry.target:<9} {size:>7} runs  {duration(60 * entry.minutes_left):>7}  {entry.line}")
    left = 60 * sum(entry.minutes_left for entry in chosen) * 2 / min(workers, os.cpu_count() or 1)
    return "\n".join([*lines, f"about {duration(left)} with {workers} workers, if nothing else runs on this machine"])


def reproduce(chosen: Sequence[Entry], target: str, scale: str, workers: int, out: Path) -> None:
    """Run the entries of a target; `paper` ends with the report. A finished run is not repeated."""
    from pnn.runs import check_writable
    from pnn.sweeps import runs, study

    check_writable(out)
    if any(entry.study is None for entry in chosen):
        from pnn.toy import toy

        out.mkdir(parents=True, exist_ok=True)
        toy({**checked("toy", []), "out": str(out / "toy.json")})
    plans = [entry.study for entry in chosen if entry.study]
    if plans:
        minutes = {p.folder: e.minutes / len(e.study.points) for e in chosen if e.study for p in e.study.points}
        study.conduct(plans, workers, threads=1, cost=lambda point: minutes[point.folder])
    for entry in chosen:
        for point in entry.study.points if entry.study and entry.judge else ():
            if runs.finished(point):  # another process may be at it, and judges it then
                judge(point, entry.judge)
    if target == ALL:
        report(scale, out)


def judge(point: Point, overrides: Sequence[str]) -> None:
    """RUN/judged.json: the best checkpoint of a run scored again with `overrides`, once."""
    from pnn.evaluate import configuration, evaluate

    out = point.folder / "judged.json"
    if out.exists():
        return
    options, config = configuration([f"ckpt_path={point.folder / 'checkpoints' / 'best.ckpt'}", *overrides])
    print(f"{point.name}, {' '.join(overrides)}:")
    evaluate({**options, "out": str(out)}, config)


def report(scale: str, out: Path) -> None:
    """The report of everything at this scale: at full scale all of outputs/ but the reduced scales, else the folder alone."""
    from pnn.report import report as write

    found = content()["out"]
    reduced = {Path(found[s]) for s in SCALES if s != "full"}
    folders = [out]
    if scale == "full" and out == Path(found["full"]):
        folders = [f for f in sorted(out.parent.iterdir()) if f.is_dir() and f not in reduced and f.name != "report"]
    print(write(folders, out / "report" if scale != "full" else out.parent / "report"))


if __name__ == "__main__":
    main()
