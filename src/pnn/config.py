"""From a command line to a checked, plain configuration: every mistake stops here, all of them at once."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pnn.errors import UserError, fail
from pnn.launch import launch, split
from pnn.plugins import GROUP, check_import, conf_dir, conf_folders
from pnn.rules import Config, problems

#: What `compose` raises for an override that does not fit.
REFUSED = (HydraException, OmegaConfBaseException, UserError)


class InstalledSystems(SearchPathPlugin):
    """conf/ of packages with entry points `pnn.systems`, behind pnn's own; other Hydra applications are left alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own = str(conf_dir().absolute())
        if any(element.path == own for element in search_path.get_path()):
            for folder in conf_folders(Path(own)):
                search_path.append(GROUP, f"file://{folder}")


def compose(command: str, overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The configuration of `command` with `overrides`, unresolved.

    Raises Hydra's own errors, and UserError for a file that is no YAML or a folder that is not there.
    """
    if config_dir and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir={config_dir} is not a folder; give the one that holds experiment/, system/, …")
    extra = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    Plugins.instance().register(InstalledSystems)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir().absolute()), version_base="1.3"):
        try:
            return hydra.compose(command, overrides=[*extra, *overrides])
        except yaml.YAMLError as error:
            raise UserError(f"not a YAML file: {' '.join(str(error).split())}") from error
        except ValueError as error:  # Hydra's, for a group's option that is not a name
            raise UserError(_short(error)) from error


def plain(config: DictConfig) -> Config:
    """Resolve to plain containers. Raises UserError for a value that is missing or cannot be resolved."""
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(_short(error)) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items() if key != "hydra"}


def checked(command: str, overrides: Sequence[str], config_dir: str | None = None) -> Config:
    """The plain, checked configuration. Raises UserError that lists every mistake."""
    good, found = [], []
    try:
        config = compose(command, overrides, config_dir)
        good = list(overrides)
    except REFUSED:
        for override in sorted(overrides, key=lambda o: "." in o.partition("=")[0]):  # groups before the keys in them
            try:
                compose(command, [*good, override], config_dir)
                good.append(override)
            except REFUSED as error:
                found.append(explain(command, override, error, good, config_dir))
        config = compose(command, good, config_dir)
    try:
        resolved = plain(config)
        found += problems(resolved)
    except UserError as error:
        found.append(str(error))
    if found:
        raise UserError("\n".join(found))
    return resolved


def explain(command: str, override: str, error: Exception, good: Sequence[str], config_dir: str | None = None) -> str:
    """One line for one override that Hydra refused, after the `good` ones."""
    text, (key, _, value) = str(error), override.partition("=")
    if isinstance(error, UserError) and value == "null":  # quoted, it is a name, and Hydra lists the names there are
        try:
            compose(command, [*good, f"{key}='null'"], config_dir)
        except HydraException as unknown:
            text = str(unknown)
    options = re.search(r"Available options in '(.*?)':\n((?:\t.*\n?)+)", text)
    if options:
        names = options.group(2).split()
        close = difflib.get_close_matches(value, names, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{override}: no such option{hint}; {options.group(1)} is one of {', '.join(names)}"
    if "Could not override" in text or "No match in the defaults list" in text:
        known = OmegaConf.to_container(compose(command, good, config_dir))
        return no_such_key(key.lstrip("+~"), override, known, f"see pnn-{command} --cfg job")
    return f"{override}: {_short(error)}"


def no_such_key(key: str, override: str, known: Any, otherwise: str) -> str:
    """The message for a misspelt key, with the nearest one there is."""
    if key in _keys(known) and override.partition("=")[2].startswith("{"):
        return f"{override}: {key} takes new entries one by one; use +{key}.NAME=VALUE"
    close = difflib.get_close_matches(key, _keys(known), 1, cutoff=0.5)
    return f"{override}: there is no key {key}; {f'did you mean {close[0]}?' if close else otherwise}"


def _keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    here = [f"{prefix}{key}" for key in node]
    return here + [inner for key, value in node.items() for inner in _keys(value, f"{prefix}{key}.")]


def _short(error: Exception) -> str:
    """The first lines of a library's message, on one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The grid of a multirun: every combination of the sweeps `a=1,2`."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    axes = []
    for override in parsed:
        if override.is_sweep_override() and override.is_discrete_sweep():
            axes.append([f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()])
        else:
            axes.append([override.input_line or ""])
    return [list(point) for point in itertools.product(*axes)]


def refuse_shared_folder(configs: Sequence[Config]) -> None:
    """Points of a grid that would be written into one folder are a mistake, and so is a grid without points."""
    if not configs:
        raise UserError("the grid has no point; give every key at least one value")
    folders = [str(config["out"]) for config in configs if config.get("out")]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(
                f"out={folder} would be the folder of {folders.count(folder)} points; leave it out, or sweep it too"
            )


def run_command(command: str, job: Callable[[Config], object], *, check: bool = True) -> None:
    """A Hydra application whose configuration is checked, for every point of a multirun, before any work starts."""
    arguments = get_args_parser().parse_args()
    asks_only = arguments.help or arguments.hydra_help or arguments.cfg or arguments.info or arguments.shell_completion
    if not asks_only and (check or arguments.multirun):
        try:
            hydras, own = split(arguments.overrides)
            points = expand(own) if arguments.multirun else [own]
            configs = [checked(command, [*hydras, *filter(None, point)], arguments.config_dir) for point in points]
            if arguments.multirun:
                refuse_shared_folder(configs)
                launch(command, partial(settled_job, job), points, configs, hydras)
                return
        except (UserError, HydraException) as error:
            fail(error)

    def guarded(config: DictConfig) -> None:
        try:
            settled_job(job, plain(config))
        except UserError as error:
            fail(error)
        except KeyboardInterrupt:
            sys.exit(130)

    application(command, guarded)


def settled_job(job: Callable[[Config], object], config: Config) -> None:
    """Run a job on its plain configuration, once the package of its system can be imported."""
    check_import(str((config.get("system") or {}).get("_target_")))
    job(config)


def application(command: str, job: Callable[[DictConfig], object]) -> None:
    """Run the Hydra application of `command` over pnn's YAML tree and those of installed packages."""
    Plugins.instance().register(InstalledSystems)
    GlobalHydra.instance().clear()
    arguments = get_args_parser().parse_args()
    run = hydra.main(version_base="1.3", config_path=str(conf_dir().absolute()), config_name=command)(job)
    try:
        if arguments.help:
            with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
                run()
            show(_without_foreign_groups(said.getvalue(), command))
        else:
            run()
    except UserError as error:
        fail(error)


def show(text: str) -> None:
    """Print; a reader that has read enough, as in `pnn-train --help | head`, ends the command quietly."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be flushed at exit


def _without_foreign_groups(text: str, command: str) -> str:
    """A help text without the lines of groups that are not in the defaults of `command`."""
    with hydra.initialize_config_dir(str(conf_dir().absolute()), version_base="1.3"):
        chosen = hydra.compose(command, return_hydra_config=True).hydra.runtime.choices
    foreign = {place.name for place in conf_dir().iterdir() if place.is_dir()} - set(chosen)
    return "".join(line for line in text.splitlines(True) if not line.startswith(tuple(f"{f}: " for f in foreign)))
