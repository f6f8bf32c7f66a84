"""gpu.json: the setting, and for every part and case what came of it. It is written after each case, so a cut loses one."""

import json
import os
from pathlib import Path
from typing import Any

FILE = "gpu.json"
# What became of a case. Only "done" is kept by a second start; the others are tried again.
DONE, STARTED, FAILED, NO_MEMORY, CUT, WAITING = "done", "started", "failed", "out of memory", "cut", "not reached"
AGAIN = 75  # exit code of a worker that a fresh process should go on for

Record = dict[str, Any]  # state, start (of which start of the run), and seconds, figures or error


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
