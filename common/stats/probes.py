"""Fit ridge probes, and test them on unseen texts and speakers.

Ridge regression on the labels' indicators, in closed form: it needs the products of the clips' vectors alone, so that many labels
(a label and its permutations) and many strengths cost hardly more than one, whatever the width of the model.

- An indicator is taken relative to how often its label is there beside the clip's other label: the largest value is that of the
  label that the vector makes likelier by most, whatever its frequency, and a guess is right in 1 / labels. Else a probe of the
  voice could read the words where the two go together in the clips (or apart, as in conflict clips alone).
- The strength is chosen among `STRENGTHS` inside the clips to learn from, by what others of their texts and speakers cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh, solve
from scipy.special import log_softmax
from sklearn.preprocessing import StandardScaler

from common.stats.clustered_means import Floats
from common.stats.splits import held_out

STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # of the ridge, in mean squares of the vectors
SHARPNESS = (0.3, 1.0, 3.0, 9.0)  # what values are multiplied by, before a softmax makes probabilities of them
_FOLDS = 4
_INNER = 4  # splits at most to choose with; of texts and speakers at once there would be nine
_TIE = 1e-9  # values as close as this are equal

Codes = np.ndarray


@dataclass(frozen=True)
class Fold:
    """Places of clips: `learn` from these, `out` are tried; `inner` parts `learn`, as places in it, to choose a strength."""

    learn: Codes
    out: Codes
    inner: tuple[tuple[Codes, Codes], ...]


Plan = tuple[Fold, ...]


@dataclass(frozen=True)
class Targets:
    """What is to be decoded: `codes` [clip, target] of labels, 0 to `labels` [target] - 1; `other`: codes of the other label."""

    codes: Codes
    other: Codes
    labels: Codes


def plan(texts: Sequence[str], speakers: Sequence[str], labels: Sequence[str], *, seed: int) -> Plan:
    """Return folds that hold every clip out once; texts are parted with their `labels`, those of the words, in proportion."""
    t, s, x = (np.asarray(v, dtype=str) for v in (texts, speakers, labels))
    clips = (t.tolist(), s.tolist(), x.tolist())
    rarest = min(len({*t[x == label]}) for label in set(x))  # with more parts than texts of a label, some part may have them all
    folds = min(_FOLDS, max(2, rarest))

    def fold(learn: Codes, out: Codes) -> Fold:
        several = len(set(t[learn])) > 1
        inner = [i for i in held_out(*(v[learn].tolist() for v in (t, s, x)), folds=3, seed=seed) if len(i[0])] if several else []
        drawn = np.random.default_rng(seed).permutation(len(inner))[:_INNER]
        return Fold(learn, out, tuple(inner[i] for i in drawn))

    return tuple(fold(learn, out) for learn, out in held_out(*clips, folds=folds, seed=seed) if len(learn))


def widening(texts: Sequence[str], labels: Sequence[str]) -> float:
    """Return by how much the standard error of an accuracy is larger than its clips tell, as they share what was learned from.

    sqrt(1 + folds x tried / learned) for labels that go with whole texts (Nadeau & Bengio 2003, Machine Learning 52), of which
    there are few to learn from; 1 where a label varies within texts: then what was learned is of many clips, and calibration
    shows nothing missing.
    """
    of_text: dict[str, set[str]] = {}
    for text, label in zip(texts, labels):
        of_text.setdefault(text, set()).add(label)
    whole = sum(len(found) == 1 for found in of_text.values()) > len(of_text) / 2
    return float(np.sqrt(1 + _FOLDS / (_FOLDS - 1))) if whole else 1.0


def products(vectors: np.ndarray) -> Floats:
    """Return the products of clips [clip, clip] from their vectors [clip, feature], every feature in its standard deviations.

    The deviation is that over all clips: it knows no label. Features that are the same for all count nothing.
    """
    x = StandardScaler().fit_transform(vectors.astype(np.float32))
    return (x @ x.T).astype(np.float64) / x.shape[1]


def decoded(kernel: Floats, targets: Targets, folds: Plan, *, rank: int | None = None) -> Floats:
    """Return which of the targets are decoded from the products [clip, clip]: [clip, target], 1, 0, or a part of a tie.

    One that there was nothing to learn for is a guess. With a `rank` the vectors are cut to so many principal components of the
    clips to learn from, so that wide and narrow vectors are told from alike.
    """
    labels, codes = targets.labels, targets.codes
    right = np.broadcast_to(1 / labels, codes.shape).copy()
    for fold in folds:
        values = _learned(kernel if rank is None else reduced(kernel, fold.learn, rank), targets, fold)
        best = values >= values.max(axis=-1, keepdims=True) - _TIE
        right[fold.out] = _of(best / best.sum(axis=-1, keepdims=True), codes[fold.out])
    return right


def reduced(kernel: Floats, learn: Codes, rank: int) -> Floats:
    """Return the products [clip, clip] of vectors cut to the first `rank` principal components of the clips to `learn` from."""
    mean = kernel[:, learn].mean(axis=1)
    across = kernel[:, learn] - mean[:, None] - kernel[np.ix_(learn, learn)].mean(axis=0) + mean[learn].mean()
    n = len(learn)
    variances, axes = eigh(across[learn], subset_by_index=(max(0, n - rank), n - 1))
    there = variances > _TIE * max(variances[-1], _TIE)
    components = across @ axes[:, there] / np.sqrt(variances[there])
    return components @ components.T


def _learned(kernel: Floats, targets: Targets, fold: Fold) -> Floats:
    """Return the values [out, target, label] of a fold at the strength that fits best as log odds, however sharp these are."""
    own = replace(targets, codes=targets.codes[fold.learn], other=targets.other[fold.learn])
    target = np.arange(len(targets.labels))
    strength = np.full(len(target), len(STRENGTHS) // 2)
    if fold.inner:
        within = kernel[np.ix_(fold.learn, fold.learn)]
        cost = np.zeros((len(SHARPNESS), len(STRENGTHS), len(target)))
        for learn, out in fold.inner:
            values = _values(within, own, learn, out)
            for i, sharp in enumerate(SHARPNESS):
                cost[i] -= _of(log_softmax(sharp * values, axis=-1), own.codes[out]).sum(axis=1)
        strength = cost.min(axis=0).argmin(axis=0)
    values = _values(kernel, targets, fold.learn, fold.out)
    return values[strength, :, target].swapaxes(0, 1)


def _values(kernel: Floats, targets: Targets, learn: Codes, out: Codes) -> Floats:
    """Return what ridge regressions of every strength say, [strength, out, target, label].

    It is 0 where a vector tells nothing, -1 where it rules a label out, and -inf for what is no label of the target.
    """
    inside, across = kernel[np.ix_(learn, learn)], kernel[np.ix_(out, learn)]
    mean = inside.mean(axis=0)
    across = across - across.mean(axis=1, keepdims=True) - mean + mean.mean()
    inside = inside - mean[:, None] - mean + mean.mean()
    label = np.arange(targets.labels.max())
    there = targets.codes[learn][:, :, None] == label  # [learn, target, label]
    other = targets.other[learn][:, :, None] == np.arange(targets.other.max() + 1)  # [learn, target, other]
    pairs = np.einsum("nto,ntl->tol", other.astype(float), there.astype(float))
    usual = pairs / np.maximum(pairs.sum(axis=2, keepdims=True), 1)  # how often a label is there, given the other one
    usual = np.take_along_axis(usual, targets.other[learn].T[:, :, None], axis=1).swapaxes(0, 1)  # [learn, target, label]
    wanted = np.where(usual > 0, there / np.where(usual > 0, usual, 1) - 1, 0).reshape(len(learn), -1)
    never = np.where(label < targets.labels[:, None], -1.0 * ~there.any(axis=0), -np.inf)
    scale = max(float(np.trace(inside)) / len(learn), 1e-9)
    found = []
    for strength in STRENGTHS:
        ridge = strength * scale * np.eye(len(learn))
        weights = solve(inside + ridge, wanted, assume_a="pos", check_finite=False, overwrite_a=True)
        found.append((across @ weights).reshape(len(out), *never.shape) + never)
    return np.stack(found)


def _of(values: Floats, codes: Codes) -> Floats:
    """Return the entry of each clip's own label [..., clip, target]."""
    return np.take_along_axis(values, np.broadcast_to(codes[..., None], (*values.shape[:-1], 1)), axis=-1)[..., 0]
