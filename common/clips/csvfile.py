"""Read CSV files: manifests row by row, and the tables of runs."""

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_TEXT = {  # columns of tables; a label may be 01, True, none or NA, and would be read as something else
    *(
        "winner",
        "outcome",
        "said",
        "generated",
        "answer_kind",
        "whole_word",
        "kind",
        "control",
        "target",
        "pred_base",
        "pred_donor",
        "pred_patch",
        "engine",
    ),
    *("intervention", "at", "label", "side", "reason", "clusters", "baseline", "held_out", "probe", "position"),
    *("edge", "window", "part", "pred_cut", "mark"),
    *("what", "unit", "prompt", "model", "clips"),
}
_TEXT_ENDS = ("_id", "semantic_label", "prosody_label", "speaker", "source")
_SEPARATORS = (";", "\t")  # of spreadsheets where the comma is in numbers


class MissingColumn(InputError):
    """A CSV that lacks a column: not the file that was meant, perhaps."""


def csv_rows(
    path: Path, columns: Sequence[str], *, what: str = "file", delimiter: str = ",", encoding: str = "utf-8-sig"
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the fields of each row of a CSV, one at a time: there may be a million.

    Rows are numbered as in a spreadsheet: the header is row 1. Raises InputError for a file that is not there or not UTF-8 CSV,
    one of `columns` that is missing or there twice, and a row longer or shorter than the header, whose fields would come under
    the wrong columns.
    """
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: no such {what}")
    number = 0
    try:
        with open(path, newline="", encoding=encoding) as file:
            separator = _separator(file.readline(), columns, delimiter)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, strict=True)  # else a quote that is never closed swallows rows
            header, number = [name.strip() for name in next(reader, [])], 1
            if missing := [c for c in columns if c not in header]:
                raise MissingColumn(f"{path}: column {', '.join(missing)} is missing; a {what} has {', '.join(columns)}")
            if double := [c for c in columns if header.count(c) > 1]:
                raise InputError(f"{path}: column {', '.join(double)} is there twice")
            for number, fields in enumerate(reader, 2):
                if not fields:  # a blank line
                    continue
                if len(fields) != len(header):
                    raise InputError(f"{path}, row {number}: has {len(fields)} fields, the header has {len(header)}")
                yield number, dict(zip(header, fields))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a readable UTF-8 CSV file ({error}); save it as UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}, row {number + 1}: not a readable UTF-8 CSV file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _separator(header: str, columns: Sequence[str], usual: str) -> str:
    """Return what parts the fields of a header: the usual one, unless all the columns are there by another one alone."""
    for separator in (usual, *_SEPARATORS):
        if {*columns} <= {name.strip() for name in next(csv.reader([header], delimiter=separator), [])}:
            return separator
    return usual


def read_table(path: Path, columns: Collection[str] | None = None) -> "pd.DataFrame":
    """Read a table that a run has written, or some of its columns: text to the letter, numbers as numbers, none as nan.

    Every table is read here, so that a label "01" or "NA" is one everywhere.
    """
    import pandas as pd  # here: rows are made without, as on a bare machine with a GPU

    names = pd.read_csv(path, nrows=0).columns
    text = [name for name in names if name in _TEXT or name.endswith(_TEXT_ENDS)]
    empty = {name: [""] for name in names if name not in text}
    wanted = None if columns is None else [*columns]
    return pd.read_csv(path, usecols=wanted, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=empty)
