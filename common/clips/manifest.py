"""Read and check a manifest; select conflict clips."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from common.clips.csvfile import csv_rows
from common.errors import InputError
from common.paths import existing, why_missing

LABELS = ("neutral", "happy", "sad", "angry", "surprised")  # the default, in this order everywhere
COLUMNS = ("sample_id", "audio", "text", "text_id", "semantic_label", "prosody_label", "speaker", "language", "source")
GIVEN = ("sample_id", "audio", "text_id", "semantic_label", "prosody_label")  # columns that may not be empty
_NUL, _CONTROL = re.compile("\x00"), re.compile("[\x00-\x1f\x7f-\x9f]")  # a text may have lines, ids and labels may not


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
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


def read_manifest(path: Path, labels: Sequence[str] | None = LABELS, *, given: Sequence[str] = GIVEN) -> list[Sample]:
    """Read a manifest (CSV, UTF-8, the columns of `COLUMNS` and any others); `audio` is relative to its folder.

    Raises InputError, naming file, row and column, for a missing file or column, an empty field of those that must be `given`,
    a label that is none of `labels` (None: any will do), a duplicate id, or an audio file that is not there. Rows are numbered
    as in a spreadsheet: the header is row 1.
    """
    first_row: dict[str, int] = {}
    rows = csv_rows(path, COLUMNS, what="manifest")
    samples = [read_sample(path, number, row, first_row, labels, given=given) for number, row in rows]
    if not samples:
        raise InputError(f"{path}: no rows below the header")
    return samples


def read_sample(
    path: Path,
    number: int,
    row: dict[str, str],
    first_row: dict[str, int],
    labels: Sequence[str] | None,
    *,
    given: Sequence[str] = GIVEN,
) -> Sample:
    """Return the clip of one row; `first_row` remembers the row of each id, columns `given` must not be empty.

    Raises InputError as `read_manifest` does.
    """
    where = f"{path}, row {number}, column"
    fields = {c: row[c].strip() for c in COLUMNS}
    for column in given:
        if not fields[column]:
            raise InputError(f"{where} {column}: empty; it must be given")
    for column in COLUMNS:
        if (_NUL if column == "text" else _CONTROL).search(fields[column]):
            raise InputError(f"{where} {column}: {fields[column]!r} holds control characters")
    if any(sign in fields["sample_id"] for sign in ("<-", "|")):
        raise InputError(f"{where} sample_id: {fields['sample_id']!r} holds <- or |, which the ids of pairs are made with")
    for column in ("semantic_label", "prosody_label"):
        if labels is not None and fields[column] not in labels:
            raise InputError(f"{where} {column}: unknown label {fields[column]!r}; allowed: {', '.join(labels)}")
    if (first := first_row.setdefault(fields["sample_id"], number)) != number:
        raise InputError(f"{where} sample_id: {fields['sample_id']!r} is already in row {first}; ids must differ")
    audio = path.parent / fields.pop("audio")
    if not os.path.isfile(audio):  # of a name that is too long, or in a folder that may not be read, it says no as well
        audio = existing(audio)
    if not os.path.isfile(audio):
        raise InputError(f"{where} audio: no such file {audio}{why_missing(audio)}")
    return Sample(audio=audio, **fields)


def read_clips(path: Path, labels: Sequence[str] | None, *, texts: bool = False) -> tuple[list[Sample], Counter[str]]:
    """Return a manifest's clips and a count of those left out: with no labels given all must be of LABELS, else as labelled.

    With `texts` no row may lack its text.
    """
    given = (*GIVEN, "text") if texts else GIVEN
    if labels is None:
        return read_manifest(path, given=given), Counter()
    return labelled(read_manifest(path, None, given=given), labels)


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


def choose_speaking(samples: Sequence[Sample], count: int, *, seed: int) -> frozenset[str]:
    """Return the ids of `count` conflict clips that are to answer in free text besides, drawn with the seed."""
    return frozenset(s.sample_id for s in draw([s for s in samples if s.conflict], count, seed=seed))
