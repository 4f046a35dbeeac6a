"""docs/add_a_system.md is a package that works: its blocks are laid out, found, trained, put to the contract and to SciPy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from pnn.build import physics
from pnn.config import checked, compose
from pnn.errors import UserError
from pnn.evaluate import configuration
from pnn.plugins import conf_folders
from pnn.systems import System
from pnn.train import train

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "add_a_system.md").read_text()
CLASS, YAML, PROJECT = (
    re.search(rf"^## .*`{re.escape(name)}`\n\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)[1]  # type: ignore[index]
    for name in ("my_lab/__init__.py", "my_lab/conf/system/diode_clipper.yaml", "pyproject.toml")
)
SHORT = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "task.eval_batch_size=50",
]


def lay_out(site: Path, files: dict[str, str], project: str = PROJECT) -> Path:
    """`files` and the metadata that an installer writes from `project`, as in a site-packages folder."""
    about = tomllib.loads(project)["project"]
    lines = [f"{name} = {value}" for name, value in about["entry-points"]["pnn.systems"].items()]
    info = f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    entry_points = "\n".join(["[pnn.systems]", *lines, ""])
    for name, text in {**files, f"{info}/METADATA": metadata, f"{info}/entry_points.txt": entry_points}.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return site


PACKAGE = {"my_lab/__init__.py": CLASS, "my_lab/conf/system/diode_clipper.yaml": YAML}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("site"), PACKAGE)


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the document, installed for this process."""
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("my_lab", None)


def python(site: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=180
    )


# --- found by every command ---------------------------------------------------------------------------------------


def test_the_documents_command_trains_it(site: Path, tmp_path: Path) -> None:
    command = re.search(r"^pnn-train (system=diode_clipper .*training=pat)$", TEXT, re.MULTILINE)
    assert command
    result = python(site, "-m", "pnn.train", *command[1].split(), *SHORT, f"out={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
    assert "my_lab.DiodeClipper" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_grid_runs_it_beside_another_system(site: Path, tmp_path: Path) -> None:
    result = python(site, "-m", "pnn.train", "-m", "system=diode_clipper,identity", *SHORT)
    assert result.returncode == 0, result.stderr
    folders = sorted(file.parent for file in tmp_path.glob("outputs/custom/*/summary.json"))
    assert [("DiodeClipper" in (f / "config.yaml").read_text()) for f in folders] == [True, False]


@pytest.mark.parametrize("name", ["train", "twin"])
def test_help_lists_it_without_importing_it(site: Path, name: str) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('imported', {'torch', 'my_lab'} & set(sys.modules)))\n"
        f"sys.argv = ['pnn-{name}', '--help']\n"
        f"from pnn.{name} import main\nmain()\n"
    )
    result = python(site, "-c", code)
    assert result.returncode == 0, result.stderr
    options = re.search(r"^\s*system: (.*)$", result.stdout, re.MULTILINE)
    assert options and {"diode_clipper", "identity"} <= set(options[1].split(", "))
    assert "imported set()" in result.stdout


def test_every_command_composes_it(installed: Path) -> None:
    for command in ("train", "twin", "demo"):
        assert compose(command, ["system=diode_clipper"]).system._target_ == "my_lab.DiodeClipper"


def test_a_misspelt_name_is_offered_it(installed: Path) -> None:
    with pytest.raises(UserError, match="did you mean diode_clipper"):
        checked("train", ["system=diode_cliper"])


def test_a_value_that_it_refuses_is_a_users_mistake(installed: Path) -> None:
    config = checked("train", ["system=diode_clipper", "system.capacitance=0"])
    with pytest.raises(ValueError, match=r"system\.capacitance=0 must be > 0"):
        physics(config["system"])["system"](4, 4)


def test_config_dir_works_beside_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "more" / "system").mkdir(parents=True)
    (tmp_path / "more" / "system" / "mine.yaml").write_text("_target_: pnn.systems.Identity\n_partial_: true\n")
    for name in ("mine", "diode_clipper", "identity"):
        assert checked("train", [f"system={name}"], str(tmp_path / "more"))
    listed = python(installed, "-m", "pnn.train", "--config-dir", str(tmp_path / "more"), "system=mine", "--cfg", "job")
    assert listed.returncode == 0 and "pnn.systems.Identity" in listed.stdout


def test_evaluate_takes_it(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint's configuration is that of the identity; the override lays the package's system over it."""
    from pnn import checkpoints

    config = checked("train", ["system=identity"])
    monkeypatch.setattr(checkpoints, "read", lambda path: {"pnn": {"config": config}})
    _, resolved = configuration(["ckpt_path=some.ckpt", "system=diode_clipper", "system.steps=3"])
    assert resolved["system"]["_target_"] == "my_lab.DiodeClipper" and resolved["system"]["steps"] == 3


def test_the_contract_picks_it_up(site: Path, tmp_path: Path) -> None:
    contract = ["-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/test_system_contract.py"]
    result = python(site, *contract, "-k", "diode_clipper", f"--basetemp={tmp_path}/contract", cwd=ROOT)
    passed = re.search(r"(\d+) passed, (\d+) deselected", result.stdout)
    assert result.returncode == 0 and passed and int(passed[1]) > 50, result.stdout


# --- mistakes -----------------------------------------------------------------------------------------------------

OTHER = '[project]\nname = "other-lab"\nversion = "2.0"\n[project.entry-points."pnn.systems"]\n'


@pytest.mark.parametrize(
    ("entry", "files", "words"),
    [
        ('a = "not_there"', {}, ["a = not_there", "no package not_there", "pip uninstall"]),
        ('a = "other_lab.not_there"', {"other_lab/__init__.py": ""}, ["no package other_lab.not_there"]),
        ('a = "other_lab"', {"other_lab.py": ""}, ["a = other_lab", "no package other_lab"]),
        ('a = "other_lab:A"', {"other_lab/__init__.py": ""}, ["other_lab:A", "no package"]),
        ('a = ""', {}, ["entry point a", "no package"]),
        ('a = "other_lab"', {"other_lab/__init__.py": ""}, ["a = other_lab", "no file conf/system/a.yaml"]),
        ('a = "other_lab"', {"other_lab/conf/system/b.yaml": ""}, ["a = other_lab", "no file conf/system/a.yaml"]),
        (
            'identity = "other_lab"',
            {"other_lab/conf/system/identity.yaml": ""},
            ["identity = other_lab", "system/identity.yaml exists in", "rename"],
        ),
        (
            'diode_clipper = "other_lab"',
            {"other_lab/conf/system/diode_clipper.yaml": ""},
            ["diode_clipper.yaml exists in", "rename"],
        ),
        (
            'a = "other_lab"',
            {"other_lab/conf/system/a.yaml": "", "other_lab/conf/device/lab.yaml": ""},
            ["a = other_lab", "conf/device/lab.yaml exists in"],
        ),
    ],
)
def test_a_broken_package_is_named(
    installed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: str,
    files: dict[str, str],
    words: list[str],
) -> None:
    monkeypatch.syspath_prepend(lay_out(tmp_path / "broken", files, OTHER + entry))
    with pytest.raises(UserError) as caught:
        checked("train", [])
    (line,) = str(caught.value).splitlines()
    for word in ["(pnn.systems) of other-lab", *words]:
        assert word in line


def test_several_broken_packages_are_reported_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(lay_out(tmp_path / "broken", {}, OTHER + 'a = "not_there"\nb = "nor_there"'))
    with pytest.raises(UserError) as caught:
        conf_folders(ROOT / "conf")
    assert [line.split(" (")[0] for line in str(caught.value).splitlines()] == [
        "entry point a = not_there",
        "entry point b = nor_there",
    ]


@pytest.mark.parametrize(
    ("command", "arguments"), [("train", ["--help"]), ("train", ["seed=0"]), ("evaluate", ["--help"])]
)
def test_a_broken_package_ends_every_command_with_code_2(tmp_path: Path, command: str, arguments: list[str]) -> None:
    broken = lay_out(tmp_path / "broken", {}, OTHER + 'a = "not_there"')
    result = python(broken, "-m", f"pnn.{command}", *arguments)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert result.stderr.startswith("pnn: entry point a = not_there (pnn.systems) of other-lab")


def test_a_package_with_an_error_in_its_code_is_named_when_it_is_used(tmp_path: Path) -> None:
    broken = lay_out(tmp_path / "broken", {**PACKAGE, "my_lab/__init__.py": "import not_there"})
    result = python(broken, "-m", "pnn.train", "system=diode_clipper", f"out={tmp_path}/run")
    assert result.returncode == 2 and "Traceback" not in result.stderr and not (tmp_path / "run").exists()
    assert "entry point diode_clipper = my_lab (pnn.systems) of my-lab" in result.stderr
    assert "ModuleNotFoundError: No module named 'not_there'" in result.stderr


def test_packages_and_packages_of_packages_are_found_without_running_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two systems in one package join once; code with an error in it is not touched."""
    files = {"other_lab/__init__.py": "1 / 0", "other_lab/physics/__init__.py": "1 / 0"}
    files |= {f"other_lab/physics/conf/system/{name}.yaml": "" for name in "ab"}
    entries = 'a = "other_lab.physics"\nb = "other_lab.physics"'
    monkeypatch.syspath_prepend(lay_out(tmp_path / "other", files, OTHER + entries))
    assert conf_folders(ROOT / "conf") == [(tmp_path / "other/other_lab/physics/conf").resolve()]


# --- the physics --------------------------------------------------------------------------------------------------


@pytest.fixture
def clipper(installed: Path) -> Callable[..., System]:
    """The document's system in double precision, its YAML with `changes`."""

    def make(inputs: int, **changes: Any) -> System:
        return physics({**yaml.safe_load(YAML), **changes})["system"](inputs, 10).double()

    return make


FINE: dict[str, Any] = {"steps": 20}
R, C, I_S, V, U, V_REF, T = 2200.0, 10e-9, 2.52e-9, 45.3e-3, 1.0, 0.5, 1e-6  # the document's numbers, in SI units


def drive(samples: int, seed: int = 0) -> torch.Tensor:
    """Two records within ±1, slow enough that the diodes conduct both ways."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(2, samples, generator=generator).double().round(decimals=3) - 1


def solved(x: np.ndarray, **numbers: float) -> np.ndarray:
    """y of one record by an implicit integrator of high order, sample by sample."""
    r, c, i_s, v_t = (numbers.get(name, value) for name, value in {"R": R, "C": C, "I_S": I_S, "V": V}.items())
    v, record = 0.0, []
    for u in U * x:
        rhs = lambda _, v, u=u: ((u - v) / r - 2 * i_s * np.sinh(v / v_t)) / c  # noqa: E731
        v = solve_ivp(rhs, (0, T), [v], "Radau", rtol=1e-10, atol=1e-13).y[0, -1]
        record.append(v)
    return np.array(record) / V_REF


def test_the_equation_as_printed(clipper: Callable[..., System]) -> None:
    x = 0.5 * drive(12) + torch.tensor([[0.5], [-0.5]])  # one record up, one down, both into the diodes
    truth = np.stack([solved(row) for row in x.numpy()])
    np.testing.assert_allclose(clipper(12, **FINE)(x).numpy(), truth, rtol=1e-6, atol=1e-8)
    assert np.abs(clipper(12)(x).numpy() - truth).max() < 1e-3  # the digital model, one step per sample
    assert np.abs(clipper(12).converged()(x).numpy() - truth).max() < 1e-5  # a device


def test_one_percent_of_each_constant_is_seen(clipper: Callable[..., System]) -> None:
    """A comparison that could not see a constant would prove nothing; each moves y as SciPy says."""
    x = torch.cat([torch.ones(1, 30), -torch.ones(1, 30)], -1).double()
    y = clipper(60, **FINE)(x)
    constants = {"resistance": ("R", R), "capacitance": ("C", C), "saturation": ("I_S", I_S), "thermal": ("V", V)}
    for name, (symbol, value) in constants.items():
        moved = clipper(60, **FINE, **{name: 1.01 * value})(x)
        assert (moved - y).abs().max() > 2e-4, name
        truth = solved(x[0].numpy(), **{symbol: 1.01 * value})
        np.testing.assert_allclose(moved[0].numpy(), truth, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("level", [1.0, 0.6, -0.8])
def test_a_long_constant_drive_ends_where_the_currents_balance(clipper: Callable[..., System], level: float) -> None:
    y = clipper(300, **FINE)(torch.full((300,), level).double())
    rest = brentq(lambda v: (U * level - v) / R - 2 * I_S * np.sinh(v / V), -1, 1, xtol=1e-15)
    assert float(y[-1]) * V_REF == pytest.approx(rest, rel=1e-5)
    assert abs(rest) < 0.8 * abs(level)  # clipped


def test_the_linear_reference_is_the_closed_form_of_a_low_pass(clipper: Callable[..., System]) -> None:
    """v_{n+1} = v_n e^{−gT/C} + (u/R)(1 − e^{−gT/C})/g, with g = 1/R + 2I_S/nV_T."""
    x = drive(40)
    g = 1 / R + 2 * I_S / V
    decay, v, record = np.exp(-g * T / C), np.zeros(2), []
    for u in U * x.numpy().T:
        v = decay * v + (1 - decay) * u / (R * g)
        record.append(v)
    y = clipper(40, **FINE).linearised()(x)
    np.testing.assert_allclose(y.numpy(), np.stack(record, -1) / V_REF, rtol=1e-6, atol=1e-8)


def test_runge_kutta_is_of_fourth_order(clipper: Callable[..., System]) -> None:
    x = torch.ones(20).double()
    truth = clipper(20, steps=64)(x)
    errors = [float((clipper(20, steps=steps)(x) - truth).norm()) for steps in (4, 8)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.1)


def test_doubling_the_source_and_the_unit_changes_what_the_document_says(clipper: Callable[..., System]) -> None:
    """u = U x and y = v/V_ref: U doubled equals x doubled; V_ref doubled halves y."""
    x = 0.5 * drive(20)
    torch.testing.assert_close(clipper(20, amplitude=2 * U)(x), clipper(20)(2 * x))
    torch.testing.assert_close(clipper(20, unit=2 * V_REF)(x), clipper(20)(x) / 2)


OWN = """
import torch
from pnn.tasks import Task


class MyInstrument:
    made = 0

    def __init__(self, system=None, slot=0):
        type(self).made += 1

    def respond(self, x, *theta):
        return 0.9 * torch.tanh(x)


class MyTask(Task):
    name, features, classes, class_names = "mine", 12, 3, ("a", "b", "c")

    def split(self):
        y = torch.arange(90) % 3
        x = torch.rand(90, 12, generator=torch.Generator().manual_seed(self.split_seed))
        x[torch.arange(90), y] = 1.0
        return tuple((x[rows], y[rows]) for rows in torch.arange(90).split(30))
"""


def test_an_instrument_and_a_task_of_ones_own_as_the_guide_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package.py").write_text(OWN)
    for group, text in (
        ("device", "_target_: my_package.MyInstrument\n_partial_: true\n"),
        (
            "task",
            "_target_: my_package.MyTask\nseed: ${seed}\nsplit_seed: 0\nbatch_size: 10\neval_batch_size: 30\nvalidation: 30\n",
        ),
    ):
        (tmp_path / "D" / group).mkdir(parents=True)
        (tmp_path / "D" / group / "mine.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    asked = ["device=mine", "task=mine", "system=identity", "one_device=true", "architecture.depth=2"]
    config = checked("train", [*asked, "trainer.max_epochs=2", f"out={tmp_path}/run"], str(tmp_path / "D"))
    summary = train(config)
    assert sys.modules["my_package"].MyInstrument.made == 1
    assert summary["device_samples"] == 2 * (2 * (30 + 30) + 30) and 0 <= summary["test_accuracy_device"] <= 1
