"""Data-parallel training (DDP): the processes of one run, which of them this is, and what they share.

`trainer.devices=N` trains with N processes, each on its own part of every batch. On one machine the first process starts
the others, with the configuration it has itself; under srun or torchrun they all exist already.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.rules import Config

#: Says to a later process that a first one waits for it.
STARTED_BY_US = "PNN_STARTED_BY_FIRST_PROCESS"


@dataclass(frozen=True)
class Place:
    """Process `rank` of the `count` processes of a run; `external` when something else started them all."""

    rank: int = 0
    count: int = 1
    external: bool = False

    @property
    def first(self) -> bool:
        """The process that writes files, speaks, and scores the test set."""
        return self.rank == 0


def place_of(config: Config) -> Place:
    """This process's place in the run that `config` describes. Raises UserError for what several processes cannot do."""
    node = config["trainer"]
    nodes = node.get("num_nodes", 1)
    if node.get("devices", 1) == 1 and nodes == 1:
        return Place()
    from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

    from pnn.callbacks import quiet

    quiet()
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = trainer_of({**node, **dict.fromkeys(silent, False)})  # which devices `auto` and -1 mean
    if isinstance(trainer.strategy, SingleDeviceStrategy):
        return Place()
    if type(trainer.strategy) is not DDPStrategy or trainer.strategy._start_method != "popen":
        raise UserError(f"trainer.strategy={node.get('strategy')} is not one that pnn can train with; use ddp")
    _check_tasks(trainer)
    assert trainer.strategy.cluster_environment is not None
    external = trainer.strategy.cluster_environment.creates_processes_externally
    place = Place(trainer.global_rank, trainer.world_size, external)
    if nodes != 1 and not external:
        raise UserError(f"trainer.num_nodes={nodes} needs its processes started on every node; use srun or torchrun")
    if config["task"]["batch_size"] < place.count:
        raise UserError(
            f"task.batch_size={config['task']['batch_size']} must be >= the {place.count} processes that share a batch; "
            f"use trainer.devices={config['task']['batch_size']} or larger batches"
        )
    return place


def _check_tasks(trainer: Any) -> None:
    """Refuse a Slurm step with another number of tasks: its processes would wait for others forever."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    wanted = trainer.num_devices * trainer.num_nodes
    tasks = int(os.environ.get("SLURM_NTASKS", wanted))
    if isinstance(trainer.strategy.cluster_environment, SLURMEnvironment) and tasks != wanted:
        raise UserError(
            f"trainer.devices × trainer.num_nodes = {wanted} needs as many tasks, and Slurm started {tasks}; "
            f"use srun --nodes={trainer.num_nodes} --ntasks-per-node={trainer.num_devices}"
        )


def trainer_of(node: Config, **arguments: Any) -> Any:
    """Lightning's Trainer. Raises UserError for what it refuses."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from pnn.build import instantiate

    try:
        return instantiate({**node, "_partial_": True})(**arguments)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"trainer: {error}") from error


def shared(place: Place) -> dict[str, Any]:
    """The Trainer's arguments for a run of several processes; a batch is shared by the loader, buffers never change."""
    if place.count == 1:
        return {}
    from pytorch_lightning.strategies import DDPStrategy
    from torch.nn.parallel import DistributedDataParallel

    known = inspect.signature(DistributedDataParallel).parameters
    still: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    return {"strategy": DDPStrategy(**still), "use_distributed_sampler": False}


def alone(config: Config) -> Any:
    """A Trainer for the first process by itself, on one device."""
    from pytorch_lightning.plugins.environments import LightningEnvironment

    node = {**config["trainer"], "devices": 1, "num_nodes": 1, "strategy": "auto", "enable_progress_bar": False}
    silent = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return trainer_of(node, plugins=[LightningEnvironment()], **silent)


def own_streams(devices: Sequence[Any], rank: int, seed: int) -> None:
    """Give a later process's devices noise of their own, and a ledger that starts at zero.

    They are the same devices (constants, drift) measured at the same time; what was measured before is the first one's.
    """
    import torch

    from pnn.devices.build import seed_of

    if rank == 0:
        return
    torch.manual_seed(seed_of(seed, rank))
    for device in devices:
        state = device.state_dict()
        if "generator" in state:
            stream = torch.Generator()
            stream.set_state(state["generator"])
            base = int(torch.randint(2**62, (), generator=stream))
            state["generator"] = torch.Generator().manual_seed(seed_of(base, rank)).get_state()
        if "ledger" in state:
            state["ledger"] = dict.fromkeys(state["ledger"], 0)
        device.load_state_dict(state)


def count_all(devices: Sequence[Any], place: Place) -> None:
    """Add to the first process's ledgers what the others' devices were asked."""
    from pnn.module import gathered

    if place.count == 1:
        return
    ledgers = gathered([device.ledger.state_dict() for device in devices], place.count)
    for device, *others in zip(devices, *ledgers[1:], strict=True) if place.first else ():
        for ledger in others:
            device.ledger.calls += ledger["calls"]
            device.ledger.samples += ledger["samples"]


@contextlib.contextmanager
def together(config: Config, place: Place) -> Iterator[Callable[[], None]]:
    """Start the other processes of the run, unless they exist; end them, and the group, with it.

    Yields what to call before training: it returns when all processes have built the same experiment. Raises UserError
    with a later process's mistake or when one was killed, RuntimeError for a bug in one.
    """
    if place.count == 1:
        yield lambda: None
        return
    try:
        if place.external:
            yield _say_ready
        else:
            with _environment(place.count) as environment:
                yield from _with_others(config, place.count, environment)
    finally:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def _say_ready() -> None:
    if STARTED_BY_US in os.environ and sys.__stdout__ is not None:
        print("ready", file=sys.__stdout__, flush=True)


@dataclass
class Other:
    """A later process that this one has started, and the file with what it said."""

    rank: int
    process: subprocess.Popen
    said: Any

    def await_ready(self) -> None:
        assert self.process.stdout is not None
        if not self.process.stdout.readline():  # it has ended
            self.process.wait()
            self.explain()

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def explain(self) -> None:
        """Raise what ended it, if that was neither the end of its work nor a wish to stop."""
        self.said.seek(0)
        text, code = self.said.read().strip(), self.process.returncode
        if code == 2:
            raise UserError(text.splitlines()[-1])
        if code is not None and code < 0:
            raise UserError(
                f"process {self.rank} of the run was killed by {signal.Signals(-code).name} (is there enough memory?); "
                "resume with the same command and ckpt_path=RUN/checkpoints/last.ckpt"
            )
        if code not in (0, 130, None):
            raise RuntimeError(f"process {self.rank} of the run ended with code {code}: {text[-2000:]}")


def _with_others(config: Config, count: int, environment: dict[str, str]) -> Iterator[Callable[[], None]]:
    with contextlib.ExitStack() as files:
        others: list[Other] = []
        for rank in range(1, count):
            said = files.enter_context(tempfile.TemporaryFile("w+"))
            others.append(Other(rank, _start(config, rank, environment, said), said))
            files.callback(others[-1].process.kill)

        def settle(seconds: float) -> None:
            for other in others:
                other.wait(seconds)
            for other in others:
                other.explain()

        def ready() -> None:
            for other in others:
                other.await_ready()

        try:
            yield ready
        except Exception:
            settle(5)  # what ended this process may be the end of another one
            raise
        settle(60)


def _start(config: Config, rank: int, environment: dict[str, str], said: Any) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "pnn.later"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
        env={**environment, "LOCAL_RANK": str(rank), STARTED_BY_US: "1"},
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(config))
    return process


@contextlib.contextmanager
def _environment(count: int) -> Iterator[dict[str, str]]:
    """The variables by which the processes of one machine find each other, and their share of its cores."""
    import torch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = torch.get_num_threads()
    each = max(1, min(threads, (os.cpu_count() or 1) // count))
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    own |= {"LOCAL_RANK": "0", "OMP_NUM_THREADS": str(each), "MKL_NUM_THREADS": str(each)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    torch.set_num_threads(each)
    try:
        paths = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
        yield {**os.environ, "PYTHONPATH": paths}
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
