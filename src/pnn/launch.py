"""The points of a multirun, handed to a Hydra launcher: one after the other here, or on Slurm, in processes, on Ray.

A point is checked before anything starts and travels as its plain configuration, so a job composes nothing anew. Hydra only
chooses and builds the launcher (`hydra/launcher=`, `hydra.launcher.*`).
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from pnn.errors import UserError, fail
from pnn.plugins import conf_dir

# conf/hydra/launcher/ has the plugins' own names on purpose: a value that an option cannot have is refused by their schema.
warnings.filterwarnings("ignore", message="(?s).*is validated against ConfigStore schema.*")

#: Launchers of optional packages: the extra that brings them.
EXTRAS = {"submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides about Hydra itself, `hydra/launcher=…` and `hydra.…=…`, and those about the experiment."""
    about = [o for o in overrides if o.lstrip("+~").startswith(("hydra/", "hydra."))]
    return about, [o for o in overrides if o not in about]


@dataclass(frozen=True)
class Jobs:
    """What a launcher calls: job n of a multirun, in whatever process. Returns None, or the mistake that ended the job."""

    run: Callable[[Any], object]
    items: Sequence[Any]
    home: int  # the process that launched them

    def __call__(self, _: DictConfig) -> str | None:
        item = self.items[HydraConfig.get().job.num]
        try:
            self.run(item)
        except UserError as error:
            return str(error)
        except KeyboardInterrupt:
            if os.getpid() == self.home:
                sys.exit(130)
            return "stopped by a signal; its log says how to resume"
        except Exception:
            traceback.print_exc()  # Hydra keeps the exception, not where it came from
            raise
        return None


def launch(
    command: str,
    run: Callable[[Any], object],
    points: Sequence[Sequence[str]],
    items: Sequence[Any],
    overrides: Sequence[str],
) -> None:
    """Run every item with the launcher that `overrides` choose; `points` are their names in messages.

    All jobs run, whatever becomes of the others; then one message per mistake, and exit code 2. Raises UserError for a
    launcher that is not installed or refuses its options.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir().absolute()), job_name=f"pnn-{command}", version_base="1.3"):
        main = GlobalHydra.instance().hydra
        assert main is not None
        config = main.compose_config(command, list(overrides), run_mode=RunMode.MULTIRUN, from_shell=False)
        context = HydraContext(config_loader=main.config_loader, callbacks=Callbacks(config))
        name = str(config.hydra.runtime.choices["hydra/launcher"])
        try:
            launcher = Plugins.instance().instantiate_launcher(context, Jobs(run, items, os.getpid()), config)
        except (ImportError, RuntimeError, HydraException) as error:
            extra = EXTRAS.get(name)
            raise UserError(
                f"hydra/launcher={name} needs packages that are not installed; pip install 'pnn[{extra}]'"
                if extra
                else f"hydra/launcher={name}: {str(error).splitlines()[0]}"
            ) from error
        returned = _launched(launcher, name, len(items), OmegaConf.select(config, "hydra.sweeper.max_batch_size"))
    common = set.intersection(*map(set, points)) if len(points) > 1 else set()
    mistakes = []
    for number, (point, job) in enumerate(zip(points, returned, strict=True)):
        failed, said = job.status.name == "FAILED", job._return_value  # its property would raise
        mistake = f"{type(said).__name__}: {said}" if failed else said
        if mistake:
            mistakes.append(
                f"job {number} ({' '.join(o for o in point if o not in common)}): {'; '.join(mistake.splitlines())}"
            )
    if mistakes:
        fail(UserError("\n".join(mistakes)))


def _launched(launcher: Any, name: str, count: int, at_once: int | None) -> list[Any]:
    """What the jobs returned, `at_once` of them at a time."""
    folder = getattr(launcher, "params", {}).get("submitit_folder")
    where = f"; logs: {folder}" if folder else ""
    if name != "basic":
        print(f"{count} jobs on {name}{where}", flush=True)
    returned: list[Any] = []
    size = at_once or count
    try:
        for first in range(0, count, size):
            returned += launcher.launch([[] for _ in range(first, min(first + size, count))], initial_job_idx=first)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"hydra/launcher={name}: {reason}{where}") from error
    return returned
