"""Rows that survive an interruption, written by one process or several."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import InputError
from common.running import parallel

_OF_A_CLIP = ("sample_id", "text_id", "speaker")


_OF_A_PAIR = ("pair_id", *(f"{role}_{name}" for role in ("recipient", "donor") for name in ("id", "text_id", "speaker")))


TEXT_COLUMNS = (*_OF_A_CLIP, *_OF_A_PAIR)


def complete(rows: Path, unit: str, size: int, *, order: list[str]) -> bool:
    """Wait for all processes; return True to the one that goes on, with the rows of all in one file, units in `order`.

    Raises InputError where a unit is missing or there twice: no table is made of a part of the rows.
    """
    parallel.wait()
    if parallel.is_leader():
        gather_rows(rows, unit, size, order)
    return parallel.is_leader()


def read_rows(path: Path) -> pd.DataFrame:
    """Read a CSV of rows; ids stay text ("007", "NA"), and numbers are numbers."""
    columns = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(path, dtype={c: str for c in TEXT_COLUMNS if c in columns}, keep_default_na=False, na_values=[""])


def finished_units(rows: Path, unit: str, size: int) -> set[str]:
    """Return the ids in column `unit` that have all their `size` rows; drop what an interruption left of other units.

    What several processes have written is gathered first. Raises InputError, touching nothing, where a file is not one of ours.
    """
    header, table = _collected(rows, unit, size)
    return {row[header.index(unit)] for row in table}


def _collected(rows: Path, unit: str, size: int) -> tuple[list[str], list[list[str]]]:
    """Bring the whole units of all parts into `rows`; return its header and table."""
    parts = parts_of(rows)
    header, table = _whole_units(rows, unit, size)
    for part in parts:
        own_header, own_table = _whole_units(part, unit, size)
        if table and own_table and own_header != header:
            raise InputError(f"{part}: its columns are not those of {rows.name}; give another --out, or --overwrite")
        header, table = (own_header, table + own_table) if own_table else (header, table)
    _write(rows, header, table)
    for part in parts:
        part.unlink()
    return header, table


def gather_rows(rows: Path, unit: str, size: int, order: list[str]) -> None:
    """Make one file of the rows of all processes, units in `order`: the same file, whoever wrote them and when."""
    expected = [u for u in order for _ in range(size)]
    alone = rows.exists() and not parts_of(rows)
    if alone and pd.read_csv(rows, usecols=[unit], dtype=str, keep_default_na=False)[unit].tolist() == expected:
        return  # a million rows need not be read for nothing
    header, table = _collected(rows, unit, size)
    place, column = {u: i for i, u in enumerate(order)}, header.index(unit)
    if sorted(row[column] for row in table) != sorted(expected):
        missing = len(set(order) - {row[column] for row in table})
        raise InputError(
            f"{rows}: {missing} of {len(order)} units are missing (did another process write here, or on a folder of its own?); "
            "the same command goes on with what is there"
        )
    _write(rows, header, sorted(table, key=lambda row: place[row[column]]))


def own_part(rows: Path) -> Path:
    """Return the file that this process appends to: `rows` itself where it is the only one."""
    return rows if parallel.processes() == 1 else rows.with_name(f"{rows.stem}.part{parallel.rank():04d}{rows.suffix}")


def parts_of(rows: Path) -> list[Path]:
    return sorted(rows.parent.glob(f"{rows.stem}.part*{rows.suffix}"))


def _whole_units(path: Path, unit: str, size: int) -> tuple[list[str], list[list[str]]]:
    """Return the header of a CSV and the rows of those units that have all their `size` rows."""
    text = path.read_bytes() if path.exists() else b""
    text = text[: text.rfind(b"\n") + 1]  # the last line may be cut anywhere
    header, *table = list(csv.reader(io.StringIO(text.decode("utf-8", errors="replace"), newline=""))) or [[unit]]
    if unit not in header or any(len(row) != len(header) for row in table):
        raise InputError(f"{path}: not as this script writes it; give another --out, or --overwrite to start anew")
    column = header.index(unit)
    counts = Counter(row[column] for row in table)
    return header, [row for row in table if counts[row[column]] == size]


def _write(path: Path, header: list[str], table: list[list[str]]) -> None:
    """Write a CSV in one step, if it does not read so already; no file where there are no rows."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([header, *table])
    text = file.getvalue().encode()
    if not table:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_bytes() != text:
        partial = path.with_suffix(".partial")
        partial.write_bytes(text)
        partial.replace(path)


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV, with a header where it is new; numbers to eight digits, the precision of float32."""
    frame = pd.DataFrame(rows)
    try:
        frame.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.8g", lineterminator="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); the same command goes on from here") from None
