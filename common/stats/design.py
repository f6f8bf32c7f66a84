"""What units share, and so what is resampled: texts, speakers and sources, within the labels of the words."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

MIN_LEVELS = 5  # fewer speakers (or texts) cannot tell how others would differ: they are held fixed, the interval is for them

Codes = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class Design:
    """What units share: `clusters`, name -> codes [unit, role]; `labels` [unit, role] of the words of the texts, if known."""

    clusters: dict[str, Codes]
    labels: Codes | None = None


def memberships(*names: Any) -> Codes:
    """Return codes [unit, role] of the texts (or speakers) that a unit depends on; -1 where a role repeats an earlier one."""
    codes = np.unique(np.concatenate([np.asarray(n, dtype=str) for n in names]), return_inverse=True)[1].reshape(len(names), -1).T
    repeats = [(codes[:, :role] == codes[:, role : role + 1]).any(axis=1) for role in range(codes.shape[1])]
    return np.where(np.stack(repeats, axis=1), -1, codes)


def resampled_factors(design: Design, units: int) -> dict[str, int]:
    """Return the factors that are resampled, with how many levels they have: those of five levels or more, else the largest.

    A factor whose every level is in one source alone is left to the sources, if these are resampled: they contain it.
    """
    sizes = {name: np.bincount(codes[codes >= 0]) for name, codes in design.clusters.items()}
    levels = {name: int((size > 0).sum()) for name, size in sizes.items() if size.max(initial=0) < units}
    used = [name for name, n in levels.items() if n >= MIN_LEVELS] or sorted(levels, key=lambda name: -levels[name])[:1]
    if "sources" in used:
        source = design.clusters["sources"]
        used = [name for name in used if name == "sources" or not _nested(design.clusters[name], source)]
    return {name: levels[name] for name in used if levels[name] > 1}


def _nested(inner: Codes, outer: Codes) -> bool:
    both = (inner >= 0) & (outer >= 0)
    return len(np.unique(inner[both] * (outer.max() + 1) + outer[both])) == len(np.unique(inner[both]))


def strata_of(design: Design, used: list[str]) -> tuple[Codes, Codes | None]:
    """Return the stratum of each unit, and of each text, by the labels of their words; one stratum where that cannot be.

    By the labels in all roles, or in fewer, as long as no stratum loses all its units with a cluster, and no label all its texts.
    """
    texts = design.clusters.get("texts")
    units = np.zeros(len(next(iter(design.clusters.values()))), dtype=int)
    if design.labels is None or texts is None:
        return units, None
    there = texts >= 0
    of_text = np.zeros(texts.max() + 1, dtype=int)
    of_text[texts[there]] = design.labels[there]
    nested = (of_text[texts[there]] == design.labels[there]).all()
    if not nested:
        return units, None
    merged = _of_two_texts(np.bincount(of_text[np.unique(texts[there])], minlength=design.labels.max() + 1))
    labels = merged[design.labels]
    for roles in range(labels.shape[1], 0, -1):
        strata = units
        for role in range(roles):
            strata = strata * len(merged) + labels[:, role]
        strata = np.unique(strata, return_inverse=True)[1]
        if all(_survives(strata, design.clusters[name]) for name in used):
            return strata, merged[of_text]
    return units, None


def _of_two_texts(number: Codes) -> Codes:
    """Return for each label the stratum of its texts, from their `number`: labels of one text share theirs with another."""
    merged = np.arange(len(number))
    there = np.flatnonzero(number)
    few = np.flatnonzero(number == 1)
    if len(few) == 1 < len(there):
        few = there[np.argsort(number[there], kind="stable")[:2]]
    merged[few] = few.min(initial=len(number))
    return merged


def _survives(strata: Codes, codes: Codes) -> bool:
    """Tell whether every stratum keeps units when any one cluster goes."""
    unit, role = np.nonzero(codes >= 0)
    cells, size = np.unique(codes[unit, role] * (strata.max() + 1) + strata[unit], return_counts=True)
    return bool((size < np.bincount(strata)[cells % (strata.max() + 1)]).all())


def signed_groupings(codes: Codes) -> list[tuple[int, Codes]]:
    """Return signed groupings of the units that sum to "shares a text".

    Units that share two texts would else count twice: so singles, minus twos, plus threes.
    """
    terms = []
    base = codes.max() + 1
    for size in range(1, codes.shape[1] + 1):
        columns = []
        for roles in combinations(range(codes.shape[1]), size):
            chosen = np.sort(codes[:, roles], axis=1)
            column = chosen[:, 0]
            for place in range(1, size):
                column = column * base + chosen[:, place]
            columns.append(np.where(chosen[:, 0] < 0, -1, column))
        grouping = np.stack(columns, axis=1)
        if (grouping >= 0).any():
            terms.append((-1 if size % 2 == 0 else 1, grouping))
    return terms


def intersections(first: Codes, second: Codes) -> Codes:
    """Return the memberships [unit, role * role] in the intersections of two groupings."""
    a, b = first[:, :, None], second[:, None, :]
    return np.where((a < 0) | (b < 0), -1, a * (second.max() + 1) + b).reshape(len(first), -1)
