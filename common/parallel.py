"""Share a run out over the processes that `accelerate launch` has started. Alone, a process has all the work."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState

Item = TypeVar("Item")


@cache
def _state() -> PartialState:
    # Processes wait for the slowest at the end: as long as the work takes, not the half hour that is usual.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=30))


def rank() -> int:
    """Return this process's number, from 0, over all machines."""
    return _state().process_index


def leads() -> bool:
    """Tell whether this is the process that keeps the output folder, and says how far the work is."""
    return rank() == 0


def processes() -> int:
    return _state().num_processes


def processes_here() -> int:
    """Return how many of the processes share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def own_device(device: torch.device) -> torch.device:
    """Return the GPU of this process where several share them, else `device`."""
    several = processes() > 1 and device.type == "cuda" and device.index is None
    return torch.device("cuda", _state().local_process_index) if several else device


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's part of `items`: every n-th of them."""
    return items[rank() :: processes()]


def wait() -> None:
    """Wait until every process is here."""
    _state().wait_for_everyone()


@contextmanager
def first_alone() -> Iterator[None]:
    """Let process 0 through first and the others when it has left."""
    with _state().main_process_first():
        yield


def leave() -> None:
    """Part from the other processes, at the end of the program."""
    _state().destroy_process_group()
