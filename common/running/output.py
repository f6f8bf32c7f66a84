"""A run and its folder: what identifies a run, rows that survive an interruption, run.json."""

import argparse
import json
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import InputError
from common.running import parallel
from common.running.identity import commit, shown
from common.running.rows import finished_units, parts_of, write_whole
from common.running.session import Session

TABLES = ("layers", "contrast", "release_layer", "congruent", "labels", "decision_layer")
# Options that rows do not depend on, or that are told otherwise


# What identifies a run ---------------------------------------------------------------------------------------------------


# The output folder -------------------------------------------------------------------------------------------------------


def begin(args: argparse.Namespace, rows: Path, identity: dict[str, Any], unit: str, size: int) -> tuple[bool, set[str]]:
    """Make the output folder ready; return whether its run has finished, and the units that have all their `size` rows."""
    begun = None
    if parallel.is_leader():  # it alone: another would take what this one already writes for the remains of an earlier run
        begun = open_output(args.out, rows, identity, overwrite=args.overwrite), finished_units(rows, unit, size)
    return parallel.broadcast(begun)


def open_output(out: Path, rows: Path, identity: dict[str, Any], *, overwrite: bool) -> bool:
    """Make `out` ready for the run with this identity, a fresh one or the one to go on with; return whether it has finished.

    Raises InputError, touching nothing, where `out` holds another run, or rows that nobody can place, and not `overwrite`.
    """
    record = out / "run.json"
    offer = "give another --out, or --overwrite to start anew"
    if not overwrite and record.exists():
        try:
            earlier = json.loads(record.read_text(encoding="utf-8"))
            before, finished = earlier["identity"], earlier["finished"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{record}: not the record of a run; {offer}") from None
        differing = [k for k in sorted({*before, *identity}) if before.get(k) != json.loads(json.dumps(identity)).get(k)]
        if differing:
            listed = ", ".join(f"{k} ({_brief(before.get(k))} there, {_brief(identity.get(k))} now)" for k in differing)
            raise InputError(f"{out} holds a run with other settings: {listed}; {offer}")
        if finished:
            return True
    elif not overwrite and rows.exists():
        raise InputError(f"{rows} is there without a run.json that says how it came about; {offer}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if overwrite:
            for old in (rows, *parts_of(rows), *(out / f"{t}.csv" for t in TABLES), *out.glob("*_curve*.png")):
                old.unlink(missing_ok=True)
        write_record(out, {"identity": identity, "finished": False})
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    return False


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def close_output(out: Path, identity: dict[str, Any], session: Session, counts: dict[str, Any], *, began: float) -> None:
    """Write the finished run's run.json: what was asked, what was used, what was kept, how the checks came out."""
    record = {"identity": identity, "finished": True, "commit": commit(), "python": platform.python_version(), **session.facts()}
    record["processes"] = parallel.processes()
    write_record(out, {**record, "counts": counts, "seconds": round(time.time() - began, 1)})


def subtitle(args: argparse.Namespace) -> str:
    """Return the line under every figure that says what was asked of which model."""
    clips = Path(*args.data.resolve().parts[-2:])
    return f"model: {Path(args.model).name}, prompt: {Path(args.prompt).name}, clips: {clips}"


def write_tables(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write each table to the CSV of its name."""
    for name, table in tables.items():
        write_whole(out / f"{name}.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def files_written(out: Path, rows: Path, tables: Iterable[str], figures: Iterable[str]) -> str:
    """Return the closing line that names a run's files."""
    return f"written to {shown(out)}: {', '.join((rows.name, *(f'{t}.csv' for t in tables), *figures, 'run.json'))}"


def write_record(out: Path, record: dict[str, Any]) -> None:
    """Write run.json."""
    write_whole(out / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
