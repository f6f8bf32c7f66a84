"""Turn means and clustered standard errors into 95 % intervals of means, shares and differences.

- A mean: Student's t.
- A share: Wilson's form with the effective number of units (Korn & Graubard 1998, Surv. Methodol. 24). It stays within 0 and 1
  and is no point where every unit agrees.
- A difference of two shares: from the intervals of the two (MOVER; Newcombe 1998, Stat. Med. 17; Zou & Donner 2008, Stat. Med.
  27), which does not collapse where both are 0.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from common.stats.clustered_means import ClusteredMeans, Floats

LEVEL = 0.95


def reach_of(of: ClusteredMeans) -> Floats:
    """Return how many standard errors the interval of each result reaches to each side, [result]."""
    return np.asarray(stats.t.isf(np.where(np.isnan(of.df), np.nan, (1 - LEVEL) / 2), of.df))


def interval(of: ClusteredMeans, *, share: Floats, like: Sequence[int] | None = None) -> tuple[Floats, Floats]:
    """Return (low, high) [result, layer]; in Wilson's form for the results that are a `share` [result].

    Where all units agree they do not tell how they cluster: then as the result's other layers do in the median. Where none
    tells, as in the result that is `like` it, and where that does not either, as if each cluster were one observation.
    """
    reach, share = reach_of(of)[:, None], share[:, None]
    p = np.where(share, np.clip(of.mean, 0, 1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where((p * (1 - p) > 1e-12) & (of.se > 0), p * (1 - p) / of.se**2, np.nan)  # effective number
        usual = np.array([np.median(known) if (known := row[row > 0]).size else np.nan for row in units])
        usual = usual if like is None else np.where(np.isnan(usual), usual[like], usual)
        units = np.where(np.isnan(units), np.where(np.isnan(usual), of.levels, usual)[:, None], units)
        centre = (p + reach**2 / (2 * units)) / (1 + reach**2 / units)
        half = reach / (1 + reach**2 / units) * np.sqrt(p * (1 - p) / units + reach**2 / (4 * units**2)) + 0 * of.se
    low, high = of.mean - reach * of.se, of.mean + reach * of.se
    return np.where(share, np.maximum(centre - half, 0), low), np.where(share, np.minimum(centre + half, 1), high)


def difference_interval(
    up: tuple[Floats, Floats, Floats], down: tuple[Floats, Floats, Floats], related: Floats
) -> tuple[Floats, Floats]:
    """Return (low, high) of the difference of two shares from (mean, low, high) of each and how `related` their errors are."""
    (p, p_low, p_high), (q, q_low, q_high) = up, down
    below = (p - p_low) ** 2 - 2 * related * (p - p_low) * (q_high - q) + (q_high - q) ** 2
    above = (p_high - p) ** 2 - 2 * related * (p_high - p) * (q - q_low) + (q - q_low) ** 2
    return p - q - np.sqrt(np.maximum(below, 0)), p - q + np.sqrt(np.maximum(above, 0))


def first_from(holds: np.ndarray) -> np.ndarray:
    """Return the first layer from which `holds` [..., layer] is true up to the last; the number of layers where there is none."""
    return holds.shape[-1] - np.cumprod(holds[..., ::-1], axis=-1).sum(axis=-1)
