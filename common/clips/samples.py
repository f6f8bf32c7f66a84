"""Clips: read and check a manifest, keep the conflict clips."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from common.errors import InputError

LABELS = ("neutral", "happy", "sad", "angry", "surprised")  # the default, in this order everywhere
COLUMNS = ("sample_id", "audio", "text", "text_id", "semantic_label", "prosody_label", "speaker", "language", "source")


Item = TypeVar("Item")


@dataclass(frozen=True)
class Sample:
    """One clip: what its words say (`semantic_label`) and what its voice says (`prosody_label`)."""

    sample_id: str
    audio: Path
    text: str
    text_id: str
    semantic_label: str
    prosody_label: str
    speaker: str
    language: str
    source: str

    @property
    def conflict(self) -> bool:
        return self.semantic_label != self.prosody_label


def read_manifest(path: Path, labels: Sequence[str] | None = LABELS) -> list[Sample]:
    """Read a manifest (CSV, UTF-8, the columns of `COLUMNS` and any others); `audio` is relative to its folder.

    Raises InputError, naming file, row and column, for a missing file or column, an empty field that must not be, a label that
    is none of `labels` (None: any will do), a duplicate id, or an audio file that is not there. Rows are numbered as in a
    spreadsheet: the header is row 1.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            rows = list(reader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such manifest") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable UTF-8 CSV file ({error})") from None
    if missing := [c for c in COLUMNS if c not in header]:
        raise InputError(f"{path}: column {', '.join(missing)} is missing; a manifest has {', '.join(COLUMNS)}")
    if not rows:
        raise InputError(f"{path}: no rows below the header")
    samples = []
    first_row: dict[str, int] = {}
    for number, row in enumerate(rows, 2):
        sample = _sample(path, number, row, labels)
        if (first := first_row.setdefault(sample.sample_id, number)) != number:
            raise InputError(
                f"{path}, row {number}, column sample_id: {sample.sample_id!r} is already in row {first}; ids must differ"
            )
        samples.append(sample)
    return samples


def _sample(path: Path, number: int, row: dict[str, str | None], labels: Sequence[str] | None) -> Sample:
    fields = {c: (row[c] or "").strip() for c in COLUMNS}
    for column in ("sample_id", "audio", "text_id", "semantic_label", "prosody_label"):
        if not fields[column]:
            raise InputError(f"{path}, row {number}, column {column}: empty; it must be given")
    for column in ("semantic_label", "prosody_label"):
        if labels is not None and fields[column] not in labels:
            raise InputError(
                f"{path}, row {number}, column {column}: unknown label {fields[column]!r}; allowed: {', '.join(labels)}"
            )
    audio = path.parent / fields.pop("audio")
    if not audio.is_file():
        raise InputError(f"{path}, row {number}, column audio: no such file {audio}")
    return Sample(audio=audio, **fields)


def read_clips(path: Path, labels: Sequence[str] | None) -> tuple[list[Sample], Counter[str]]:
    """Return a manifest's clips and a count of those left out: with no labels given all must be of LABELS, else as labelled."""
    return (read_manifest(path), Counter()) if labels is None else labelled(read_manifest(path, None), labels)


def labelled(samples: Iterable[Sample], labels: Sequence[str]) -> tuple[list[Sample], Counter[str]]:
    """Return the clips both of whose labels are among `labels`, and a count of the others by the label that is not."""
    samples = list(samples)
    strange = [next((x for x in (s.semantic_label, s.prosody_label) if x not in labels), None) for s in samples]
    kept = [s for s, x in zip(samples, strange) if x is None]
    if not kept:
        raise InputError(f"--labels {' '.join(labels)}: no clip has both its labels among them")
    return kept, Counter(f"labelled {x}" for x in strange if x is not None)


def conflict_clips(samples: Iterable[Sample]) -> tuple[list[Sample], Counter[str]]:
    """Return the conflict clips and a count of the dropped ones by reason. Raises InputError where none is left."""
    samples = list(samples)
    kept = [s for s in samples if s.conflict]
    if not kept:
        raise InputError(f"no conflict clips among {len(samples)}: semantic_label equals prosody_label in every row")
    return kept, Counter({"congruent": len(samples) - len(kept)})


def draw(items: Sequence[Item], count: int | None, *, seed: int) -> list[Item]:
    """Return `count` of `items` drawn at random, in their own order; all of them if `count` is None or larger."""
    if count is None or count >= len(items):
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), size=count, replace=False)
    return [items[i] for i in sorted(chosen)]
