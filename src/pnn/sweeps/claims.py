"""Claims on the points of a study: small files that say which process works on what; a dead process's claim is free."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pnn.runs import write_json
from pnn.sweeps.processes import gone, me


class Claims:
    """The claims in `folder`, one file NAME.claim each: host, process id, start of the process.

    Claims are taken one at a time under a lock of the operating system, which a killed process cannot keep. On another
    machine a claim counts as long as its file was touched within the last ten minutes (`touch`).
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def take(self, name: str) -> bool:
        """Claim `name` for this process; False if a living process has it."""
        with self._locked():
            if self.holder(name):
                return False
            write_json(self._file(name), me())
            return True

    def holder(self, name: str) -> dict | None:
        """The living process that has claimed `name`, or None."""
        try:
            owner = json.loads(self._file(name).read_text())
            last_sign = self._file(name).stat().st_mtime
        except (OSError, ValueError):
            return None
        return None if gone(owner, last_sign) else owner

    def touch(self, name: str) -> None:
        os.utime(self._file(name))

    def release(self, name: str) -> None:
        self._file(name).unlink(missing_ok=True)

    def fail(self, name: str, reason: str) -> None:
        """Remember why `name` cannot be done; nobody tries it again before `forget_failures`."""
        self._reason(name).write_text(reason)

    def failure(self, name: str) -> str | None:
        try:
            return self._reason(name).read_text()
        except OSError:
            return None

    def forget_failures(self) -> None:
        for path in self.folder.glob("*.failed"):
            path.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.claim"

    def _reason(self, name: str) -> Path:
        return self.folder / f"{name}.failed"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
