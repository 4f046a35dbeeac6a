"""pnn-sweep: search hyper-parameters with Optuna on validation data, or run a study: a grid of complete, tested runs."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException

from pnn.config import application, checked
from pnn.errors import UserError, fail

if TYPE_CHECKING:
    from pnn.rules import Config
    from pnn.sweeps.grid import Study
    from pnn.sweeps.plan import Plan

OWN = (
    *("sweep", "name", "trials", "workers", "worker_threads", "sampler", "sampler_seed", "pruner", "records"),
    *("repeats", "over", "storage", "out"),
)


def main() -> None:
    """Entry point of `pnn-sweep`."""
    arguments = get_args_parser().parse_args()
    if arguments.help or arguments.hydra_help or arguments.info or arguments.shell_completion:
        application("sweep", lambda _: None)
        return
    try:
        if arguments.multirun:
            raise UserError("pnn-sweep takes no -m: give a key several values, and they become part of the sweep")
        plan = configuration(arguments.overrides, arguments.config_dir)
        if arguments.cfg:
            from omegaconf import OmegaConf

            print(OmegaConf.to_yaml(OmegaConf.create({**_shared(plan), **plan.options})))
        else:
            _hide_password()
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            sweep(plan)
    except (UserError, HydraException) as error:
        fail(error)
    except KeyboardInterrupt:
        print("\nstopped; repeat the command to resume", file=sys.stderr)
        sys.exit(130)


def configuration(overrides: list[str], config_dir: str | None = None) -> Plan | Study:
    """The checked search or study of a command line. Raises UserError that lists every mistake."""
    own = [o for o in overrides if o.partition("=")[0].lstrip("+~").partition(".")[0] in OWN]
    options = checked("sweep", own, config_dir)
    lines = [o for o in overrides if o not in own]
    check_file(options["sweep"])
    if options["sweep"].get("grid") is None:
        from pnn.sweeps import search

        if options["worker_threads"] is not None:
            raise UserError(
                f"worker_threads={options['worker_threads']} is for studies; a search shares the processor's cores"
            )
        return search.configuration(options, lines, config_dir)
    from pnn.sweeps import study

    named = [o for o in own if o.partition("=")[0] in study.OF_SEARCHES]
    if named:
        name = options["sweep"]["name"]
        raise UserError("\n".join(f"{o} means nothing to sweep={name}, which is a grid; leave it out" for o in named))
    return study.configuration(options, lines, config_dir)


#: What a sweep file may hold.
KEYS = ("name", "command", "overrides", "grid", "space", "evaluate", "also", "hint")


def check_file(content: Config) -> None:
    """Refuse a sweep file that is neither a grid nor a space, or not of the form that docs/sweeps.md describes."""
    found = [f"sweep: {key}: is none of {', '.join(KEYS)}" for key in content if key not in KEYS]
    if (content.get("grid") is None) == (content.get("space") is None):
        found.append("sweep: a sweep file has either a grid: of values or a space: to search")
    for key in ("grid", "space"):
        if content.get(key) is not None and not (isinstance(content[key], dict) and (content[key] or key == "space")):
            found.append(f"sweep.{key} must name at least one key with its values")
    if not isinstance(content.get("overrides") or [], list):
        found.append(f"sweep.overrides={content['overrides']} must be a list, one override a line")
    command = content.get("command")
    if content.get("space") is not None and command is None:
        found.append("sweep.command: a search says what a trial runs: train or twin")
    if content.get("grid") is not None and command not in (None, "train"):
        found.append(f"sweep.command={command}: a grid is of training runs; use train")
    if found:
        raise UserError("\n".join(found))


def sweep(plan: Plan | Study) -> list[dict[str, Any]]:
    """Run a search or a study; returns the rows of trials.csv or points.csv."""
    from pnn.sweeps import search, study

    return study.study(plan) if isinstance(plan, study.Study) else search.search(plan)


def _shared(plan: Plan | Study) -> dict[str, Any]:
    """The configuration that trials or runs have in common."""
    from pnn.sweeps.plan import Plan

    return plan.base if isinstance(plan, Plan) else plan.points[0].config


def _hide_password() -> None:
    """Run folders record the command line."""
    from pnn.sweeps.storage import shown

    sys.argv = [f"storage={shown(a.partition('=')[2])}" if a.startswith("storage=") else a for a in sys.argv]


if __name__ == "__main__":
    main()
