"""Read the CSV files that people give, row by row: right fields under the right columns, or a clear error."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.errors import InputError


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
            reader = csv.reader(
                file, delimiter=delimiter, strict=True
            )  # else a quote that is never closed swallows the rows behind it
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
