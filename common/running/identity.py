"""What identifies a run: everything that its rows depend on."""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers.utils import cached_file, extract_commit_hash

from common.clips.samples import Sample
from common.running.session import Session

ROOT = Path(__file__).resolve().parents[2]


CODE = ("common", "logit_lens", "activation_patching")


_NOT_IDENTITY = ("out", "overwrite", "began", "cache_gb", "prompts", "model", "data", "prompt", "words", "device", "dtype")


PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "soundfile", "soxr", "peft", "mistral-common", "torchaudio")


def identify(args: argparse.Namespace, clips: Iterable[Sample], session: Session) -> dict[str, Any]:
    """Return everything that the rows of a run depend on: two runs with the same values may share their rows.

    `clips` are all of the manifest; files are known by size and time of change, code by its text.
    """
    own = {k: v for k, v in vars(args).items() if k not in _NOT_IDENTITY}
    audio = "\n".join(f"{s.sample_id} {_stamp(s.audio)}" for s in clips)
    return own | {
        "model": shown(args.model),
        "model_files": _model_version(args.model, args.revision),
        "data": shown(args.data),
        "data_files": _digest(args.data.read_text(encoding="utf-8-sig") + audio),
        "prompt": session.prompt,
        "words": session.readout.words,
        "tokens": _digest(f"{session.first.prefix_ids} {session.first.tail_ids} {session.readout.ids}"),
        "engine": session.engine,
        "device": session.lm.device.type,
        "dtype": str(session.lm.dtype).removeprefix("torch."),
        "code": _digest("".join(f.read_text(encoding="utf-8") for d in CODE for f in sorted((ROOT / d).rglob("*.py")))),
        "versions": {p: importlib.metadata.version(p) for p in PACKAGES if importlib.util.find_spec(p.replace("-", "_"))},
    }


def _model_version(name: str, revision: str | None) -> str | None:
    """Return what tells one state of a model from another: its files, or the commit of a hub id."""
    if not Path(name).is_dir():
        return extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
    return _digest("\n".join(f"{f.name} {_stamp(f)}" for f in sorted(Path(name).rglob("*")) if f.is_file()))


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
