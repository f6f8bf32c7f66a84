"""Run each part in a process of its own, with a time limit of its own. No torch here: nothing that a part does can hurt it."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from tests.gpu.results import AGAIN, CUT, FAILED, STARTED, note, read, records

ROOT = Path(__file__).resolve().parents[2]
# Nothing is downloaded, and nothing waits for a network that is not there.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}


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
