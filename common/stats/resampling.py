"""Intervals, simultaneous bands and tests for means of clustered units, all from one covariance over the layers.

Clips that share a text or a speaker are not independent, and a pair depends on up to two of each.

- Covariance: delete-one-cluster jackknife over texts, plus over speakers, minus over their intersections (Cameron, Gelbach &
  Miller 2011, J. Bus. Econ. Stat. 29; with the jackknife MacKinnon, Nielsen & Webb 2024, arXiv 2406.08880), never below that over
  one of them. Pairs that share a text in any role are dependent (Aronow, Samii & Assenova 2015, Political Analysis 23).
- Interval: Student's t with Satterthwaite's degrees of freedom; for shares in Wilson's form with the effective number of units
  (Korn & Graubard 1998, Surv. Methodol. 24), which stays within 0 and 1 and is no point where every unit agrees.
- Draws: Gaussian with that covariance: a bootstrap with Gaussian multipliers on the clusters, in closed form. The percentiles
  of resampled clusters are too close together where clusters are few, and pairs resampled by weights too far apart.
- Band: max-t over those draws (Montiel Olea & Plagborg-Moller 2019, J. Appl. Econom. 34).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, stats

LEVEL = 0.95
DRAWS = 10_000
MIN_LEVELS = 5  # fewer speakers (or texts) cannot tell how others would differ: they are held fixed, the interval is for them

Floats = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class Estimate:
    """Means over units with what their intervals need; `se` is nan where nothing can be resampled."""

    mean: Floats  # [column, layer]
    se: Floats  # [column, layer]
    correlation: Floats  # of the means, [column, layer, layer]
    df: Floats  # degrees of freedom, one number for all layers, [column]
    clusters: str  # what was resampled: "texts and speakers", "texts", "speakers" or "none: ..."
    levels: int  # how many of them, the fewer of the two


def memberships(*names: Any) -> Codes:
    """Return codes [unit, role] of the texts (or speakers) that a unit depends on; -1 where a role repeats another."""
    codes = np.unique(np.concatenate([np.asarray(n, dtype=str) for n in names]), return_inverse=True)[1].reshape(len(names), -1).T
    return np.where((codes == codes[:, :1]) & (np.arange(len(names)) > 0), -1, codes)


def estimate(values: Floats, factors: dict[str, Codes]) -> Estimate:
    """Return the means of `values` [unit, column, layer] over units that depend on `factors` (name -> memberships)."""
    mean = values.mean(axis=0)
    sizes = {name: np.bincount(codes[codes >= 0]) for name, codes in factors.items()}
    levels = {name: len(size) for name, size in sizes.items() if size.max(initial=0) < len(values)}
    used = [name for name, n in levels.items() if n >= MIN_LEVELS] or sorted(levels, key=lambda name: -levels[name])[:1]
    if not used or levels[used[0]] < 2:
        nothing = np.full_like(mean, np.nan)
        none = f"none: no two {' or '.join(factors)} to tell apart"
        return Estimate(mean, nothing, np.zeros((*mean.shape, mean.shape[1])), nothing[:, 0], none, 1)
    terms = {name: _terms(factors[name]) for name in used}
    parts = {name: [(sign, _jackknife(values, mean, codes)) for sign, codes in terms[name]] for name in used}
    own = {name: np.sum([sign * part for sign, part in parts[name]], axis=0) for name in used}
    covariance = _two_way(values, mean, terms, own) if len(used) == 2 else own[used[0]]
    floors = [*own.values(), *(part for name in used for sign, part in parts[name] if sign < 0)]
    variance = np.max([_diagonal(c) for c in (covariance, *floors)], axis=0)
    se = np.where(variance <= (1e-12 * np.maximum(np.abs(mean), 1)) ** 2, 0 * mean, np.sqrt(variance))  # equal values, rounded
    some = np.where(se > 0, variance, np.nan)
    shares = sum((_diagonal(parts[name][0][1]) / some) ** 2 / (levels[name] - 1) for name in used)  # 1 / df, [column, layer]
    fewest, layers = min(levels[name] for name in used), (se > 0).sum(axis=1)
    df = np.where(layers > 0, layers / np.where(layers > 0, np.nansum(shares, axis=1), 1), fewest - 1)
    return Estimate(mean, se, _correlation(covariance), df, " and ".join(used), fewest)


def _diagonal(covariance: Floats) -> Floats:
    return np.diagonal(covariance, axis1=1, axis2=2)


def _terms(codes: Codes) -> list[tuple[int, Codes]]:
    """Return signed groupings of the units that sum to "shares a text": two units that share both would else count twice."""
    if codes.shape[1] == 1 or (codes[:, 1] < 0).all():
        return [(1, codes[:, :1])]
    both = codes.min(axis=1) * (codes.max() + 1) + codes.max(axis=1)
    return [(1, codes), (-1, np.where(codes[:, 1] < 0, -1, both)[:, None])]


def _crossed(first: Codes, second: Codes) -> Codes:
    """Return the memberships [unit, role * role] in the intersections of two groupings."""
    a, b = first[:, :, None], second[:, None, :]
    return np.where((a < 0) | (b < 0), -1, a * (second.max() + 1) + b).reshape(len(first), -1)


def _jackknife(values: Floats, mean: Floats, codes: Codes) -> Floats:
    """Return the delete-one-cluster jackknife covariance of the mean, [column, layer, layer]."""
    unit, role = np.nonzero(codes >= 0)
    names, cluster = np.unique(codes[unit, role], return_inverse=True)
    members = sparse.csr_array((np.ones(len(unit)), (cluster, unit)), shape=(len(names), len(values)))
    size = members.sum(axis=1)[:, None]
    change = (size * mean.ravel() - members @ values.reshape(len(values), -1)) / (len(values) - size)
    change = change.reshape(len(names), *mean.shape).transpose(
        1, 2, 0
    )  # mean without the cluster - mean, [column, layer, cluster]
    return (len(names) - 1) / len(names) * (change @ change.transpose(0, 2, 1))


def _two_way(values: Floats, mean: Floats, terms: dict[str, list[tuple[int, Codes]]], own: dict[str, Any]) -> Floats:
    """Return the covariance over two factors: each one's own, minus that over their intersections.

    The weights make it unbiased where texts and speakers are crossed in equal numbers and their effects add up; with plain
    ones (where they are close to nested) each effect's share in the intersections would be missing: a tenth with ten speakers.
    """
    (first, second), (own_first, own_second) = terms.values(), own.values()
    cells = sum(s * t * _jackknife(values, mean, _crossed(a, b)) for s, a in first for t, b in second)
    in_cells = _pairs_within(_crossed(first[0][1], second[0][1]))
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


def draws(of: Estimate, column: int, *, seed: int, count: int = DRAWS) -> Floats:
    """Return draws [draw, layer] of the error of a column's means in standard errors, Gaussian and correlated as they are.

    Few clusters overstate how alike the layers are, so the correlations are shrunk to 0 by 1 / (df + 1).
    """
    shrunk = of.correlation[column].copy()
    off = ~np.eye(len(shrunk), dtype=bool)
    shrunk[off] *= of.df[column] / (of.df[column] + 1)
    values, vectors = np.linalg.eigh(shrunk)
    normals = np.random.default_rng(seed).standard_normal((count, len(shrunk)))
    return normals @ (vectors * np.sqrt(np.maximum(values, 0))).T


def critical(of: Estimate, *, seed: int, count: int = DRAWS) -> tuple[Floats, Floats]:
    """Return how many standard errors an interval and a band over all layers reach to each side, [column] each.

    The Gaussian draws tell how many independent tests the layers amount to; the tails are those of Student's t.
    """
    alpha = np.full(len(of.mean), np.nan)
    for column in np.flatnonzero((of.se > 0).any(axis=1)):
        varies = of.se[column] > 0
        largest = np.abs(draws(of, column, seed=seed, count=count)[:, varies]).max(axis=1)
        alpha[column] = 2 * stats.norm.sf(np.quantile(largest, LEVEL))
    usual = np.where(np.isnan(of.df), np.nan, 1 - LEVEL)
    return stats.t.isf(usual / 2, of.df), stats.t.isf(np.where(np.isnan(alpha), usual, alpha) / 2, of.df)


def interval(of: Estimate, reach: Floats, *, share: Floats, counted: Floats) -> tuple[Floats, Floats]:
    """Return (low, high) [column, layer] at `reach` [column] standard errors, in Wilson's form for the columns in `share`.

    `counted` [column, layer] units are what the means are of. Where all of them agree, the effective number of units is
    taken from the column's other layers, and is that of the clusters where there are none.
    """
    reach, share = reach[:, None], share[:, None]
    p = np.where(share, np.clip(of.mean, 0, 1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where((p * (1 - p) > 1e-12) & (of.se > 0), p * (1 - p) / of.se**2, np.nan)  # effective number
        clustering = np.array([max(1.0, np.median(d)) if (d := row[row > 0]).size else np.nan for row in counted / units])[
            :, None
        ]
        units = np.where(np.isnan(units), np.where(np.isnan(clustering), of.levels, counted / clustering), units)
        centre = (p + reach**2 / (2 * units)) / (1 + reach**2 / units)
        half = reach / (1 + reach**2 / units) * np.sqrt(p * (1 - p) / units + reach**2 / (4 * units**2)) + 0 * of.se
    low, high = of.mean - reach * of.se, of.mean + reach * of.se
    return np.where(share, np.maximum(centre - half, 0), low), np.where(share, np.minimum(centre + half, 1), high)


def first_from(holds: np.ndarray) -> np.ndarray:
    """Return the first layer from which `holds` [..., layer] is true up to the last; the number of layers where there is none."""
    return holds.shape[-1] - np.cumprod(holds[..., ::-1], axis=-1).sum(axis=-1)


def p_clustered(of: Estimate) -> Floats:
    """Return two-sided p-values [column, layer] of a mean of 0: for differences of flips, McNemar's test of clustered pairs.

    (Obuchowski 1998, Stat. Med. 17.) Where every unit moved alike there is no variance, and the clusters' signs are tested.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(of.mean / of.se), of.df[:, None])
    return np.where(of.se == 0, np.where(of.mean == 0, 1.0, 2 * 0.5**of.levels), p)


def p_mcnemar(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return exact two-sided p-values of McNemar's test from the counts of pairs that changed one way and the other."""
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(up, down), up + down, 0.5))


def holm(p: Floats) -> Floats:
    """Return p-values [layer] corrected for their number (Holm 1979, Scand. J. Stat. 6); all nan where one is."""
    if np.isnan(p).any():
        return np.full_like(p, np.nan)
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    return np.minimum(stepped[np.argsort(order)], 1)
