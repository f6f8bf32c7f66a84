"""The layer at which something happens, with an interval: where a cue comes to lead, where a patch has lost half of its effect.

A crossing is between layers, on the straight lines between the means. Its interval is that of Fieller (1954, J. R. Stat. Soc. B
16): the places at which 0 cannot be excluded. From which layer the data *show* that a curve is past 0 is another question: that
layer moves with the number of clips, is a place of detection and no estimate, and stands apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.stats.covariance import Estimate, Floats
from common.stats.intervals import DRAWS, critical, first_from

STEPS = 20  # places looked at between two layers


@dataclass(frozen=True)
class Crossing:
    """Where curves are above 0 for good: `place` (between layers) with its interval, and from which layer the band `shown`s it.

    `shown` is an index into the layers of the estimate, their number stands for none; nan for no place. `reason` says why.
    """

    place: float
    low: float
    high: float
    shown: int
    reason: str = ""


def crossing(of: Estimate, at: Sequence[int] | np.ndarray, *, seed: int, count: int = DRAWS) -> Crossing:
    """Return from where on all curves (the results of `of` at the layers `at`) are above 0 up to the last layer.

    High end: the place from which each curve's interval is above 0; so it is too early in 2.5 % at most. Low end: after the last
    place at which a curve's band is below 0. None where not all curves' bands are above 0 at the last layer.
    """
    layers = of.mean.shape[1]
    nan = float("nan")
    if np.isnan(of.se).any():
        return Crossing(nan, nan, nan, layers, of.clusters)
    usual, bands = critical(of, seed=seed, count=count)
    if not (of.mean - bands[:, None] * of.se > 0)[:, -1].all():
        return Crossing(nan, nan, nan, layers, "its band at the last layer holds 0")
    steps, weights = _between(layers)
    places = np.interp(steps, range(layers), at)  # layers may be unevenly spaced
    mean, se = of.mean @ weights.T, np.stack([_spread(c, s, weights) for c, s in zip(of.correlation, of.se)])
    lowest, last = mean.min(axis=0), len(places) - 1
    surely = np.asarray((mean - usual[:, None] * se).min(axis=0) > 0)
    below = np.asarray((mean + bands[:, None] * se).min(axis=0) < 0)
    low, high = (places[min(int(first_from(holds)), last)] for holds in (~below, surely))
    first = int(first_from(np.asarray(lowest > 0)))
    before = max(0, first - 1)
    back = lowest[first] / (lowest[first] - lowest[before]) if first else 0
    place = places[first] - back * (places[first] - places[before])
    shown = int(first_from(np.asarray((of.mean - bands[:, None] * of.se).min(axis=0) > 0)))
    return Crossing(float(place), float(min(low, place)), float(max(high, place)), shown)


def _between(layers: int) -> tuple[Floats, Floats]:
    """Return places between layers, as indices, and the weights [place, layer] that interpolate there."""
    places = np.linspace(0, layers - 1, (layers - 1) * STEPS + 1)
    left = np.minimum(places.astype(int), max(0, layers - 2))
    weights = np.zeros((len(places), layers))
    at = np.arange(len(places))
    weights[at, left] = 1 - (places - left)
    weights[at, np.minimum(left + 1, layers - 1)] += places - left
    return places, weights


def _spread(correlation: Floats, se: Floats, weights: Floats) -> Floats:
    """Return the standard errors [place] of interpolated means."""
    scaled = weights * se
    return np.sqrt(np.maximum(((scaled @ correlation) * scaled).sum(axis=1), 0))
