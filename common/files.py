"""Track which files in a folder a program wrote, and touch no others.

A file is put on the list before it is written, so that what is not on it is somebody else's. The list lies beside the files,
with names relative to it: a folder may be copied or moved.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from common.errors import InputError
from common.paths import why_missing

LIST = "files.json"
LOCK = "run.lock"  # the folder of common.lock
_ABOUT = "What this program has made in this folder. It writes over these files, or removes them, and touches no others."
_NEW = "give another --out, a new or an empty folder"
_SHOWN = 3  # names in a message
_unfinished: list[Path] = []  # where files are written until they are whole: the last is in force (see `unfinished_at`)


def check(folder: Path) -> None:
    """Raise InputError, touching nothing, where a folder holds files and no list of ours: they are somebody else's.

    Hidden files, which systems leave everywhere, and folders do not count; nothing in them is touched either.
    """
    if folder.is_symlink() and not folder.exists():
        raise InputError(f"{folder}: no folder can be made there{why_missing(folder)}")
    found = list(folder.iterdir()) if folder.is_dir() else []  # before the list is read, which names a file before it is there
    there = sorted(f.name for f in found if not f.name.startswith(".") and f.name != LOCK and not f.is_dir())
    if not there or listed(folder) is not None:
        return
    if _is_record(folder / "run.json"):
        raise InputError(
            f"{folder}: its run is of an earlier version, which kept no list of its files ({LIST}), so that none can be told "
            f"from others; {_NEW}, or remove that run yourself"
        )
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    raise InputError(f"{folder}: holds files that are not of this program ({', '.join(there[:_SHOWN])}{more}); {_NEW}")


def take(folder: Path) -> None:
    """Make a folder ours: it has a list from then on. Raises InputError as `check` does."""
    check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if listed(folder) is None:
        _write_list(folder, [])


def listed(folder: Path) -> list[str] | None:
    """Return the names on a folder's list, relative to it; None where it has none that we could have written."""
    try:
        found = json.loads((folder / LIST).read_text(encoding="utf-8"))
        about, names = found["about"], [str(name) for name in found["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    paths = [PurePosixPath(name) for name in names]
    return names if about == _ABOUT and not any(p.is_absolute() or ".." in p.parts for p in paths) else None


def claim(path: Path) -> Path:
    """Put a file on its folder's list, before it is written; return it. Files of a report are on the list of its top folder.

    Raises InputError where a file that is on no list is there: it is not ours.
    """
    folder = next((p for p in path.parents if listed(p) is not None), path.parent)
    name, names = path.relative_to(folder).as_posix(), listed(folder) or []
    if name in names:
        return path
    if path.exists() or path.is_symlink():
        raise InputError(not_ours(path))
    _write_list(folder, [*names, name])
    return path


def not_ours(path: Path) -> str:
    return f"{path}: is there, and is not of this program: it is left as it is; move it away, or give another --out"


def remove(path: Path) -> None:
    """Remove a file of ours and take it off its folder's list; one that is not on it stays."""
    names = listed(path.parent) or []
    if path.name in names:
        path.unlink(missing_ok=True)
        _write_list(path.parent, [n for n in names if n != path.name])


def remove_all(folder: Path) -> None:
    """Remove the files of ours in a folder, and leave all others."""
    for name in listed(folder) or []:
        (folder / name).unlink(missing_ok=True)
    _write_list(folder, [])


def write_whole(path: Path, text: str) -> None:
    """Write a file of ours in one step. Raises InputError as `claim` does."""
    with in_one_step(claim(path)) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


@contextmanager
def in_one_step(path: Path) -> Iterator[Path]:
    """Give a place to write a file to; it then takes its own, so that an interruption leaves the old file or the new one."""
    partial = _unfinished[-1] if _unfinished else path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def unfinished_at(place: Path) -> Iterator[None]:
    """Let files that are not whole yet be written at `place`, whose owner removes what is left there."""
    _unfinished.append(place)
    try:
        yield
    finally:
        _unfinished.remove(place)


def _write_list(folder: Path, names: list[str]) -> None:
    with in_one_step(folder / LIST) as partial:
        partial.write_text(json.dumps({"about": _ABOUT, "files": names}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_record(path: Path) -> bool:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return isinstance(record["identity"], dict) and isinstance(record["finished"], bool)
    except (OSError, ValueError, KeyError, TypeError):
        return False
