"""Intervals, simultaneous bands and tests from an estimate and its covariance.

- Interval: Student's t; for shares in Wilson's form with the effective number of units (Korn & Graubard 1998, Surv. Methodol.
  24), which stays within 0 and 1 and is no point where every unit agrees; for a difference of paired shares from the intervals
  of the shares that changed to each side (MOVER; Newcombe 1998, Stat. Med. 17; Zou & Donner 2008, Stat. Med. 27), which never
  collapses.
- Draws: Gaussian with that covariance: a bootstrap with Gaussian multipliers on the clusters, in closed form. The percentiles
  of resampled clusters are too close together where clusters are few, and pairs resampled by weights too far apart.
- Band: max-t over those draws (Montiel Olea & Plagborg-Moller 2019, J. Appl. Econom. 34).
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from common.stats.covariance import Estimate, Floats

LEVEL = 0.95
DRAWS = 10_000
RARE = 0.1


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


def critical(of: Estimate, *, seed: int, count: int = DRAWS, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Return how many standard errors an interval and a band over all layers reach to each side, [column] each.

    The Gaussian draws tell how many independent tests the layers amount to; the tails are those of Student's t.
    """
    alpha = np.full(len(of.mean), np.nan)
    for column in np.flatnonzero((of.se > 0).any(axis=1)):
        varies = of.se[column] > 0
        largest = np.abs(draws(of, column, seed=seed, count=count)[:, varies]).max(axis=1)
        alpha[column] = 2 * stats.norm.sf(np.quantile(largest, level))
    usual = np.where(np.isnan(of.df), np.nan, 1 - level)
    return stats.t.isf(usual / 2, of.df), stats.t.isf(np.where(np.isnan(alpha), usual, alpha) / 2, of.df)


def interval(
    of: Estimate, reach: Floats, *, share: Floats, counted: Floats, like: Sequence[int] | None = None
) -> tuple[Floats, Floats]:
    """Return (low, high) [column, layer] at `reach` [column] standard errors, in Wilson's form for the columns in `share`.

    `counted` [column, layer] units are what the means are of. A rare share says little about how its units cluster: its
    effective number of units is drawn half-way (in logarithms) to what the column's layers have in the median, where that is
    smaller; one of 0 or 1 says nothing and takes theirs. Where no layer tells, it is as in the column that is
    `like` it, else that of the clusters.
    """
    reach, share = reach[:, None], share[:, None]
    p = np.where(share, np.clip(of.mean, 0, 1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where((p * (1 - p) > 1e-12) & (of.se > 0), p * (1 - p) / of.se**2, np.nan)  # effective number
        clustering = [max(1.0, np.median(d)) if (d := row[row > 0]).size else np.nan for row in counted / units]
        known = np.array(clustering)
        known = known if like is None else np.where(np.isnan(known), known[like], known)
        usual = counted / known[:, None]
        rare = np.minimum(p, 1 - p) < RARE
        units = np.where(rare & (usual < units), np.sqrt(units * usual), units)
        units = np.where(np.isnan(units), np.where(np.isnan(usual), of.levels, usual), units)
        centre = (p + reach**2 / (2 * units)) / (1 + reach**2 / units)
        half = reach / (1 + reach**2 / units) * np.sqrt(p * (1 - p) / units + reach**2 / (4 * units**2)) + 0 * of.se
    low, high = of.mean - reach * of.se, of.mean + reach * of.se
    return np.where(share, np.maximum(centre - half, 0), low), np.where(share, np.minimum(centre + half, 1), high)


def gain_interval(
    up: tuple[Floats, Floats, Floats], down: tuple[Floats, Floats, Floats], related: Floats
) -> tuple[Floats, Floats]:
    """Return (low, high) of a difference of two shares from (mean, low, high) of each and how `related` their errors are.

    `up` and `down` are the shares of units that changed to one side and to the other.
    """
    (p, p_low, p_high), (q, q_low, q_high) = up, down
    below = (p - p_low) ** 2 - 2 * related * (p - p_low) * (q_high - q) + (q_high - q) ** 2
    above = (p_high - p) ** 2 - 2 * related * (p_high - p) * (q - q_low) + (q - q_low) ** 2
    return p - q - np.sqrt(np.maximum(below, 0)), p - q + np.sqrt(np.maximum(above, 0))


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
