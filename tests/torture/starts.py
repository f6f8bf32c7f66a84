"""Start the scripts as processes of their own, on the tiny model, with what is to befall them.

A server that has imported torch forks them, and their figures are blank, so that a start takes a second: drawing would be most
of it. TORTURE is how often each test does its worst.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from common import plotting
from common.run.command_line import main_of

TIMES = int(os.environ.get("TORTURE", 0))  # 0: the short form
ROWS = {"logit_lens": "lens.csv", "activation_patching": "patches.csv"}
LIMITS = {"logit_lens": ("--limit", "6"), "activation_patching": ("--max-pairs", "8", "--cache-gb", "0")}
KILL = ("kill",)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["tests.tiny_models.tiny", "tests.torture.starts", *(f"{n}.{m}" for n in ROWS for m in ("rows", "run"))]
)


@dataclass(frozen=True)
class Job:
    """A script, its model and clips, and the folder it writes to."""

    name: str
    model: Path
    data: Path
    out: Path

    @property
    def arguments(self) -> list[str]:
        options = ("--model", self.model, "--data", self.data, "--out", self.out, "--device", "cpu")
        return [*map(str, options), *LIMITS[self.name]]

    def into(self, out: Path) -> "Job":
        return replace(self, out=out)

    @property
    def rows(self) -> Path:
        return self.out / ROWS[self.name]


@dataclass(frozen=True)
class Fate:
    """Before the `number`-th time that a process touches its folder, `command` is run, or the process killed."""

    number: int
    command: Sequence[str] = KILL


class Start:
    """A running script, of one process or one of several, and what it has printed."""

    def __init__(
        self, job: Job, log: Path, *, fate: Fate | None = None, at: float = 0, environment: dict[str, str] | None = None
    ):
        self.log = log
        self.process: BaseProcess = _CONTEXT.Process(target=_run, args=(job, log, fate, at, environment or {}))
        self.process.start()

    def end(self) -> int:
        """Wait for the end; return the exit code, -9 where the process was killed."""
        self.process.join(timeout=300)
        assert self.process.exitcode is not None, f"still running: {self.log.read_text()}"
        return self.process.exitcode

    def kill(self, *, after: float = 0) -> int:
        self.process.join(timeout=after)
        self.process.kill()
        return self.end()

    @property
    def last_line(self) -> str:
        return self.log.read_text().rstrip().splitlines()[-1]


def start_several(job: Job, log: Path, count: int) -> list[Start]:
    """Start `count` processes that share a run out, as `accelerate launch` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    numbers = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    logs = [log.with_name(f"{log.name}.{rank}") for rank in range(count)]
    return [Start(job, own, environment=(shared | number) if count > 1 else {}) for own, number in zip(logs, numbers)]


def _run(job: Job, log: Path, fate: Fate | None, at: float, environment: Mapping[str, str]) -> None:
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    os.environ.update(environment)
    plotting.save = lambda sheet, path, **_: plotting.claim(path).write_bytes(bytes(20_000))
    script = importlib.import_module(f"{job.name}.run")
    sys.argv = [f"{job.name}/run.py", *job.arguments]
    if fate:
        sys.addaudithook(_Hook(job.out, fate))
    while time.time() < at:
        pass
    main_of(script.main)


class _Hook:
    """Count how often a process touches files in a folder, and let its fate befall it."""

    EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime")

    def __init__(self, out: Path, fate: Fate) -> None:
        self.out, self.fate, self.count = str(out), fate, 0

    def __call__(self, event: str, values: tuple[object, ...]) -> None:
        if event in self.EVENTS and str(values[0]).startswith(self.out):
            self.count += 1
            if self.count == self.fate.number:
                if self.fate.command == KILL:
                    os.kill(os.getpid(), signal.SIGKILL)
                subprocess.run(self.fate.command, check=True)
