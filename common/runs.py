"""A run and its folder: what identifies a run, rows that survive an interruption, run.json."""

import argparse
import csv
import hashlib
import importlib.metadata
import io
import json
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from common.samples import InputError, Sample
from common.session import Session

ROOT = Path(__file__).resolve().parents[1]
TEXT_COLUMNS = ("sample_id", "pair_id", "recipient_id", "donor_id", "text_id", "recipient_text_id", "donor_text_id", "speaker")
CODE = ("common", "logit_lens", "activation_patching")
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "soundfile", "soxr")


# What identifies a run ---------------------------------------------------------------------------------------------------


def identify(args: argparse.Namespace, clips: Iterable[Sample], session: Session) -> dict[str, Any]:
    """Return everything that the rows of a run depend on: two runs with the same values may share their rows.

    `clips` are all of the manifest; files are known by size and time of change, code by its text.
    """
    own = {k: v for k, v in vars(args).items() if k not in ("out", "overwrite", "model", "data", "prompt", "device", "dtype")}
    audio = "\n".join(f"{s.sample_id} {_stamp(s.audio)}" for s in clips)
    return own | {
        "model": _shown(args.model),
        "model_files": _model_version(args.model, session),
        "data": _shown(args.data),
        "data_files": _digest(args.data.read_text(encoding="utf-8-sig") + audio),
        "prompt": session.prompt,
        "device": str(session.lm.device),
        "dtype": str(session.lm.dtype).removeprefix("torch."),
        "code": _digest("".join(f.read_text(encoding="utf-8") for d in CODE for f in sorted((ROOT / d).glob("*.py")))),
        "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
    }


def _model_version(name: str, session: Session) -> str | None:
    """Return what tells one state of a model from another: its files, or the commit of a hub id."""
    if not Path(name).is_dir():
        return session.lm.model.config._commit_hash
    return _digest("\n".join(f"{f.name} {_stamp(f)}" for f in sorted(Path(name).iterdir()) if f.is_file()))


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(path: Any) -> str:
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


# The output folder -------------------------------------------------------------------------------------------------------


def open_output(out: Path, rows: Path, identity: dict[str, Any], *, overwrite: bool) -> bool:
    """Make `out` ready for the run with this identity, a fresh one or the one to go on with; return whether it has finished.

    Raises InputError, touching nothing, where `out` holds another run, or rows that nobody can place, and not `overwrite`.
    """
    record = out / "run.json"
    offer = "give another --out, or --overwrite to start anew"
    if not overwrite and record.exists():
        try:
            earlier = json.loads(record.read_text(encoding="utf-8"))
            before, finished = earlier["identity"], earlier["finished"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{record}: not the record of a run; {offer}") from None
        differing = [k for k in sorted({*before, *identity}) if before.get(k) != json.loads(json.dumps(identity)).get(k)]
        if differing:
            listed = ", ".join(f"{k} ({_brief(before.get(k))} there, {_brief(identity.get(k))} now)" for k in differing)
            raise InputError(f"{out} holds a run with other settings: {listed}; {offer}")
        if finished:
            return True
    elif not overwrite and rows.exists():
        raise InputError(f"{rows} is there without a run.json that says how it came about; {offer}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if overwrite:
            for old in (rows, out / "layers.csv", *out.glob("*_curve_*.png")):
                old.unlink(missing_ok=True)
        write_record(out, {"identity": identity, "finished": False})
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    return False


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def close_output(out: Path, identity: dict[str, Any], session: Session, counts: dict[str, Any], *, began: float) -> None:
    """Write the finished run's run.json: what was asked, what was used, what was kept, how the checks came out."""
    record = {"identity": identity, "finished": True, "commit": commit(), "python": platform.python_version(), **session.facts()}
    write_record(out, {**record, "counts": counts, "seconds": round(time.time() - began, 1)})


def subtitle(args: argparse.Namespace) -> str:
    """Return the line under every figure that says what was asked of which model."""
    clips = Path(*args.data.resolve().parts[-2:])
    return f"model: {Path(args.model).name}, prompt: {Path(args.prompt).name}, clips: {clips}"


def files_written(out: Path, *names: str) -> str:
    """Return the closing line that names a run's files."""
    return f"written to {_shown(out)}: {', '.join((*names, 'layers.csv', 'run.json'))}"


def write_record(out: Path, record: dict[str, Any]) -> None:
    """Write run.json in one step, so that an interruption leaves the old one or the new one."""
    partial = out / "run.json.partial"
    partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(out / "run.json")


def read_rows(path: Path) -> pd.DataFrame:
    """Read a CSV of rows; ids stay text ("007", "NA"), and numbers are numbers."""
    columns = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(path, dtype={c: str for c in TEXT_COLUMNS if c in columns}, keep_default_na=False, na_values=[""])


def finished_units(path: Path, unit: str, size: int) -> set[str]:
    """Return the ids in column `unit` that have all their `size` rows; drop what an interruption left of other units.

    Raises InputError, touching nothing, where the file is not one of ours.
    """
    if not path.exists():
        return set()
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]  # the last line may be cut anywhere
    header, *rows = list(csv.reader(io.StringIO(whole.decode("utf-8", errors="replace"), newline=""))) or [[unit]]
    if unit not in header or any(len(r) != len(header) for r in rows):
        raise InputError(f"{path}: not as this script writes it; give another --out, or --overwrite to start anew")
    column = header.index(unit)
    counts = Counter(row[column] for row in rows)
    done = {u for u, n in counts.items() if n == size}
    if not done:
        path.unlink()
    elif len(done) * size < len(rows) or len(whole) < len(text):
        partial = path.with_suffix(".partial")
        with open(partial, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *(r for r in rows if r[column] in done)])
        partial.replace(path)
    return done


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV, with a header where it is new; numbers to eight digits, the precision of float32."""
    frame = pd.DataFrame(rows)
    frame.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.8g", lineterminator="\n")
