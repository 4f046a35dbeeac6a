"""Worker processes on one machine, and how to tell whether a process still lives."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: A worker says every PULSE seconds that it lives; one on another machine is given up after SILENCE.
PULSE, SILENCE = 30.0, 600.0


def me() -> dict[str, Any]:
    """Which process this is."""
    return {"host": platform.node(), "pid": os.getpid(), "started": started(os.getpid())}


def started(pid: int) -> str | None:
    """When a process of this machine started, in the system's own units; `?` if that is unknown, None if it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():
            fields = stat.read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else fields[19]
        os.kill(pid, 0)
    except PermissionError:
        return "?"
    except OSError:
        return None
    return "?"


def gone(worker: dict[str, Any], last_sign: float) -> bool:
    """Whether the process `worker` (as `me` described itself) is gone; `last_sign` is the time of its last pulse, s."""
    if worker["host"] != platform.node():
        return time.time() - last_sign > SILENCE
    return worker["started"] != started(worker["pid"])


@contextlib.contextmanager
def pulse(say: Callable[[], object]) -> Iterator[None]:
    """Call `say` every PULSE seconds as long as this lasts: other machines cannot see this process."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(PULSE):
            with contextlib.suppress(Exception):  # the storage may be away for a while
                say()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """A run that ends by an exception leaves its handlers of Ctrl-C and SIGTERM behind; put ours back."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def crew(job: Callable[..., object], arguments: tuple[Any, ...], count: int, watch: Callable[[], object]) -> None:
    """Run `job(*arguments)` in `count` processes until all have ended; `watch` is called twice a second meanwhile.

    Ctrl-C and SIGTERM are passed on, so that every job can stop in its own way; a job whose parent was killed is told to
    stop, too.
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_member, args=(job, arguments, count), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(0.5)
            watch()
    except KeyboardInterrupt:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(30)
        raise


def _member(job: Callable[..., object], arguments: tuple[Any, ...], count: int) -> None:
    import torch

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // count)))
    try:
        job(*arguments)
    except KeyboardInterrupt:
        sys.exit(130)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
