"""Rows that survive an interruption, written by one process or several."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import processes
from common.clips.csvfile import read_table
from common.errors import InputError
from common.files import listed, remove, write_whole

Unit = list[list[str]]  # its rows
Units = dict[str, Unit]


def complete(rows: Path, unit: str, layers: Sequence[int], *, order: list[str]) -> bool:
    """Wait for all processes; return True to the one that goes on, with the rows of all in one file, units in `order`.

    Raises InputError where a unit is missing: no table is made of a part of the rows.
    """
    processes.wait()
    if processes.is_leader():
        gather_rows(rows, unit, layers, order)
    return processes.is_leader()


def finished_units(rows: Path, unit: str, layers: Sequence[int]) -> set[str]:
    """Return the ids in column `unit` that have a row for each of `layers`; drop what an interruption left of other units.

    What several processes have written is gathered first. Raises InputError, touching nothing, where a file is not one of ours.
    """
    parts = parts_of(rows)
    header, units = _collected([rows, *parts], unit, layers)
    _store(rows, header, units.values(), parts)
    return set(units)


def gather_rows(rows: Path, unit: str, layers: Sequence[int], order: list[str]) -> None:
    """Make one file of the rows of all processes, units in `order`: the same file, whoever wrote them and when."""
    expected = [u for u in order for _ in layers]
    parts = parts_of(rows)
    alone = rows.exists() and not parts
    if alone and read_table(rows, [unit])[unit].tolist() == expected:
        return  # a million rows need not be read for nothing
    header, units = _collected([rows, *parts], unit, layers)
    if set(units) != set(order):
        missing = len(set(order) - set(units))
        raise InputError(
            f"{rows}: {missing} of {len(order)} units are missing (did a process write on a folder of its own?); "
            "the same command goes on with what is there"
        )
    _store(rows, header, [units[u] for u in order], parts)


def _collected(files: list[Path], unit: str, layers: Sequence[int]) -> tuple[list[str], Units]:
    """Return the header of all files and their whole units.

    A unit that is there twice counts once: a process died between gathering and removing, or a group was made again.
    """
    header, units = _whole_units(files[0], unit, layers)
    for part in files[1:]:
        own_header, own_units = _whole_units(part, unit, layers)
        if units and own_units and own_header != header:
            raise InputError(f"{part}: its columns are not those of {files[0].name}; give another --out, or --overwrite")
        header, units = (own_header, own_units | units) if own_units else (header, units)
    return header, units


def _store(rows: Path, header: list[str], units: Iterable[Unit], parts: list[Path]) -> None:
    """Bring `units` into one file, in one step, and then remove the parts that they were in; no file where there are none."""
    file = io.StringIO(newline="")
    table = [row for of_unit in units for row in of_unit]
    csv.writer(file, lineterminator="\n").writerows([header, *table])
    if not table:
        remove(rows)
    elif not rows.exists() or rows.read_bytes() != file.getvalue().encode():
        write_whole(rows, file.getvalue())
    for part in parts:
        remove(part)


def part_names(rows: Path, start: str) -> list[Path]:
    """Return the files that the processes of a run append to, by their number: `rows` itself where there is one process.

    The name of the `start` is in theirs: a process that has outlived the first of an earlier start may still write to its own.
    """
    if processes.count() == 1:
        return [rows]
    return [rows.with_name(f"{rows.stem}.part{n:04d}.{start}{rows.suffix}") for n in range(processes.count())]


def parts_of(rows: Path) -> list[Path]:
    """Return the parts that are on the list of the folder."""
    return sorted(rows.with_name(n) for n in listed(rows.parent) or [] if n.startswith(f"{rows.stem}.part"))


def _whole_units(path: Path, unit: str, layers: Sequence[int]) -> tuple[list[str], Units]:
    """Return the header of a CSV and the units that have all their rows, those of `layers` one after the other."""
    text = path.read_bytes() if path.exists() else b""
    text = text[: text.rfind(b"\n") + 1]  # the last line may be cut anywhere
    header, *table = list(csv.reader(io.StringIO(text.decode("utf-8", errors="replace"), newline=""))) or [[unit, "layer"]]
    if not {unit, "layer"} <= set(header) or any(len(row) != len(header) for row in table):
        raise InputError(f"{path}: not as this script writes it; give another --out, or --overwrite to start anew")
    name, layer = header.index(unit), header.index("layer")
    wanted = [str(at) for at in layers]
    starts = [i for i, row in enumerate(table) if row[layer] == wanted[0]]
    units: Units = {}
    for start in starts:
        rows = table[start : start + len(wanted)]
        if [(row[name], row[layer]) for row in rows] == [(rows[0][name], at) for at in wanted]:
            units.setdefault(rows[0][name], rows)
    return header, units


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV, with a header where it is new; numbers to eight digits, the precision of float32."""
    import pandas as pd  # not there where rows are made without being written: make gpu

    with open(path, "ab") as file:
        text = pd.DataFrame(rows).to_csv(header=not file.tell(), index=False, float_format="%.8g", lineterminator="\n")
        file.write(text.encode())
