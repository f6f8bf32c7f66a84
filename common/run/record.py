"""What identifies a run: everything that its rows depend on, and nothing that only tables, figures or the report do."""

import ast
import importlib.metadata
import importlib.util
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import processes
from common.clips.manifest import Sample
from common.digests import digest, digest_of_files
from common.model import ModelChoice
from common.model.prompts import Question

ROOT = Path(__file__).resolve().parents[2]
# Where code makes no rows: lines, names, figures, who has which clip; and what only calls the code that makes them.
NO_ROWS = (
    "common/__init__.py",
    "common/run",
    "common/processes.py",
    "common/digests.py",
    "common/environment.py",
    "common/errors.py",
    "common/files.py",
    "common/paths.py",
)
MODULES = {"scikit-learn": "sklearn"}
PACKAGES = (
    *(
        "torch",
        "transformers",
        "tokenizers",
        "numpy",
        "pandas",
        "soundfile",
        "soxr",
        "peft",
        "mistral-common",
        "torchaudio",
        "bitsandbytes",
    ),
    *("concept-erasure", "scikit-learn"),
)


def identify(
    experiment: str, *, model: ModelChoice, question: Question, data: Path, clips: Iterable[Sample], options: dict[str, Any]
) -> dict[str, Any]:
    """Return what a run's rows depend on as far as it is known without the model; Session.identity() is the rest.

    `clips` are all of the manifest `data`, `options` those of the experiment. Files are known by what they hold, code by what
    it says without its comments. Device and dtype are left out where the model choice leaves them open.
    """
    chosen = {"device": model.device.partition(":")[0], "dtype": model.dtype}
    return {
        "model": shown(model.name),
        "model_files": _model_files(model.name),
        "revision": model.revision,
        "trust_remote_code": model.trust_remote_code,
        "attention": model.attention,
        "device_map": model.device_map,
        "quantization": model.quantization,
        "trim": model.trim,
        "level": model.level,
        **{name: value for name, value in chosen.items() if value != "auto"},
        "data": shown(data),
        "data_files": _by_leader(lambda: digest_of_files(data.parent, [data, *(s.audio for s in clips)])),
        **asdict(question),
        **options,
        "code": {shown(file): _code(file) for file in row_makers(experiment)},
        "versions": {
            p: importlib.metadata.version(p) for p in PACKAGES if importlib.util.find_spec(MODULES.get(p, p.replace("-", "_")))
        },
    }


def row_makers(experiment: str) -> list[Path]:
    """Return the files whose code the rows of an experiment depend on: what chooses clips, all rows.py, and what these import."""
    found: set[Path] = set()
    left = {ROOT / experiment / "choose.py", ROOT / "common/compute/usable_clips.py", *(ROOT / experiment).rglob("*rows.py")}
    while left:
        found |= left
        left = {file for known in left for file in _imported(known)} - found
    return sorted(found)


def _imported(file: Path) -> set[Path]:
    """Return the files of this project that one imports, but those that make no rows."""
    imports = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = {f"{n.module}.{alias.name}".replace(".", "/") for n in imports for alias in n.names}
    files = {ROOT / f"{place}.py" for name in names for place in (name, name.rpartition("/")[0])}
    files |= {ROOT / name.rpartition("/")[0] / "__init__.py" for name in names}
    outside = tuple(ROOT / place for place in NO_ROWS)
    return {f for f in files if f.is_file() and not any(f.is_relative_to(place) for place in outside)}


def alike(name: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two identities agree in `name`; a model and clips are the same where what they hold is, wherever it lies."""
    held = {"model": "model_files", "data": "data_files"}.get(name)
    known = held is not None and one.get(held) is not None and one.get(held) == other.get(held)
    return known or bool(one.get(name) == other.get(name))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say what differs between an earlier run's identity and what of it is known `now`; empty where they agree."""
    found = []
    now = json.loads(json.dumps(now))
    for name, value in now.items():
        earlier = before.get(name)
        if isinstance(value, dict) and isinstance(earlier, dict):
            inner = sorted(k for k in {*value, *earlier} if value.get(k) != earlier.get(k))
            found += [f"{name}: {k}" if name == "code" else f"{name}: {k} ({_both(earlier.get(k), value.get(k))})" for k in inner]
        elif not alike(name, before, now):
            found.append(f"{name} ({_both(earlier, value)})")
    return found


def _both(before: Any, now: Any) -> str:
    earlier, current = (_brief(json.dumps(value, ensure_ascii=False)) for value in (before, now))
    return f"{earlier} there, {current} now"


def _brief(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _code(file: Path) -> str:
    """Return a digest of what a module does: its syntax tree without docstrings, in which comments do not show."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0].value.value = ""
    return digest(ast.dump(tree))


def _model_files(name: str) -> str | None:
    """Return what tells one state of a model folder from another; None for a hub id, whose commit is known once it is loaded."""
    if not Path(name).is_dir():
        return None
    folder = Path(name)
    files = [f for f in folder.rglob("*") if f.is_file() and not any(p.startswith(".") for p in f.relative_to(folder).parts)]
    return _by_leader(lambda: digest_of_files(folder, files))


def _by_leader(read: Callable[[], str]) -> str:
    return processes.broadcast(read() if processes.is_leader() else None)


def shown(path: Any) -> str:
    """Return a path inside the repository relative to it, so that no machine's folders enter run.json."""
    resolved = Path(path).resolve()
    return str(resolved.relative_to(ROOT)) if resolved.exists() and resolved.is_relative_to(ROOT) else str(path)


def commit() -> str:
    """Return the repository's commit, with "+" where files differ from it, or "unknown" outside a checkout."""
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
