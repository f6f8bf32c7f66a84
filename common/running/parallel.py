"""Share a run out over the processes that `accelerate launch` has started. Alone, a process has all the work."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from common.errors import InputError

Item = TypeVar("Item")


@cache
def _state() -> Any:
    from accelerate import PartialState  # torch is imported where it is needed: tables are drawn without it

    # Processes wait for the slowest at the end: as long as the work takes, not the half hour that is usual.
    # They only wait for each other and tell each other small things, which gloo does whatever the work runs on.
    return PartialState(cpu=True, timeout=timedelta(days=30))


def rank() -> int:
    """Return this process's number, from 0, over all machines."""
    return _state().process_index if processes() > 1 else 0


def is_leader() -> bool:
    """Tell whether this is the process that keeps the output folder, and says how far the work is."""
    return rank() == 0


def processes() -> int:
    """Return how many processes were started for this run, on all machines."""
    return _state().num_processes if int(os.environ.get("WORLD_SIZE", 1)) > 1 else 1


def processes_here() -> int:
    """Return how many of the processes share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def own_device(name: str) -> str:
    """Return the GPU of this process where several share them out, else the device `name`."""
    if processes() == 1 or name != "cuda":
        return name
    import torch

    own, there = _state().local_process_index, torch.cuda.device_count()
    if own >= there:
        raise InputError(f"{processes_here()} processes share {there} GPUs here; start one for each, or give --device cpu")
    return f"cuda:{own}"


def part_of(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's part of `items`: every n-th of them."""
    return items[rank() :: processes()]


def wait() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        with _all_there():
            _state().wait_for_everyone()


def broadcast(value: Item | None) -> Item:
    """Return process 0's `value` to all processes."""
    values = [value]
    if processes() > 1:
        import torch

        with _all_there():
            torch.distributed.broadcast_object_list(values, src=0)
    return values[0]  # type: ignore[return-value]


@contextmanager
def _all_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError:  # gloo's word for a connection that broke
        raise InputError("another process of this run has ended; the same command goes on from here") from None


def shutdown() -> None:
    """Part from the other processes, at the end of the program."""
    if processes() > 1:
        _state().destroy_process_group()
