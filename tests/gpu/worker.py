"""The process of one part: measure its cases one after the other, and write each down.

A case that raises is written down and the next one starts. After an error that leaves the GPU's memory or its state in doubt
the process ends with AGAIN, and a fresh one goes on.
"""

import argparse
import contextlib
import faulthandler
import importlib
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from common.errors import InputError, first_line
from tests.gpu.runner import AGAIN, DONE, FAILED, NO_MEMORY, STARTED, WAITING, note, read, records, write

Measure = Callable[[str], dict[str, Any]]


def work(part: str, cases: list[str], measure: Measure, out: Path, *, start: str) -> int:
    """Measure the cases that are not done, or were skipped, and that this `start` has not tried; return the exit code."""
    state = read(out)
    before = records(state, part)
    state["parts"][part] = {case: before.get(case, {"state": WAITING}) for case in cases}
    write(out, state)
    for case, record in state["parts"][part].items():
        measured = record["state"] == DONE and "skipped" not in record["figures"]
        if measured or record.get("start") == start:
            continue
        print(f"\n{part}: {case}", flush=True)
        note(out, part, case, state=STARTED, start=start)
        began = time.perf_counter()
        outcome, spoilt = _outcome(case, measure)
        note(out, part, case, start=start, seconds=round(time.perf_counter() - began, 2), **outcome)
        if spoilt:
            return AGAIN
    return 0


def _outcome(case: str, measure: Measure) -> tuple[dict[str, Any], bool]:
    """Return what is written down of a case, and whether the process should end after it."""
    try:
        return {"state": DONE, "figures": measure(case)}, False
    except Exception as error:
        traceback.print_exc()
        no_memory = isinstance(error, torch.OutOfMemoryError)
        reason = f"{type(error).__name__}: {first_line(error)}"
        return {"state": NO_MEMORY if no_memory else FAILED, "error": reason}, no_memory or "CUDA error" in str(error)


def setting(*, small: bool) -> dict[str, Any]:
    """Return what the figures depend on. Raises InputError where there is no GPU and none is rehearsed."""
    gpu = torch.cuda.is_available()
    if not gpu and not small:
        raise InputError("no GPU that torch can use; --small rehearses the run without one")
    about = torch.cuda.get_device_properties(0) if gpu else None
    return {
        "device": about.name if about else "CPU",
        "memory_gb": round(about.total_memory / 1e9, 1) if about else None,
        "capability": f"{about.major}.{about.minor}" if about else None,
        "small": small,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if about else None,
        "transformers": version("transformers"),
    }


def keep_setting(out: Path, now: dict[str, Any]) -> None:
    """Write the setting down, once. Raises InputError where the folder holds figures of another."""
    state = read(out)
    there = state.setdefault("setting", now)
    if differing := [f"{key}: {there.get(key)} there, {value} now" for key, value in now.items() if there.get(key) != value]:
        raise InputError(f"{out} holds figures of another setting ({'; '.join(differing)}); give another --out")
    write(out, state)


def main() -> int:
    parser = argparse.ArgumentParser(description="started by tests.gpu, for one part")
    parser.add_argument("module", help="of a part: its `cases` and `measure`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", required=True, help="which start of the run this is")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    faulthandler.enable()
    faulthandler.register(signal.SIGTERM, chain=True)  # where it hung is in the log
    print(f"\n=== {args.module}, {args.start}", flush=True)
    try:
        keep_setting(args.out, setting(small=args.small))
    except InputError as error:
        print(error, flush=True)
        return 2
    with contextlib.suppress(OSError):
        subprocess.run(["nvidia-smi"], stdout=sys.stdout, stderr=subprocess.STDOUT, timeout=10, check=False)
    part = importlib.import_module(args.module)
    name = args.module.rpartition(".")[2]
    return work(name, part.cases(small=args.small), lambda case: part.measure(case, small=args.small), args.out, start=args.start)


if __name__ == "__main__":
    sys.exit(main())
