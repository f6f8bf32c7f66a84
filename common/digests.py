"""Compute one digest of the contents of files.

A reader recomputes the digest of a folder with
`find . -type f -not -path '*/.*' -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum | cut -c1-16`,
that of a manifest's clips with the names of the manifest and of the clips, relative to its folder, in place of those found.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from common.files import in_one_step

_RECENT = 2 * 10**9  # ns; a file as new as that may change again without another time of change
_BLOCK = 1 << 20  # bytes
_SHOWN = 1 << 30  # bytes to read from which on a bar says why a start takes a while
Digests = dict[str, list[int | str]]


def digest_of_files(folder: Path, files: Iterable[Path]) -> str:
    """Return 16 hexadecimal digits of what `files` hold and what they are called from `folder`.

    What was read once is known again by size and times, from a file in the user's cache. One that cannot be read counts as that.
    """
    named = {Path(os.path.relpath(file, folder)).as_posix(): file for file in files}
    before = _read_cache()
    now: Digests = {str(file.absolute()): state for file in named.values() if (state := _state(file)) is not None}
    new = {path for path, state in now.items() if before.get(path, [])[:3] != state}
    known: Digests = {path: before[path] for path in now if path not in new}
    size = sum(int(now[path][0]) for path in new)
    for path in tqdm(sorted(new), desc="digests, kept for the next start", disable=size < _SHOWN, leave=False):
        known[path] = [*now[path], _sha256(Path(path))]
    if kept := {p: known[p] for p in new if time.time_ns() - int(now[p][1]) > _RECENT}:
        _write_cache(before | kept)
    lines = [f"{known.get(str(file.absolute()), ['unreadable'])[-1]}  {name}\n" for name, file in sorted(named.items())]
    return digest("".join(lines))


def digest(text: str) -> str:
    """Return 16 hexadecimal digits of a text."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _state(file: Path) -> list[int | str] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
    except OSError:
        return "unreadable"
    return digest.hexdigest()


def _cache() -> Path | None:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "words_or_voice" / "digests.json"
    except RuntimeError:  # nobody's home
        return None


def _read_cache() -> Digests:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if (path := _cache()) else {}
        return {p: state for p, state in found.items() if len(state) == 4 and isinstance(state[3], str)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_cache(known: Digests) -> None:
    """Keep the digests of files that are there; a cache that cannot be written only costs time."""
    try:
        if path := _cache():
            path.parent.mkdir(parents=True, exist_ok=True)
            with in_one_step(path) as partial:
                partial.write_text(json.dumps({p: state for p, state in known.items() if os.path.exists(p)}), encoding="utf-8")
    except (OSError, ValueError):
        pass
