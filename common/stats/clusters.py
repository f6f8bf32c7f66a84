"""Find the clusters of units: which texts, speakers and sources they share."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

MIN_LEVELS = 5  # fewer speakers (or texts) cannot tell how others would differ: they are held fixed, the interval is for them

Codes = np.ndarray[Any, np.dtype[np.intp]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


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


def label_means(design: Design, used: Iterable[str]) -> Floats:
    """Return orthonormal columns [unit, column] that span the means of the words' labels in each role, or that of all units.

    A label of one text is not told from that text, so each has to have two; and there have to be twice as many units as means.
    """
    n = len(next(iter(design.clusters.values())))
    same = np.full((n, 1), n**-0.5)
    if design.labels is None or "texts" not in used:
        return same
    texts, labels = design.clusters["texts"], np.unique(design.labels)
    fewest = min(len(np.unique(texts[(design.labels == label) & (texts >= 0)])) for label in labels)
    indicators = (design.labels[:, :, None] == labels).reshape(n, -1)
    columns, sizes, _ = np.linalg.svd(indicators.astype(float), full_matrices=False)
    columns = columns[:, sizes > 1e-8 * sizes[0]]
    return columns if fewest > 1 and n >= 2 * columns.shape[1] else same


def incidence(codes: Codes) -> sparse.csr_array:
    """Return which units belong to which clusters, [unit, cluster]."""
    unit, role = np.nonzero(codes >= 0)
    cluster = np.unique(codes[unit, role], return_inverse=True)[1]
    return sparse.csr_array((np.ones(len(unit)), (unit, cluster)), shape=(len(codes), cluster.max() + 1))
