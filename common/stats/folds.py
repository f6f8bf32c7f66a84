"""Clips on which something is learned, and clips with other texts and other speakers on which it is tried."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold


def unseen(
    texts: Sequence[str], speakers: Sequence[str], labels: Sequence[str], *, folds: int = 5, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (learn, held out), places of clips: those held out share neither text nor speaker with those to learn from.

    Every clip is held out once. Texts are parted with their `labels` in proportion where that can be. Where there is one
    speaker only, or none is known, texts alone are parted (`parted` says so); of one text, nothing is left to learn from.
    """
    by_text = _parts(texts, labels, folds, seed)
    by_speaker = _parts(speakers, labels, folds, seed) if "speakers" in parted(texts, speakers) else np.zeros(len(texts), int)
    several = by_speaker.max() > 0
    found = []
    for text, speaker in sorted({*zip(by_text.tolist(), by_speaker.tolist())}):
        out = (by_text == text) & (by_speaker == speaker)
        learn = (by_text != text) & ((by_speaker != speaker) | (not several))
        found.append((np.flatnonzero(learn), np.flatnonzero(out)))
    return found


def growing(
    texts: Sequence[str], speakers: Sequence[str], labels: Sequence[str], *, portions: int = 4, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (learn, next), places of clips: texts come in portions that double, what has come is learned from for the next one.

    From other speakers too, as in `unseen`. The clips of the first portion are in no next one: for them nothing has been learned.
    """
    names = np.unique(np.asarray(texts, dtype=str))
    order = np.random.default_rng(seed).permutation(len(names))
    of_text = dict(zip(texts, labels))
    seen: dict[str, int] = {}
    turn = {}
    for name in names[order]:  # labels take turns, so that the first portion has them all where it can
        turn[name] = seen[of_text[name]] = seen.get(of_text[name], 0) + 1
    ranked = sorted(names[order], key=turn.__getitem__)
    ends = [len(names) >> step for step in range(portions - 1, 0, -1)]
    place = {name: int(np.searchsorted(ends, rank, side="right")) for rank, name in enumerate(ranked)}
    portion = np.array([place[t] for t in map(str, texts)])
    by_speaker = _parts(speakers, labels, 3, seed) if "speakers" in parted(texts, speakers) else np.zeros(len(texts), int)
    several = by_speaker.max() > 0
    found = []
    for number, speaker in sorted({*zip(portion.tolist(), by_speaker.tolist())}):
        learn = (portion < number) & ((by_speaker != speaker) | (not several))
        if learn.any():
            found.append((np.flatnonzero(learn), np.flatnonzero((portion == number) & (by_speaker == speaker))))
    return found


def parted(texts: Sequence[str], speakers: Sequence[str]) -> tuple[str, ...]:
    """Return what `unseen` holds out: texts, and speakers where every clip has one and there are two or more."""
    known = len(set(speakers)) > 1 and "" not in set(speakers)
    return ("texts", "speakers") if known else ("texts",)


def _parts(groups: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the part [clip] that each clip belongs to; clips of one group are in one part."""
    count = min(folds, len(set(groups)))
    part = np.zeros(len(groups), dtype=int)
    rarest = min(len({g for g, x in zip(groups, labels) if x == label}) for label in set(labels))
    split = (
        StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        if rarest >= count
        else GroupKFold(count, shuffle=True, random_state=seed)
    )
    if count > 1:
        for number, (_, out) in enumerate(split.split(groups, labels, groups)):
            part[out] = number
    return part
