"""A run and its folder: what identifies a run, rows that survive an interruption, run.json."""

import argparse
import csv
import hashlib
import importlib.metadata
import importlib.util
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
from transformers.utils import cached_file, extract_commit_hash

from common import parallel
from common.samples import InputError, Sample
from common.session import Session

ROOT = Path(__file__).resolve().parents[1]
_OF_A_CLIP = ("sample_id", "text_id", "speaker")
_OF_A_PAIR = ("pair_id", *(f"{role}_{name}" for role in ("recipient", "donor") for name in ("id", "text_id", "speaker")))
TEXT_COLUMNS = (*_OF_A_CLIP, *_OF_A_PAIR)
TABLES = ("layers", "contrast", "control_layer", "congruent", "labels", "decision_layer")
CODE = ("common", "logit_lens", "activation_patching")
# Options that rows do not depend on, or that are told otherwise
_NOT_IDENTITY = ("out", "overwrite", "began", "cache_gb", "prompts", "model", "data", "prompt", "words", "device", "dtype")
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "soundfile", "soxr", "peft", "mistral-common", "torchaudio")


# What identifies a run ---------------------------------------------------------------------------------------------------


def identify(args: argparse.Namespace, clips: Iterable[Sample], session: Session) -> dict[str, Any]:
    """Return everything that the rows of a run depend on: two runs with the same values may share their rows.

    `clips` are all of the manifest; files are known by size and time of change, code by its text.
    """
    own = {k: v for k, v in vars(args).items() if k not in _NOT_IDENTITY}
    audio = "\n".join(f"{s.sample_id} {_stamp(s.audio)}" for s in clips)
    return own | {
        "model": _shown(args.model),
        "model_files": _model_version(args.model, args.revision),
        "data": _shown(args.data),
        "data_files": _digest(args.data.read_text(encoding="utf-8-sig") + audio),
        "prompt": session.prompt,
        "words": session.readout.words,
        "tokens": _digest(f"{session.first.prefix_ids} {session.first.tail_ids} {session.readout.ids}"),
        "engine": session.engine,
        "device": session.lm.device.type,
        "dtype": str(session.lm.dtype).removeprefix("torch."),
        "code": _digest("".join(f.read_text(encoding="utf-8") for d in CODE for f in sorted((ROOT / d).glob("*.py")))),
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


def begin(args: argparse.Namespace, rows: Path, identity: dict[str, Any], unit: str, size: int) -> tuple[bool, set[str]]:
    """Make the output folder ready; return whether its run has finished, and the units that have all their `size` rows."""
    begun = None
    if parallel.leads():  # it alone: another would take what this one already writes for the remains of an earlier run
        begun = open_output(args.out, rows, identity, overwrite=args.overwrite), finished_units(rows, unit, size)
    return parallel.told(begun)


def complete(rows: Path, unit: str, size: int, *, order: list[str]) -> bool:
    """Wait for all processes; return True to the one that goes on, with the rows of all in one file, units in `order`.

    Raises InputError where a unit is missing or there twice: no table is made of a part of the rows.
    """
    parallel.wait()
    if parallel.leads():
        gather_rows(rows, unit, size, order)
    return parallel.leads()


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
            for old in (rows, *_parts(rows), *(out / f"{t}.csv" for t in TABLES), *out.glob("*_curve*.png")):
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
    record["processes"] = parallel.processes()
    write_record(out, {**record, "counts": counts, "seconds": round(time.time() - began, 1)})


def subtitle(args: argparse.Namespace) -> str:
    """Return the line under every figure that says what was asked of which model."""
    clips = Path(*args.data.resolve().parts[-2:])
    return f"model: {Path(args.model).name}, prompt: {Path(args.prompt).name}, clips: {clips}"


def write_tables(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write each table to the CSV of its name."""
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False, float_format="%.6f")


def files_written(out: Path, rows: Path, tables: Iterable[str], figures: Iterable[str]) -> str:
    """Return the closing line that names a run's files."""
    return f"written to {_shown(out)}: {', '.join((rows.name, *(f'{t}.csv' for t in tables), *figures, 'run.json'))}"


def write_record(out: Path, record: dict[str, Any]) -> None:
    """Write run.json in one step, so that an interruption leaves the old one or the new one."""
    partial = out / "run.json.partial"
    partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(out / "run.json")


def read_rows(path: Path) -> pd.DataFrame:
    """Read a CSV of rows; ids stay text ("007", "NA"), and numbers are numbers."""
    columns = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(path, dtype={c: str for c in TEXT_COLUMNS if c in columns}, keep_default_na=False, na_values=[""])


def finished_units(rows: Path, unit: str, size: int) -> set[str]:
    """Return the ids in column `unit` that have all their `size` rows; drop what an interruption left of other units.

    What several processes have written is gathered first. Raises InputError, touching nothing, where a file is not one of ours.
    """
    header, table = _collected(rows, unit, size)
    return {row[header.index(unit)] for row in table}


def _collected(rows: Path, unit: str, size: int) -> tuple[list[str], list[list[str]]]:
    """Bring the whole units of all parts into `rows`; return its header and table."""
    parts = _parts(rows)
    header, table = _whole_units(rows, unit, size)
    for part in parts:
        own_header, own_table = _whole_units(part, unit, size)
        if table and own_table and own_header != header:
            raise InputError(f"{part}: its columns are not those of {rows.name}; give another --out, or --overwrite")
        header, table = (own_header, table + own_table) if own_table else (header, table)
    _write(rows, header, table)
    for part in parts:
        part.unlink()
    return header, table


def gather_rows(rows: Path, unit: str, size: int, order: list[str]) -> None:
    """Make one file of the rows of all processes, units in `order`: the same file, whoever wrote them and when."""
    expected = [u for u in order for _ in range(size)]
    alone = rows.exists() and not _parts(rows)
    if alone and pd.read_csv(rows, usecols=[unit], dtype=str, keep_default_na=False)[unit].tolist() == expected:
        return  # a million rows need not be read for nothing
    header, table = _collected(rows, unit, size)
    place, column = {u: i for i, u in enumerate(order)}, header.index(unit)
    if sorted(row[column] for row in table) != sorted(expected):
        missing = len(set(order) - {row[column] for row in table})
        raise InputError(
            f"{rows}: {missing} of {len(order)} units are missing (did another process write here, or on a folder of its own?); "
            "the same command goes on with what is there"
        )
    _write(rows, header, sorted(table, key=lambda row: place[row[column]]))


def own_part(rows: Path) -> Path:
    """Return the file that this process appends to: `rows` itself where it is the only one."""
    return rows if parallel.processes() == 1 else rows.with_name(f"{rows.stem}.part{parallel.rank():04d}{rows.suffix}")


def _parts(rows: Path) -> list[Path]:
    return sorted(rows.parent.glob(f"{rows.stem}.part*{rows.suffix}"))


def _whole_units(path: Path, unit: str, size: int) -> tuple[list[str], list[list[str]]]:
    """Return the header of a CSV and the rows of those units that have all their `size` rows."""
    text = path.read_bytes() if path.exists() else b""
    text = text[: text.rfind(b"\n") + 1]  # the last line may be cut anywhere
    header, *table = list(csv.reader(io.StringIO(text.decode("utf-8", errors="replace"), newline=""))) or [[unit]]
    if unit not in header or any(len(row) != len(header) for row in table):
        raise InputError(f"{path}: not as this script writes it; give another --out, or --overwrite to start anew")
    column = header.index(unit)
    counts = Counter(row[column] for row in table)
    return header, [row for row in table if counts[row[column]] == size]


def _write(path: Path, header: list[str], table: list[list[str]]) -> None:
    """Write a CSV in one step, if it does not read so already; no file where there are no rows."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([header, *table])
    text = file.getvalue().encode()
    if not table:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_bytes() != text:
        partial = path.with_suffix(".partial")
        partial.write_bytes(text)
        partial.replace(path)


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV, with a header where it is new; numbers to eight digits, the precision of float32."""
    frame = pd.DataFrame(rows)
    try:
        frame.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.8g", lineterminator="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); the same command goes on from here") from None
