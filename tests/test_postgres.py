"""Several pnn-sweep processes on one study in a real PostgreSQL server."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from optuna.trial import TrialState

from pnn.sweep import configuration
from pnn.sweeps import objectives, search
from pnn.sweeps.plan import Plan
from pnn.sweeps.search import open_study, work
from pnn.sweeps.trials import rows


def tools() -> Path | None:
    """The folder of initdb and pg_ctl: on the PATH, or Debian's newest."""
    found = shutil.which("pg_ctl")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


def reason() -> str | None:
    if tools() is None:
        return "no PostgreSQL server here; apt-get install postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed; pip install 'pnn[postgres]'"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "a PostgreSQL server refuses to run as root, and there is no runuser"
    return None


pytestmark = pytest.mark.skipif(reason() is not None, reason=str(reason()))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a database of a server of its own, on a Unix socket in a temporary folder."""
    place = tools()
    assert place is not None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
    as_root = os.geteuid() == 0

    def call(*arguments: str) -> None:
        before = ["runuser", "-u", "postgres", "--"] if as_root else []
        with (folder / "said.txt").open("a") as said:
            try:
                subprocess.run(
                    [*before, *arguments], check=True, cwd=folder, timeout=120, stdout=said, stderr=subprocess.STDOUT
                )
            except subprocess.CalledProcessError as error:
                raise RuntimeError((folder / "said.txt").read_text()) from error

    try:
        if as_root:
            shutil.chown(folder, "postgres")
        data = str(folder / "data")
        call(str(place / "initdb"), "--no-sync", "--auth=trust", "--username=me", "--encoding=UTF8", "-D", data)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        call(str(place / "pg_ctl"), "start", "-w", "-D", data, "-l", str(folder / "log.txt"), "-o", options)
        try:
            yield f"postgresql://me@/postgres?host={quote(str(folder), safe='')}"
        finally:
            call(str(place / "pg_ctl"), "stop", "-m", "immediate", "-D", data)
    finally:
        shutil.rmtree(folder)


TINY = ["experiment=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "sampler=random"]


def plan_of(*overrides: str) -> Plan:
    plan = configuration([*TINY, *overrides])
    assert isinstance(plan, Plan)
    return plan


def test_two_commands_share_a_study_and_run_no_trial_twice(server: str, tmp_path: Path) -> None:
    asked = ["trials=6", "out=study", f"storage='{server}'"]
    call = [sys.executable, "-m", "pnn.sweep", *TINY, *asked]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) for _ in range(2)
    ]
    said = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    study = open_study(plan_of(*asked))
    ran = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert sorted(t.user_attrs["trial"] for t in ran) == list(range(6))  # all of them, none twice
    assert len({t.user_attrs["worker"]["pid"] for t in ran}) == 2  # by both
    assert len({tuple(t.user_attrs["overrides"]) for t in ran}) == 6
    with (tmp_path / "study/trials.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [str(n) for n in range(6)]
    for n in range(6):
        with (tmp_path / f"study/trial-{n:04d}/metrics.csv").open() as file:
            scores = [float(row["val_accuracy_device"]) for row in csv.DictReader(file)]
        assert scores == [next(t for t in ran if t.user_attrs["trial"] == n).value]
    assert not (tmp_path / "study/study.db").exists()


def test_many_workers_at_once(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes that start together, on an empty database and trials that take no time: the hardest case."""
    import multiprocessing

    monkeypatch.setitem(objectives.OBJECTIVES, "train", lambda config, trial: config["optimizer"]["lr"])
    monkeypatch.setattr(search, "composed", lambda plan, drawn: search._with(plan.base, drawn))
    plan = plan_of("trials=12", "name=many", "out=many", f"storage='{server}'")
    plan.folder.mkdir()

    def job() -> None:
        work(plan, open_study(plan))

    workers = [multiprocessing.get_context("fork").Process(target=job) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    study = open_study(plan)
    counts = Counter(t.user_attrs["trial"] for t in study.trials if t.state == TrialState.COMPLETE)
    assert counts == dict.fromkeys(range(12), 1)
    assert [row["state"] for row in rows(study)] == ["complete"] * 12


def test_the_journal_and_the_server_draw_the_same_trials(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters follow from the seed and the place of a trial, whatever the storage."""
    monkeypatch.setitem(objectives.OBJECTIVES, "train", lambda config, trial: config["optimizer"]["lr"])
    monkeypatch.setattr(search, "composed", lambda plan, drawn: search._with(plan.base, drawn))
    tables = []
    for storage in ("journal", f"'{server}'"):
        plan = plan_of("trials=4", "name=same", f"out=study{len(tables)}", f"storage={storage}")
        plan.folder.mkdir()
        study = open_study(plan)
        work(plan, study)
        tables.append([row["overrides"] for row in rows(study)])
    assert tables[0] == tables[1] and len(tables[0]) == 4
