"""Share the work of a run among several processes."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from threading import Timer
from typing import Any, TypeVar

from common.errors import InputError, first_line

Item = TypeVar("Item")


_HINT = "start all of them with torchrun or accelerate launch; for a run of one process unset WORLD_SIZE"
_PATIENCE = 5.0  # seconds until a process says whom it waits for


@cache
def _state() -> Any:
    from accelerate import PartialState  # torch is imported where it is needed: tables are drawn without it

    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    waits = f"waiting at {place} for the other {count() - 1} of the WORLD_SIZE={count()} processes; {_HINT}"
    word = Timer(_PATIENCE, lambda: print(waits, file=sys.stderr, flush=True))
    word.daemon = True
    word.start()
    try:
        # Processes wait for the slowest at the end: as long as the work takes, not the half hour that is usual.
        # They only wait for each other and tell each other small things, which gloo does whatever the work runs on.
        return PartialState(cpu=True, timeout=timedelta(days=30))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the processes of this run cannot meet at {place} ({first_line(error)}); {_HINT}") from None
    finally:
        word.cancel()


def _number(name: str, least: int, most: int) -> int:
    """Return a number that a launcher has left in the environment. Raises InputError where it is none."""
    text = os.environ.get(name, "").strip()
    if not text:
        raise InputError(f"WORLD_SIZE says that several processes share this run, and {name} is not set; {_HINT}")
    if not text.isdecimal() or not least <= int(text) <= most:
        raise InputError(f"{name}={text} in the environment: must be a whole number from {least} to {most}; {_HINT}")
    return int(text)


def rank() -> int:
    """Return this process's number, from 0, over all machines."""
    return _state().process_index if count() > 1 else 0


def is_leader() -> bool:
    """Tell whether this is the process that keeps the output folder, and says how far the work is."""
    return rank() == 0


def count() -> int:
    """Return how many processes were started for this run, on all machines, as the launcher has left it in the environment.

    Raises InputError where it has left half of what they need to find each other.
    """
    if os.environ.get("WORLD_SIZE", "").strip() in ("", "0", "1"):  # a batch system may set it for one process too
        return 1
    there = _number("WORLD_SIZE", 1, 100_000)
    _number("RANK", 0, there - 1)
    _number("MASTER_PORT", 1, 65_535)
    if not os.environ.get("MASTER_ADDR", "").strip():
        raise InputError(f"WORLD_SIZE={there} says that several processes share this run, and MASTER_ADDR is not set; {_HINT}")
    return there


def processes_here() -> int:
    """Return how many of the processes share this machine's memory."""
    there = count()
    return _number("LOCAL_WORLD_SIZE", 1, there) if there > 1 and os.environ.get("LOCAL_WORLD_SIZE") else 1


def own_device(name: str) -> str:
    """Return the GPU of this process where several share them out, else the device `name`."""
    if count() == 1 or name != "cuda":
        return name
    import torch

    own, there = _state().local_process_index, torch.cuda.device_count()
    if own >= there:
        raise InputError(f"{processes_here()} processes share {there} GPUs here; start one for each, or give --device cpu")
    return f"cuda:{own}"


def part_of(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's part of `items`: every n-th of them."""
    return items[rank() :: count()]


def wait() -> None:
    """Wait until every process is here."""
    if count() > 1:
        with _all_there():
            _state().wait_for_everyone()


def broadcast(value: Item | None) -> Item:
    """Return process 0's `value` to all processes."""
    values = [value]
    if count() > 1:
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
    if count() > 1:
        _state().destroy_process_group()
