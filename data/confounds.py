"""Test whether length, level, speaker or file type alone predicts a label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 5


@dataclass(frozen=True)
class Confound:
    """`recall`: mean over labels of the share of clips that `cue` alone puts right. `null`: 95 % of permuted labels are below."""

    cue: str
    label: str
    recall: float
    chance: float
    null: float
    p: float

    @property
    def tells(self) -> bool:
        return self.recall > self.null


def confound(
    cue: str, values: np.ndarray, label: str, labels: Sequence[str], groups: Sequence[str], *, permutations: int = 200, seed: int
) -> Confound | None:
    """Tell how well `values` [sample], numbers or names, predict `labels` on texts that were left out; None where that is void.

    Clips of one of `groups` (a text) are in one fold. A label that is the same in all clips of each group is permuted over the
    groups, else over the clips. Numbers are taken as normal within a label, names as frequencies; no label is likelier than
    another beforehand, so that chance is one over the number of labels.
    """
    classes, truth = np.unique(labels, return_inverse=True)
    texts, group = np.unique(groups, return_inverse=True)
    if len(classes) < 2 or len(texts) < 2 or len(np.unique(values)) < 2:
        return None
    rng = np.random.default_rng(seed)
    fold = (rng.permutation(len(texts)) % FOLDS)[group]
    codes = values if values.dtype.kind == "f" else np.unique(values, return_inverse=True)[1]
    recall = _recall(codes, truth, fold, len(classes))
    of_group = np.zeros(len(texts), int)
    of_group[group] = truth
    fixed = bool((of_group[group] == truth).all())
    null = []
    for _ in range(permutations):
        permuted = rng.permutation(of_group)[group] if fixed else rng.permutation(truth)
        null.append(_recall(codes, permuted, fold, len(classes)))
    beyond = sum(n >= recall for n in null)
    return Confound(cue, label, recall, 1 / len(classes), float(np.quantile(null, 0.95)), (1 + beyond) / (1 + permutations))


def _recall(values: np.ndarray, truth: np.ndarray, fold: np.ndarray, classes: int) -> float:
    """Return the mean recall of labels given to each fold by what was counted in the others."""
    score = _normal(values, truth, fold, classes) if values.dtype.kind == "f" else _frequencies(values, truth, fold, classes)
    right = score.argmax(axis=1) == truth
    return float(np.mean([right[truth == c].mean() for c in range(classes) if (truth == c).any()]))


def _without_own(sums: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return for each sample the sums [fold, ...] of all folds but its own."""
    return (sums.sum(axis=0) - sums)[fold]


def _normal(values: np.ndarray, truth: np.ndarray, fold: np.ndarray, classes: int) -> np.ndarray:
    centred = (values - values.mean()) / (values.std() or 1.0)
    shape, cell = (fold.max() + 1, classes), fold * classes + truth

    def summed(x: np.ndarray) -> np.ndarray:
        return np.bincount(cell, x, shape[0] * classes).reshape(shape)

    n, first, second = (_without_own(summed(x), fold) for x in (np.ones_like(centred), centred, centred**2))
    mean = first / np.maximum(n, 1)
    variance = np.maximum(second / np.maximum(n, 1) - mean**2, 1e-3)  # a label of one clip is not certain of its value
    score = -((centred[:, None] - mean) ** 2) / variance - np.log(variance)
    return np.where(n > 0, score, -np.inf)


def _frequencies(names: np.ndarray, truth: np.ndarray, fold: np.ndarray, classes: int) -> np.ndarray:
    kinds = names.max() + 1
    cell = (fold * kinds + names) * classes + truth
    counts = np.bincount(cell, minlength=(fold.max() + 1) * kinds * classes).reshape(-1, kinds, classes)
    here = _without_own(counts, fold)[np.arange(len(names)), names]  # [sample, label]
    total = _without_own(counts.sum(axis=1), fold)
    # One is added so that no name rules a label out; a hair of noise, as ties would all go to the first label.
    noise = np.random.default_rng(0).uniform(0, 1e-9, here.shape)
    return np.log((here + 1) / (total + kinds)) + noise
