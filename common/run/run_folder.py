"""A run's folder: whether it holds this run already, the rows that are still to make, run.json."""

import json
import platform
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from common import files, processes
from common.clips import csvfile
from common.errors import InputError, first_line
from common.files import write_whole
from common.run.record import commit, differences
from common.run.rows import append_rows, complete, finished_units, part_names

_LONG = 90  # seconds: how long a run takes is said where it is more
if TYPE_CHECKING:
    import pandas as pd  # only tables need it: rows are made without

_OFFER = "give another --out, or --overwrite to start anew"


@dataclass(frozen=True)
class Run:
    """A run's `rows` file, the column that names their `unit`, and all that the rows depend on."""

    rows: Path
    unit: str
    identity: dict[str, Any]

    @property
    def out(self) -> Path:
        return self.rows.parent

    def known(self, more: dict[str, Any]) -> "Run":
        """Return the run with what only the model could tell of its identity."""
        return replace(self, identity=self.identity | more)


@dataclass(frozen=True)
class Work:
    """What makes the rows of a run: `make` takes groups of units and yields the rows of some at a time, one for each of `layers`.

    The units of a group are made together, `name` tells how a unit is called in the rows, which are kept in this order. `whole`
    takes the units whose rows are there, and returns those that need not be made again: less, where a run keeps more than rows.
    """

    make: Callable[[Sequence[list[Any]]], Iterable[list[dict[str, Any]]]]
    groups: Sequence[list[Any]]
    name: Callable[[Any], str]
    layers: Sequence[int]
    whole: Callable[[set[str]], set[str]] = set


def is_finished(run: Run, *, overwrite: bool) -> bool:
    """Tell whether the folder holds this run's rows already: then no model is needed.

    Raises InputError, touching nothing, where it holds another run, or rows that nobody can place, and not `overwrite`.
    """
    return processes.broadcast(_look(run, overwrite=overwrite) if processes.is_leader() else None)


def _look(run: Run, *, overwrite: bool) -> bool:
    files.check(run.out)
    if overwrite:
        return False
    if not (run.out / "run.json").exists():
        if run.rows.exists():
            raise InputError(f"{run.rows} is there without a run.json that says how it came about; {_OFFER}")
        return False
    earlier = read_record(run.out)
    if differing := differences(earlier["identity"], run.identity):
        raise InputError(f"{run.out} holds a run with other settings: {', '.join(differing)}; {_OFFER}")
    return bool(earlier["finished"]) and run.rows.exists()


def recorded_form(run: Run, *, overwrite: bool) -> str | None:
    """Return the form of the answer that an earlier start of the run has recorded: one run is read in one form."""
    if overwrite or not (run.out / "run.json").exists():
        return None
    return read_record(run.out)["identity"].get("answer_form")


def make_rows(run: Run, work: Work, *, overwrite: bool) -> bool:
    """Make the rows that are not there yet; return True to the process that goes on, when all of them are."""
    begun = _begin(run, work, overwrite=overwrite) if processes.is_leader() else None
    done, parts = processes.broadcast(begun)  # the leader's: another would take what this one writes for the remains of a run
    left = [group for group in work.groups if not done.issuperset(map(work.name, group))]  # whole: fewer would round otherwise
    groups = processes.part_of(left)
    unit = run.unit.partition("_")[0]
    with tqdm(total=sum(map(len, groups)), desc=run.rows.stem, unit=unit, disable=not processes.is_leader()) as bar:
        for number, rows in enumerate(work.make(groups)):
            append_rows(parts[processes.rank()], rows)
            bar.update(len(rows) // len(work.layers))
            if number == 0:
                first, warm = bar.n, time.monotonic()  # of what comes once alone
            if number == 1 and bar.n:  # 0 where the bar is not shown
                seconds = (time.monotonic() - warm) / (bar.n - first) * (bar.total - bar.n)
                if seconds > _LONG:
                    bar.write(f"{bar.total - bar.n} {unit}s are left: about {seconds / 60:.0f} minutes")
    return complete(run.rows, run.unit, work.layers, order=[work.name(item) for group in work.groups for item in group])


def _begin(run: Run, work: Work, *, overwrite: bool) -> tuple[set[str], list[Path]]:
    """Make the folder ready; return the units that are whole, and each process's file. Raises InputError as is_finished does."""
    _look(run, overwrite=overwrite)
    files.take(run.out)
    if overwrite:
        files.remove_all(run.out)
    write_record(run.out, {"identity": run.identity, "finished": False})
    done = work.whole(finished_units(run.rows, run.unit, work.layers))
    return done, [files.claim(part) for part in part_names(run.rows, secrets.token_hex(4))]


def finish(run: Run, facts: dict[str, Any], counts: dict[str, Any], *, began: float) -> None:
    """Write the finished run's run.json: what was asked, what was used, what was kept, how the checks came out."""
    record = {"identity": run.identity, "finished": True, "commit": commit(), "python": platform.python_version(), **facts}
    record["processes"] = processes.count()
    write_record(run.out, {**record, "counts": counts, "seconds": round(time.time() - began, 1)})


def read_record(out: Path) -> dict[str, Any]:
    """Return a folder's run.json. Raises InputError where it is not the record of a run."""
    path = out / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record["identity"], dict) and isinstance(record["finished"], bool):
            return dict(record)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run the experiment first") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: not the record of a run; {_OFFER}")


def finished_run(out: Path, rows: str) -> "tuple[dict[str, Any], pd.DataFrame]":
    """Return the record and the rows of a finished run. Raises InputError where there is none, or it has not finished."""
    record = read_record(out)
    if not record["finished"]:
        raise InputError(f"{out}: its run has not finished; the same command goes on with it")
    try:
        return record, csvfile.read_table(out / rows)
    except (OSError, ValueError) as error:
        raise InputError(f"{out / rows}: cannot be read ({error})") from None


def mark_of(record: dict[str, Any]) -> str:
    """Return what stands above every figure of a run that a reader must know of first; "" for most."""
    return str(record.get("mark") or ("test weight" if record.get("test_weight") else ""))


def read_table(out: Path, name: str) -> "pd.DataFrame":
    """Return a table of a run's folder. Raises InputError where it is not there."""
    try:
        return csvfile.read_table(out / f"{name}.csv")
    except (OSError, ValueError) as error:
        raise InputError(f"{out / name}.csv: cannot be read ({first_line(error)}); --redraw makes the tables anew") from None


def write_tables(out: Path, tables: "dict[str, pd.DataFrame]", record: dict[str, Any] | None = None) -> None:
    """Write each table to the CSV of its name; with a column `mark` where the run's `record` has one to be known first."""
    mark = (record or {}).get("mark")
    for name, table in tables.items():
        table = table.assign(mark=mark) if mark else table
        write_whole(out / f"{name}.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def write_record(out: Path, record: dict[str, Any]) -> None:
    """Write run.json."""
    write_whole(out / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
