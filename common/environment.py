"""Set import path, threads, figure backend and streams when a script starts.

A program calls `prepare` before any other import of the project, and prints through `patient_streams`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("activation_patching", "common", "data", "logit_lens", "report", "tests")
# Turns that a thread of libgomp's spins at a barrier before it sleeps (its default: for ever, as far as cores go). Beside other
# work it spins on a core that the thread it waits for would need: tests/bench/README.md has what that costs.
SPIN = "10000"
_LOOK = 0.2  # seconds


def prepare(script: str) -> None:
    """Make ready to import: this project's modules under their names, figures without a screen, threads that let others work."""
    here = Path(script).resolve().parent  # on the path of a script, and its modules have names that others have too
    sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p or ".").resolve() not in (here, ROOT))]
    for name in [n for n, module in sys.modules.items() if not _is_ours(n.partition(".")[0], module)]:
        del sys.modules[name]  # of a notebook that has a module of the same name: its own names for it stay
    if "torch" not in sys.modules:
        os.environ.update(thread_settings(os.environ, cores=_cores(), free=_free_cores))
    if "matplotlib" not in sys.modules:
        backend = os.environ.pop("MPLBACKEND", None)  # a notebook's, which may not be installed here, and is of no use for files
        import matplotlib  # noqa: F401

        os.environ.update({} if backend is None else {"MPLBACKEND": backend})


def thread_settings(environment: Any, *, cores: int, free: Any) -> dict[str, str]:
    """Return the variables of OpenMP that suit a machine with `cores` of which `free()` are idle; none that somebody has set.

    Threads wait for each other at every layer. One that has no core of its own holds up all.
    """
    settings = {}
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & {*environment}:
        settings["GOMP_SPINCOUNT"] = SPIN
    if not {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS"} & {*environment} and cores > 1:
        idle = free()
        if idle is not None and round(idle) < cores:
            settings["OMP_NUM_THREADS"] = str(max(1, round(idle)))
    return settings


def _is_ours(top: str, module: Any) -> bool:
    """Tell whether a module is of this project, or has none of its names."""
    if top not in PACKAGES:
        return True
    places = [*getattr(module, "__path__", ()), *filter(None, [getattr(module, "__file__", None)])]
    return any(Path(place).resolve().is_relative_to(ROOT / top) for place in places)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1  # elsewhere there is no libgomp


def _free_cores() -> float | None:
    """Return how many of the cores that this process may use are idle; None where the system does not tell.

    Looked at over a moment: the load average remembers the run before this one.
    """
    before = _ticks()
    time.sleep(_LOOK)
    pairs = [(total - before[core][0], idle - before[core][1]) for core, (total, idle) in _ticks().items() if core in before]
    return sum(idle / total for total, idle in pairs) if pairs and all(total > 0 for total, _ in pairs) else None


def _ticks() -> dict[str, tuple[int, int]]:
    """Return for each core that this process may use its ticks so far, and those in which it was idle."""
    own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()]
        return {name: (sum(map(int, rest[:8])), int(rest[3]) + int(rest[4])) for name, *rest in lines if name in own}
    except (OSError, ValueError, IndexError):
        return {}


def patient_streams() -> None:
    """Let no print end the program: neither a reader that has gone, a full disk, nor a character that an encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed: the next file to be opened would have its number, and be printed to
            setattr(sys, name, _nowhere())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, _Patient(stream))


def _nowhere() -> Any:
    return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")


class _Patient:
    """A stream that throws away what can no longer be written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            if "\n" in text:
                self._stream.flush()
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        try:  # what is in its buffer would be tried again, and fail, at the end of the program
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        except (OSError, ValueError):
            self._stream = _nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
