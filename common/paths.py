"""Expand and find the paths that people give."""

import argparse
import os
import unicodedata
from pathlib import Path


def given_path(text: str) -> Path:
    """Return a path with ~ expanded, absolute; an argument type. One that exists is found in another way of writing too.

    Links stay links: what is relative to a file is relative to where it was given. Raises argparse.ArgumentTypeError for "",
    which an unset variable leaves, for a ~ that is nobody's, and for what is not UTF-8, which no table could hold.
    """
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("a path must not be empty" if not text else "a path must not hold a NUL")
    if text != text.encode(errors="replace").decode():
        raise argparse.ArgumentTypeError(f"{text!a}: must be a name in UTF-8")
    try:
        return existing(Path(text).expanduser().absolute())
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text}: no such home folder; give the whole path") from None


def path_or_name(text: str) -> str:
    """Return the path of a file or folder that is there, as `given_path` does, any other text as it is; an argument type."""
    found = given_path(text)
    return str(found) if os.path.lexists(found) or text.startswith("~") else text


def existing(path: Path) -> Path:
    """Return a path as it is, or as it is written on disk, where only that is there: letters composed or not, / for \\."""
    name = str(path)
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    tried = [f for form in forms for f in (form, form.replace("\\", "/"))]
    return next((Path(f) for f in tried if os.path.lexists(f)), path)


def why_missing(path: Path) -> str:
    """Say of a path that is not there what is there instead, in words that go behind its name; "" where nothing is near."""
    if os.path.islink(path):
        return f"; it is a link to {os.readlink(path)}, where there is none"
    for folder in path.parents:
        if os.path.isdir(folder):
            break
    else:
        return ""
    wanted = path.relative_to(folder).parts[0]
    try:
        near = next((n for n in sorted(os.listdir(folder)) if _alike(n) == _alike(wanted)), None)
    except OSError:
        near = None
    if near is not None and near != wanted:
        return f"; in {folder} is {near!a}, which is not {wanted!a}"
    return f"; there is no folder {folder / wanted}" if folder != path.parent else ""


def _alike(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()
