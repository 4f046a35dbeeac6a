"""Where the YAML is: pnn's own, and that of other packages' systems, found by their entry points `pnn.systems`."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from pnn.errors import UserError

#: `my_system = "my_package"` in this group: my_package/conf/system/my_system.yaml is an option of `system`.
GROUP = "pnn.systems"


def conf_dir() -> Path:
    """The YAML tree: inside the installed package, or at the top of the checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def conf_folders(own: Path) -> list[Path]:
    """The conf/ folders of installed packages, by name of entry point; `own` is pnn's.

    Raises UserError that lists every entry point without its package or YAML file, and every file whose place in the
    tree is taken, since Hydra would pass over it in silence.
    """
    found: list[Path] = []
    mistakes: list[str] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            folder = _conf_of(entry)
            if folder not in found:
                _refuse_taken(entry, folder, [own, *found])
                found.append(folder)
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\n".join(mistakes))
    return found


def check_import(target: str) -> None:
    """Import the installed package that the class `target` belongs to, if any. Raises UserError with its reason."""
    for entry in entry_points(group=GROUP):
        if target.startswith(f"{entry.value}."):
            try:
                import_module(entry.value)
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise UserError(f"{_named(entry)}: import {entry.value} fails with {reason}") from error


def _conf_of(entry: EntryPoint) -> Path:
    """conf/ of the entry point's package, located without running any of its code."""
    top, *rest = entry.value.split(".")
    packages = [Path(place, *rest) for place in _places(top)]
    if not any(package.is_dir() for package in packages):
        raise UserError(f"{_named(entry)}: there is no package {entry.value}; {_remedy(entry)}")
    for package in packages:
        if (package / "conf" / "system" / f"{entry.name}.yaml").is_file():
            return (package / "conf").resolve()
    raise UserError(f"{_named(entry)}: {entry.value} has no file conf/system/{entry.name}.yaml; {_remedy(entry)}")


def _places(name: str) -> list[str]:
    """The folders of a top-level package; none for a module and for what is not there."""
    spec: ModuleSpec | None = None
    with suppress(ImportError, ValueError):  # not a name, or something half-imported
        spec = find_spec(name)
    return list(spec.submodule_search_locations or ()) if spec else []


def _refuse_taken(entry: EntryPoint, folder: Path, earlier: list[Path]) -> None:
    for file in sorted(folder.rglob("*.yaml")):
        place = file.relative_to(folder)
        for other in earlier:
            if (other / place).is_file():
                raise UserError(f"{_named(entry)}: conf/{place} exists in {other} too; rename one of them")


def _named(entry: EntryPoint) -> str:
    return f"entry point {entry.name} = {entry.value} ({GROUP}) of {_distribution(entry)}"


def _remedy(entry: EntryPoint) -> str:
    return f"install {_distribution(entry)} again, or pip uninstall it"


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an installed distribution"
