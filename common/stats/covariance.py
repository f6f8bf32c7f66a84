"""One covariance over the layers for any statistic of means of clustered units: delete each cluster, compute it again.

Clips that share a text or a speaker are not independent, and a pair depends on the texts and speakers of two or three clips.

- Jackknife: the statistic itself (a mean, a ratio, a difference of ratios) without each cluster, not its linearisation. Over
  texts, plus over speakers, minus over their intersections (Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29; with the
  jackknife MacKinnon, Nielsen & Webb 2024, arXiv 2406.08880), never below that over one of them. Pairs that share a text in any
  role are dependent (Aronow, Samii & Assenova 2015, Political Analysis 23).
- Strata: a text has one words' label, so the shares of the words' labels are the design's and stay as they are when a text goes
  (Wolter 2007, Introduction to Variance Estimation, 4.5). Else the differences between labels would count as chance.
- Degrees of freedom: Satterthwaite's, with the effective number of clusters (Kish 1965; Carter, Schnepel & Steigerwald 2017, Rev.
  Econ. Stat. 99): six speakers who say four fifths of everything are hardly more than six.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from common.stats.design import Codes, Design, intersections, resampled_factors, signed_groupings, strata_of

Floats = np.ndarray[Any, np.dtype[np.float64]]
Statistic = Callable[[Floats], Floats]  # means [..., column, layer] to results [..., result, layer]


@dataclass(frozen=True)
class Jackknifed:
    """Statistics over units with what their intervals need; `se` is nan where nothing can be resampled."""

    mean: Floats  # [result, layer]
    se: Floats  # [result, layer]
    correlation: Floats  # of the estimates, [result, layer, layer]
    df: Floats  # degrees of freedom, one number for all layers, [result]
    clusters: str  # what was resampled: "texts and speakers", "texts", "speakers" or "none: ..."
    levels: float  # how many of them in effect, the fewest of any
    n: int  # units


def estimate(values: Floats, design: Design, *, statistic: Statistic = lambda means: means) -> Jackknifed:
    """Return a statistic of the means of `values` [unit, column, layer], with its covariance over the layers."""
    mean = statistic(values.mean(axis=0))
    used = resampled_factors(design, len(values))
    if not used:
        nothing = np.full_like(mean, np.nan)
        none = f"none: no two {' or '.join(design.clusters)} to tell apart"
        return Jackknifed(mean, nothing, np.zeros((*mean.shape, mean.shape[1])), nothing[:, 0], none, 1, len(values))
    strata, of_text = strata_of(design, list(used))
    terms = {name: signed_groupings(design.clusters[name]) for name in used}
    stratum = {name: of_text if name == "texts" else None for name in used}

    def jackknife(codes: Codes, clusters: Codes | None = None) -> Floats:
        return _jackknife(values, strata, codes, clusters, statistic)

    parts = {
        name: [(sign, jackknife(codes, None if i else stratum[name])) for i, (sign, codes) in enumerate(terms[name])]
        for name in used
    }
    own = {name: _one_way(terms[name], parts[name]) for name in used}
    both = [name for name in used if name != "sources"] if len(used) == 3 else list(used)
    if len(both) == 2:
        covariance = _two_way(jackknife, {name: terms[name] for name in both}, {name: own[name] for name in both})
        covariance = covariance + (own["sources"] if len(used) == 3 else 0)  # their noise counts twice, at most
    else:
        covariance = own[both[0]]
    floors = [*own.values(), *(parts[name][-1][1] for name in used)]  # the last: of units that share all their texts
    variance = np.max([_diagonal(c) for c in (covariance, *floors)], axis=0)
    se = np.where(variance <= (1e-12 * np.maximum(np.abs(mean), 1)) ** 2, 0 * mean, np.sqrt(variance))  # equal values, rounded
    some = np.where(se > 0, variance, np.nan)
    own_df = {name: _effective(design.clusters[name], stratum[name]) for name in used}
    shares = sum((_diagonal(own[name]) / some) ** 2 / own_df[name] for name in used)  # 1 / df, [result, layer]
    layers = (se > 0).sum(axis=1)
    df = np.where(layers > 0, layers / np.where(layers > 0, np.nansum(shares, axis=1), 1), min(own_df.values()))
    fewest = min(_effective(design.clusters[name], None) + 1 for name in used)
    return Jackknifed(mean, se, _correlation(covariance), df, " and ".join(used), fewest, len(values))


def _diagonal(covariance: Floats) -> Floats:
    return np.diagonal(covariance, axis1=1, axis2=2)


def _effective(codes: Codes, stratum: Codes | None) -> float:
    """Return the degrees of freedom of a jackknife over clusters of these sizes: their number less 1 where all are alike."""
    size = np.bincount(codes[codes >= 0], minlength=codes.max() + 1).astype(float)
    stratum = np.zeros(len(size), dtype=int) if stratum is None else stratum
    squares, sums = np.bincount(stratum, size**2), np.bincount(stratum, size)
    filled = squares > 0
    squares, number = squares[filled], sums[filled] ** 2 / squares[filled]
    return float(squares.sum() ** 2 / (squares**2 / np.maximum(number - 1, 1e-9)).sum().clip(1e-300)) if len(squares) else 1.0


def _jackknife(values: Floats, strata: Codes, codes: Codes, stratum: Codes | None, statistic: Statistic) -> Floats:
    """Return the delete-one-cluster jackknife covariance of a statistic, [result, layer, layer].

    Units of a stratum stand for those that go with a cluster, so that the shares of the strata stay. `stratum` is that of each
    cluster, which varies within it.
    """
    n, kinds = len(values), strata.max() + 1
    flat = values.reshape(n, -1)
    in_stratum = sparse.csr_array((np.ones(n), (strata, np.arange(n))), shape=(kinds, n))
    count = in_stratum.sum(axis=1)
    means = (in_stratum @ flat) / count[:, None]
    unit, role = np.nonzero(codes >= 0)
    names, cluster = np.unique(codes[unit, role], return_inverse=True)
    cells, cell = np.unique(cluster * kinds + strata[unit], return_inverse=True)  # what a cluster has of a stratum
    members = sparse.csr_array((np.ones(len(unit)), (cell, unit)), shape=(len(cells), n))
    size, of = members.sum(axis=1), cells % kinds
    change = (size[:, None] * means[of] - members @ flat) * (count[of] / n / (count[of] - size))[:, None]
    if kinds > 1:
        of_cluster = (np.ones(len(cells)), (cells // kinds, np.arange(len(cells))))
        change = sparse.csr_array(of_cluster, shape=(len(names), len(cells))) @ change
    mean = values.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.nan_to_num(statistic(mean + change.reshape(len(names), *mean.shape)) - statistic(mean))
    if stratum is None:
        moved *= np.sqrt((len(names) - 1) / len(names))
    else:
        alike = np.bincount(stratum[names])[stratum[names]]
        moved *= np.sqrt((alike - 1) / alike)[:, None, None]
    moved = moved.transpose(1, 2, 0)
    return moved @ moved.transpose(0, 2, 1)


def _one_way(terms: list[tuple[int, Codes]], parts: list[tuple[int, Floats]]) -> Floats:
    """Return the covariance over one factor: that of singles, minus that of twos, plus that of threes, made unbiased.

    With few texts in several roles the sum is not: twos hold some of the texts' own effects, and a cluster that goes takes many
    units with it. It and its finest part, of units that share all their texts, are weighted so that both a variance of the texts'
    effects and one of the units' own come out as they are. Without: .75 of the truth with 12 texts in three roles.
    """
    whole: Floats = np.sum([sign * part for sign, part in parts], axis=0)
    if len(terms) == 1:
        return whole
    expected = [_expected(terms[0][1], codes) for _, codes in terms]
    of_whole = np.sum([sign * e for (sign, _), e in zip(terms, expected)], axis=0)
    size, n = np.unique(terms[0][1][terms[0][1] >= 0], return_counts=True)[1], len(terms[0][1])
    truth = np.array([(size**2.0).sum() / n**2, 1 / n])
    weights = np.linalg.lstsq(np.stack([of_whole, expected[-1]], axis=1), truth, rcond=None)[0]
    return weights[0] * whole + weights[1] * parts[-1][1]


def _expected(texts: Codes, codes: Codes) -> Floats:
    """Return what the jackknife over `codes` gives of a mean, for independent effects of the `texts`, and of the units."""
    n = len(texts)
    of_texts, members = _incidence(texts), _incidence(codes)
    size, count = members.sum(axis=0), of_texts.sum(axis=0)
    shared = (of_texts.T @ members).tocsc()
    of_effects = shared.power(2).sum(axis=0) - 2 * size / n * (count @ shared) + (size / n) ** 2 * (count @ count)
    weight = (len(size) - 1) / len(size) / (n - size) ** 2
    return np.array([weight @ of_effects, weight @ (size - size**2 / n)])


def _incidence(codes: Codes) -> sparse.csr_array:
    """Return which units belong to which clusters, [unit, cluster]."""
    unit, role = np.nonzero(codes >= 0)
    cluster = np.unique(codes[unit, role], return_inverse=True)[1]
    return sparse.csr_array((np.ones(len(unit)), (unit, cluster)), shape=(len(codes), cluster.max() + 1))


def _two_way(jackknife: Callable[[Codes], Floats], terms: dict[str, list[tuple[int, Codes]]], own: dict[str, Any]) -> Floats:
    """Return the covariance over two factors: each one's own, minus that over their intersections.

    The weights make it unbiased where texts and speakers are crossed in equal numbers and their effects add up; with plain
    ones (where they are close to nested) each effect's share in the intersections would be missing: a tenth with ten speakers.
    """
    (first, second), (own_first, own_second) = terms.values(), own.values()
    cells = sum(s * t * jackknife(intersections(a, b)) for s, a in first for t, b in second)
    in_cells = _pairs_within(intersections(first[0][1], second[0][1]))
    a, b = in_cells / _pairs_within(first[0][1]), in_cells / _pairs_within(second[0][1])
    weight = 1 / (1 - a - b) if a + b < 0.5 else 0
    return (1 + weight * a) * own_first + (1 + weight * b) * own_second - (weight or 1) * cells


def _pairs_within(codes: Codes) -> float:
    return float((np.unique(codes[codes >= 0], return_counts=True)[1].astype(float) ** 2).sum())


def _correlation(covariance: Floats) -> Floats:
    """Return the correlations, without negative eigenvalues; 0 where a variance is."""
    values, vectors = np.linalg.eigh(np.nan_to_num(covariance))
    positive = (vectors * np.maximum(values, 0)[:, None, :]) @ vectors.transpose(0, 2, 1)
    scale = np.sqrt(np.maximum(_diagonal(positive), 0))
    scale = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 1e-12)
    return positive * scale[:, :, None] * scale[:, None, :]
