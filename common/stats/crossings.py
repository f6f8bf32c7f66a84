"""Estimate the layer at which a curve crosses 0, with its interval.

A crossing is between layers, on the straight lines between the means. Its interval is that of Fieller (1954, J. R. Stat. Soc. B
16): the places at which 0 cannot be excluded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.stats.clustered_means import ClusteredMeans, Floats
from common.stats.intervals import first_from, reach_of

STEPS = 20  # places looked at between two layers
NAN = float("nan")


@dataclass(frozen=True)
class Crossing:
    """Where a curve rises above 0 for good, `place` (between layers), and its interval; nan, and a `reason`, where nowhere."""

    place: float = NAN
    low: float = NAN
    high: float = NAN
    reason: str = ""

    def columns(self, name: str) -> dict[str, float]:
        """Return the place and its interval as a table has them: `name`, and `name` with _lo and _hi."""
        return {name: self.place, f"{name}_lo": self.low, f"{name}_hi": self.high}


def crossing(of: ClusteredMeans, at: Sequence[int] | np.ndarray) -> Crossing:
    """Return from where on the first result of `of`, a curve at the layers `at`, is above 0 up to the last layer.

    Low end: behind the last place at which the curve's interval is below 0. High end: the place from which it is above 0. None
    where the interval at the last layer is not above 0.
    """
    layers = of.mean.shape[1]
    if np.isnan(of.se[0]).any():
        return Crossing(reason=of.clusters)
    reach = reach_of(of)[0]
    if not of.mean[0, -1] - reach * of.se[0, -1] > 0:
        return Crossing(reason="its interval at the last layer holds 0")
    steps, weights = _between(layers)
    places = np.interp(steps, range(layers), at)  # layers may be unevenly spaced
    mean, se, last = of.mean[0] @ weights.T, _spread(of.correlation[0], of.se[0], weights), len(places) - 1
    low, high = (places[min(int(first_from(holds)), last)] for holds in (mean + reach * se >= 0, mean - reach * se > 0))
    first = int(first_from(mean > 0))
    before = max(0, first - 1)
    back = mean[first] / (mean[first] - mean[before]) if first else 0
    place = float(places[first] - back * (places[first] - places[before]))
    return Crossing(place, min(float(low), place), max(float(high), place))


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
