"""Find a data set's clips in a folder, with their names and tables."""

import filecmp
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.clips.audio import SUFFIXES
from common.clips.csvfile import MissingColumn, csv_rows
from common.errors import InputError
from data.datasets import Dataset, clip_pattern

Row = dict[str, str]
VIDEOS = (".mp4", ".avi", ".mkv", ".mov")


def clips_in(dataset: Dataset, folder: Path, dropped: Counter[str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the path in `folder` and the fields of every clip of the set, and count what else is there."""
    files = list(files_in(folder))
    clips = [f for f in files if f.suffix.lower() in SUFFIXES]
    pattern, name = clip_pattern(dataset), folder.resolve().name
    found = [(f, pattern.fullmatch(f"{name}/{f.with_suffix('').as_posix()}")) for f in clips]
    if not any(match for _, match in found):
        videos = [f for f in files if f.suffix.lower() in VIDEOS]
        hint = f"; {videos[0]} is a video, whose sound has to be taken out first" if videos else ""
        example = f"; the first is {clips[0]}" if clips else ""
        raise InputError(f"{folder}: none of its {len(clips)} audio files is named as in this data set{example}{hint}")
    tables = rows_by_key(dataset, folder, files) if dataset.table else {}
    used: dict[tuple[str, ...], Path] = {}
    for path, match in found:
        if match is None:
            dropped[f"named otherwise, such as {next(f for f, m in found if m is None)}"] += 1
            continue
        fields = {"file": path.stem} | {k: v or "" for k, v in match.groupdict().items()}
        if not dataset.table:
            yield path, fields
            continue
        key = tuple(fields[k] for k in dataset.join)
        if (first := used.setdefault(key, path)) != path:  # a row names one file: which of the two?
            same_clip(folder, first, path, " ".join(key), dropped)
            continue
        if key not in tables and dataset.needed:
            dropped["in no table of clips"] += 1
        for row in tables.get(key, [] if dataset.needed else [{"text": ""}]):
            yield path, fields | row
    if missing := len(tables.keys() - used.keys()):
        dropped["in a table of clips, but no audio file is there"] += missing


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder`, relative to it, in order; links are followed, but into no folder twice."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    seen = set()

    def stop(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})")

    for where, folders, files in os.walk(folder, followlinks=True, onerror=stop):
        status = os.stat(where)
        if (place := (status.st_dev, status.st_ino)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(files):
            path = Path(where, file)
            if not file.startswith(".") and path.is_file():  # ._x.wav is what a Mac leaves beside x.wav
                yield path.relative_to(folder)


def rows_by_key(dataset: Dataset, folder: Path, files: Sequence[Path]) -> dict[tuple[str, ...], list[Row]]:
    """Return the rows of the set's tables of clips by what they share with the path of their clip."""
    rows: dict[tuple[str, ...], list[Row]] = {}
    read = []
    for file in files:
        match = re.fullmatch(dataset.table, file.name)
        if match is None:
            continue
        try:
            for number, row in table_rows(folder / file, dataset):
                row |= match.groupdict() | {"file of the row": f"{file}, row {number}"}
                key = tuple(without_suffix(row[k].strip()) for k in dataset.join)
                rows.setdefault(key, []).append(row)
        except MissingColumn:  # a table of something else
            continue
        read.append(file)
    if not read and dataset.needed:
        raise InputError(
            f"{folder}: no table of clips is there: a file named {dataset.table} with {', '.join(columns_of(dataset))} in its "
            "header"
        )
    return rows


def table_rows(path: Path, dataset: Dataset) -> Iterator[tuple[int, Row]]:
    start = path.read_bytes()
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = start.decode(encoding)
    except UnicodeDecodeError:
        encoding = dataset.fallback(path.name)
        text = start.decode(encoding, errors="replace")
    if path.suffix != ".txt":
        yield from csv_rows(
            path, columns_of(dataset), what="table", delimiter="\t" if path.suffix == ".tsv" else ",", encoding=encoding
        )
        return
    for number, line in enumerate(text.splitlines(), 1):  # of ESD: name, text, feeling
        if match := re.match(r"\s*(\d{4}_\d{6})\s+(.*?)\s+\S+\s*$", line):
            yield number, {"file": match[1], "text": match[2]}


def columns_of(dataset: Dataset) -> list[str]:
    """Return the columns that a table of the set must have: all fields that its path does not give."""
    made_of = [m for m in vars(dataset).values() if isinstance(m, str)]
    named = {name for template in made_of for name in re.findall(r"\{(\w+)\}", template) if not name.isdigit()}
    given = set(re.findall(r"\?P<(\w+)>", dataset.files)) | {"file"}
    return sorted((named | set(dataset.keep)) - given | set(dataset.join) - set(re.findall(r"\?P<(\w+)>", dataset.table)))


def without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(os.path.basename(name))
    return stem if suffix.lower() in SUFFIXES else os.path.basename(name)


def same_clip(folder: Path, first: Path, second: Path, name: str, dropped: Counter[str]) -> None:
    """Count a clip that is there twice. Raises InputError where the two files differ."""
    if first != second and not filecmp.cmp(folder / first, folder / second, shallow=False):
        raise InputError(
            f"{folder}: {first} and {second} are not the same, and both are called {name!r}; import one folder at a time"
        )
    dropped["the same clip again"] += 1
