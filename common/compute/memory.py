"""Measure main memory, and keep prefix caches for several prompts within it."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import psutil

from common.processes import processes_here


def cache_bytes(gigabytes: float | None) -> int:
    """Return the budget of this process in bytes: its part of `gigabytes`, or of a quarter of the memory free to the job."""
    total = free_memory() / 4 if gigabytes is None else gigabytes * 1e9
    return int(total / processes_here())


def free_memory(root: Path = Path("/")) -> int:
    """Return the bytes of main memory that this job may still take: the machine's, or less under Slurm, Docker or the like.

    These limit a job by Linux control groups, of version 2 or 1 and at any level; what a group holds of files that it has
    read counts as free. `root` is the file system's, for tests.
    """
    free = [psutil.virtual_memory().available]
    groups = root / "proc" / "self" / "cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys" / "fs" / "cgroup" / ("memory" if controllers else "")
        own = top / path.lstrip("/")
        free += [left for level in (own, *own.parents) if level.is_relative_to(top) for left in _left_in(level)]
    return max(0, min(free))


def _left_in(group: Path) -> list[int]:
    """Return what a control group of memory may still take, in a list; an empty one where it has no limit or is not there."""
    for limit, usage, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, used = (group / limit).read_text().strip(), int((group / usage).read_text())
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except OSError:
            continue
        return [] if most == "max" else [int(most) - used + int(counts.get(files, 0))]
    return []


class PrefixCacheStore:
    """What the run of one prompt leaves for the next: the model, and in main memory what half of cache_bytes has room for."""

    def __init__(self, gigabytes: float | None) -> None:
        self._left = cache_bytes(gigabytes) // 2
        self._kept: dict[Hashable, Any] = {}

    def of(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """Return what `make` gives for a key, with its size in bytes; what is there is not made again."""
        if key in self._kept:
            return self._kept[key]
        made, size = make()
        if size <= self._left:
            self._left -= size
            self._kept[key] = made
        return made

    def drop(self, key: Hashable) -> None:
        """Forget what is kept for a key; it is made anew when it is asked for again."""
        self._kept.pop(key, None)
