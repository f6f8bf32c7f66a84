"""Run each part in a process of its own, with a time limit of its own. No torch here: nothing that a part does can hurt it.

gpu.json has the setting, and for every part and case what came of it. It is written after each case, so a cut loses one.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
# Nothing is downloaded, and nothing waits for a network that is not there.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}
FILE = "gpu.json"
# What became of a case. Only "done" is kept by a second start; the others are tried again.
DONE, STARTED, FAILED, NO_MEMORY, CUT, WAITING = "done", "started", "failed", "out of memory", "cut", "not reached"
AGAIN = 75  # exit code of a worker that a fresh process should go on for

Record = dict[str, Any]  # state, start (of which start of the run), and seconds, figures or error


@dataclass(frozen=True)
class Part:
    """A module with `cases` and `measure`, the question that it answers, and the seconds that it may take."""

    name: str
    question: str
    limit: float
    package: str = "tests.gpu"


PARTS = (
    Part("speed", "How fast?", 100),
    Part("right", "Is it right there?", 100),
    Part("profile", "Where does the time go?", 40),
    Part("loops", "Against what?", 50),
)


def run_part(part: Part, out: Path, *, start: str, small: bool = False) -> None:
    """Run the cases of a part that are not done; what a cut stops is written down, and a fresh process goes on after it.

    Raises InputError, with the worker's own words, where the run cannot start.
    """
    end = time.monotonic() + part.limit
    command = [
        sys.executable,
        "-m",
        "tests.gpu.worker",
        f"{part.package}.{part.name}",
        "--out",
        str(out.resolve()),
        "--start",
        start,
    ]
    with open(out / f"{part.name}.log", "a", encoding="utf-8") as log:
        while (left := end - time.monotonic()) > 0:
            worker = subprocess.Popen(
                [*command, *(["--small"] if small else [])],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **ENVIRONMENT},
            )
            code = _ended(worker, left)
            if code == 0:
                return
            if code == 2:
                raise InputError(_last_line(out, part))
            reason = f"its limit of {part.limit:.0f} s is over" if code is None else f"its process ended with code {code}"
            was_in_work = _cut(out, part, reason)
            if code != AGAIN and not was_in_work:
                note(out, part.name, "start", state=FAILED, start=start, error=_last_line(out, part))
                return


def _ended(worker: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for a worker to end; return its exit code, or None where it had to be stopped."""
    try:
        return worker.wait(seconds)
    except subprocess.TimeoutExpired:
        worker.terminate()  # writes down where it is
        return None
    finally:
        try:
            worker.wait(3)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait(10)


def _cut(out: Path, part: Part, reason: str) -> bool:
    """Write down which case was in work when its process ended; tell whether there was one."""
    found = [(case, r) for case, r in records(read(out), part.name).items() if r["state"] == STARTED]
    for case, record in found:
        note(out, part.name, case, state=CUT, start=record["start"], error=reason)
    return bool(found)


def _last_line(out: Path, part: Part) -> str:
    lines = (out / f"{part.name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its process said nothing")


def read(out: Path) -> dict[str, Any]:
    """Return what is there: {"setting": ..., "parts": {part: {case: record}}}."""
    path = out / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"parts": {}}


def write(out: Path, state: dict[str, Any]) -> None:
    partial = out / f"{FILE}.partial"
    partial.write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, out / FILE)


def records(state: dict[str, Any], part: str) -> dict[str, Record]:
    return state["parts"].setdefault(part, {})


def note(out: Path, part: str, case: str, **record: Any) -> None:
    """Write the record of one case."""
    state = read(out)
    records(state, part)[case] = record
    write(out, state)
