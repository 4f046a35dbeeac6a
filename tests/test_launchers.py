"""Grids through Hydra's launchers: processes on this machine, Ray, and what Slurm would be given."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pnn import runs
from pnn.config import checked, conf_dir
from pnn.errors import UserError
from pnn.launch import launch, split
from pnn.train import train

TINY = ["trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.enable_progress_bar=false"]
LAUNCHERS = sorted(file.stem for file in (conf_dir() / "hydra/launcher").glob("*.yaml"))


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed; pip install 'pnn[slurm,ray]'")


def command(name: str, *arguments: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    call = [sys.executable, "-m", f"pnn.{name}", *arguments]
    return subprocess.run(call, capture_output=True, text=True, timeout=400, env=env)


def settle(result: subprocess.CompletedProcess, folder: Path) -> None:
    """One job has a result, the other's mistake is the command's one message."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("pnn: ")]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and "job 1 (optimizer.lr=1000000000.0)" in lines[0], result.stderr
    assert "lower optimizer.lr" in lines[0] and "Traceback" not in result.stderr
    found = sorted(folder.glob("outputs/custom/*"))
    assert len(found) == 2  # a folder each, though both began in the same second or nearly so
    configs = [(place / "config.yaml").read_text() for place in found]
    assert sorted(re.findall(r"\blr: (\S+)", "".join(configs))) == ["0.01", "1000000000.0"]
    (summary,) = (json.loads(path.read_text()) for path in folder.glob("outputs/custom/*/summary.json"))
    assert 0 <= summary["test_accuracy_device"] <= 1
    assert {p.name for p in folder.iterdir()} == {"outputs"}  # Hydra leaves nothing


GRID = ["-m", *TINY, "optimizer.lr=0.01,1e9", "optimizer.warmup=0"]


@needs("submitit")
def test_jobs_in_processes_of_their_own(tmp_path: Path) -> None:
    result = command("train", *GRID, "hydra/launcher=submitit_local")
    settle(result, tmp_path)
    logs = "".join(path.read_text() for path in (tmp_path / "outputs/submitit").rglob("*_log.out"))
    assert "run folder: outputs/custom/" in logs and "outputs/submitit" in result.stdout


@needs("ray")
def test_jobs_on_ray(tmp_path: Path) -> None:
    settle(command("train", *GRID, "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"), tmp_path)


@needs("submitit")
def test_what_slurm_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The real launcher up to sbatch; an sbatch that keeps the file it is given, and has no cluster."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in (("srun", ""), ("sbatch", 'cp "$1" ../given.sh; echo "no cluster here" >&2; exit 1')):
        (tools / name).write_text(f"#!/bin/sh\ncd {tools}/.. && cd tools\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    asked = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=90"]
    asked += ["hydra.launcher.array_parallelism=2", "+hydra.launcher.additional_parameters.mail-type=END"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="hydra/launcher=submitit_slurm: .*logs: outputs/submitit"):
        launch("train", train, [["seed=0"], ["seed=1"], ["seed=2"]], [{}, {}, {}], asked)
    text = (tmp_path / "given.sh").read_text()
    for line in ("--array=0-2%2", "--partition=gpu", "--time=90", "--mail-type=END", "--mem=8GB", "--cpus-per-task=4"):
        assert f"#SBATCH {line}" in text, text
    assert "--job-name=pnn-train" in text
    assert f"--output={tmp_path}/outputs/submitit/%A_%a/%A_%a_0_log.out" in text
    assert sys.executable in text and "submitit.core._submit" in text


def test_every_job_runs_and_every_mistake_is_told(capsys: pytest.CaptureFixture) -> None:
    done = []

    def job(number: int) -> None:
        if number == 1:
            raise UserError("first\nsecond")
        if number == 2:
            raise ZeroDivisionError("a bug")
        done.append(number)

    with pytest.raises(SystemExit) as ended:
        launch("train", job, [[f"seed={n}"] for n in range(4)], range(4), [])
    assert ended.value.code == 2 and done == [0, 3]
    said = capsys.readouterr().err
    assert "job 1 (seed=1): first; second" in said and "job 2 (seed=2): ZeroDivisionError: a bug" in said
    assert said.count("Traceback") == 1  # of the bug


def test_at_most_so_many_jobs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    sizes, numbers, original = [], [], BasicLauncher.launch

    def watched(self: BasicLauncher, job_overrides: list, initial_job_idx: int) -> object:
        sizes.append(len(job_overrides))
        return original(self, job_overrides, initial_job_idx)

    monkeypatch.setattr(BasicLauncher, "launch", watched)
    launch("train", numbers.append, [[""]] * 5, "abcde", ["hydra.sweeper.max_batch_size=2"])
    assert sizes == [2, 2, 1] and numbers == list("abcde")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_that_is_not_installed_is_named_with_its_remedy(
    launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra.core.plugins import Plugins

    monkeypatch.setattr(Plugins.instance(), "class_name_to_class", {})
    with pytest.raises(UserError, match=rf"hydra/launcher={launcher} .*pip install 'pnn\[(slurm|ray)\]'"):
        launch("train", print, [["seed=0"]], [0], [f"hydra/launcher={launcher}"])


def test_a_mistake_about_the_launcher_stops_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean submitit_local"):
        checked("train", ["hydra/launcher=submitit_locl"])
    with pytest.raises(UserError, match="hydra.launcher.timeout_mi"):
        checked("train", ["hydra/launcher=submitit_local", "hydra.launcher.timeout_mi=3"])
    assert split(["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "seed=1"])[1] == ["seed=1"]


def test_two_runs_of_the_same_second_have_a_folder_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    candidates, original = [tmp_path / "taken", tmp_path / "free"], runs.create

    def create(folder: Path, **how: bool) -> bool:
        if folder.name == "taken":  # by another process, between the choice of the name and now
            original(folder)
        return original(folder, **how)

    monkeypatch.setattr(runs, "new_folder", lambda *_: candidates.pop(0))
    monkeypatch.setattr(runs, "create", create)
    train(checked("train", TINY))
    assert (tmp_path / "free/summary.json").is_file() and (tmp_path / "free/checkpoints/best.ckpt").is_file()
    assert {p.name for p in (tmp_path / "taken").rglob("*")} == {"README.txt", "checkpoints"}


def test_two_twins_of_the_same_second_have_a_folder_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    monkeypatch.setattr(runs, "new_folder", lambda *_: tmp_path / "free")
    assert runs.made(tmp_path / "taken", None, "twin") == tmp_path / "free"
    assert runs.made(tmp_path / "taken", str(tmp_path / "taken"), "twin") == tmp_path / "taken"  # given, and empty
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        runs.made(tmp_path / "file" / "run", str(tmp_path / "file" / "run"), "twin")


def test_points_that_would_overwrite_each_other_are_refused(tmp_path: Path) -> None:
    from pnn.evaluate import refuse_shared_file

    refuse_shared_file([({"out": "a.json"}, {}), ({"out": "b.json"}, {}), ({"out": None}, {}), ({"out": None}, {})])
    with pytest.raises(UserError, match="out=a.json would be written by 2 points"):
        refuse_shared_file([({"out": "a.json"}, {}), ({"out": "a.json"}, {})])


def test_help_ends_quietly_when_nobody_reads_on_and_lists_its_own_groups() -> None:
    call = f"{sys.executable} -m pnn.train --help | head -1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", call], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "") and result.stdout.startswith("pnn-train")
    groups = re.findall(r"^(\w+): \S", command("train", "--help").stdout.partition("== Keys")[0], re.MULTILINE)
    assert "experiment" in groups and "system" in groups and "sweep" not in groups
