"""Read a study's clips from its manifest; encode them as MP3 for the page."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common.clips.audio import read_clip
from common.clips.manifest import Sample, read_manifest
from common.errors import InputError
from common.run.record import ROOT, shown
from report.runs import Outputs, Study, Trouble

LEVEL = 0.95  # of libsndfile's MP3 compression: some 17 kbit a second in mono


def read_samples(study: Study) -> tuple[dict[str, Sample], list[Trouble]]:
    """Return the clips of the study's manifest by id, and what is wrong: it is not there, or it is of other clips."""
    path = manifest_of(study.first)
    try:
        samples = {s.sample_id: s for s in read_manifest(path, None)}
    except InputError as error:
        return {}, [Trouble("no manifest", {"why": str(error)})]
    troubles = []
    for run in study.runs:
        named = _named(run)
        strange = sum(1 for name, labels in named.items() if name not in samples or labels not in (None, _labels(samples[name])))
        if strange:
            told = {"folder": shown(run.folder), "n": str(strange), "manifest": str(run.identity["data"])}
            troubles.append(Trouble("other clips", told))
    return ({} if troubles else samples), troubles


def manifest_of(run: Outputs) -> Path:
    """Return where the manifest is: run.json names one in the repository from its root, another as the command did."""
    path = Path(str(run.identity["data"]))
    return ROOT / path if (ROOT / path).exists() else path


def _labels(sample: Sample) -> tuple[str, str]:
    return sample.semantic_label, sample.prosody_label


def _named(run: Outputs) -> dict[str, tuple[str, str] | None]:
    """Return the clips of a run with their labels, as far as its rows tell them."""
    if run.experiment == "lens":
        ends = run.rows.drop_duplicates("sample_id")
        return {str(r.sample_id): (str(r.semantic_label), str(r.prosody_label)) for r in ends.itertuples()}
    return {str(name): None for column in ("recipient_id", "donor_id") for name in run.rows[column].unique()}


def encoded(samples: Iterable[Sample], *, budget: int) -> dict[str, str]:
    """Return clips as MP3 in base64, by id, until `budget` bytes are full; a clip that cannot be read is left out."""
    found: dict[str, str] = {}
    left = budget
    for sample in samples:
        try:
            clip, buffer = read_clip(sample.audio), io.BytesIO()
            soundfile.write(
                buffer, np.clip(clip.wave, -1, 1), clip.rate, format="MP3", bitrate_mode="CONSTANT", compression_level=LEVEL
            )
        except (InputError, soundfile.LibsndfileError):
            continue
        text = base64.b64encode(buffer.getvalue()).decode("ascii")
        left -= len(text)
        if left < 0:
            break
        found[sample.sample_id] = text
    return found


def described(study: Study, samples: dict[str, Sample]) -> dict[str, Any]:
    """Return what a report says of a study's clips: how many of what, as far as manifest and rows tell."""
    used = [samples[name] for name in dict.fromkeys(n for run in study.runs for n in _named(run)) if name in samples]
    last = study.first.tables["layers"].iloc[0]
    counts = study.first.record["counts"]
    return {
        "manifest": study.first.identity["data"],
        "clips": len(used) or counts["clips"] + counts.get("congruent clips", 0),
        "conflict": counts["clips"],
        "congruent": counts.get("congruent clips", 0),
        "texts": int(last.n_texts),
        "speakers": int(last.n_speakers),
        "labels": study.first.identity["labels"],
    }
