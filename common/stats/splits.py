"""Split clips into training and held-out parts by text and speaker."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold


def held_out(
    texts: Sequence[str], speakers: Sequence[str], labels: Sequence[str], *, folds: int = 5, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (learn, held out), places of clips: those held out share neither text nor speaker with those to learn from.

    Every clip is held out once. Texts are parted with their `labels` in proportion where that can be. Where there is one
    speaker only, or none is known, texts alone are parted (`parted` says so); of one text, nothing is left to learn from.
    """
    by_text = _parts(texts, labels, folds, seed)
    return _crossed(by_text, _by_speaker(texts, speakers, labels, folds, seed))


def halves(texts: Sequence[str], labels: Sequence[str], *, seed: int) -> np.ndarray:
    """Return which half of the texts, 0 or 1, each clip belongs to; texts are parted with their `labels` in proportion."""
    return _parts(texts, labels, 2, seed)


def parted(texts: Sequence[str], speakers: Sequence[str]) -> tuple[str, ...]:
    """Return what `held_out` holds out: texts, and speakers where every clip has one and there are two or more."""
    known = len(set(speakers)) > 1 and "" not in set(speakers)
    return ("texts", "speakers") if known else ("texts",)


def _by_speaker(texts: Sequence[str], speakers: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the part [clip] of the speakers that each clip belongs to; one part where they are not held out."""
    return _parts(speakers, labels, folds if "speakers" in parted(texts, speakers) else 1, seed)


def _crossed(part: np.ndarray, by_speaker: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (learn, held out) for each part of the texts and of the speakers: those learned from are in neither.

    Where the speakers are of one part, it is not left out.
    """
    several = by_speaker.max() > 0
    found = []
    for text, speaker in sorted({*zip(part.tolist(), by_speaker.tolist())}):
        learn = (part != text) & ((by_speaker != speaker) | (not several))
        found.append((np.flatnonzero(learn), np.flatnonzero((part == text) & (by_speaker == speaker))))
    return found


def _parts(groups: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the part [clip] that each clip belongs to; clips of one group are in one part."""
    count = min(folds, len(set(groups)))
    part = np.zeros(len(groups), dtype=int)
    if count < 2:
        return part
    rarest = min(len({g for g, x in zip(groups, labels) if x == label}) for label in set(labels))
    split = (StratifiedGroupKFold if rarest >= count else GroupKFold)(count, shuffle=True, random_state=seed)
    for number, (_, out) in enumerate(split.split(groups, labels, groups)):
        part[out] = number
    return part
