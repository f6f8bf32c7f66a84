"""From which layer on a patch of the audio span has lost half of its effect, and from which nothing is left of it."""

import numpy as np
import pandas as pd

from common.stats.covariance import estimate
from common.stats.intervals import LEVEL, critical, first_from
from common.stats.landmarks import Crossing, crossing
from common.stats.metrics import Metric, limits, measure
from common.stats.units import Units, by_group, counts, pair_units

BOUND = 0.05  # share of answers: where fewer than these still change, nothing is left of the span's effect on the answer


def release_layer(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return, per control and kind, from which layer the span's effect is below half, and from which nothing is left of it.

    - `crossing`: from there on (between layers) the mean `delta_logit` stays under half of its value at l = 0; `release_layer`:
      the first layer from then on. None where the interval at l = 0 holds 0: there is nothing to halve. Below half is not gone.
    - `nothing_left`: from this layer on fewer than `bound` of the answers still change (one-sided at 95 %, the upper of the two
      tests of an equivalence test): an effect of that size or more is excluded. None where the data cannot exclude it before L.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = pair_units(rows)
        ends = [f"{name}{end}" for name in ("release_layer", "crossing") for end in ("", "_lo", "_hi")]
        columns = [*ends, "nothing_left", "bound", "side", "reason", *counts(units), "clusters"]
        if not len(units.firsts):
            return pd.DataFrame(columns=columns)
        found, side, clusters = _halving(units, seed=seed)
        between = [found.place, found.low, found.high]
        layers = [units.layers[units.layers >= p - 1e-9][0] if not np.isnan(p) else np.nan for p in between]
        left = _nothing_left(units, seed=seed)
        gone = units.layers[left] if left < len(units.layers) - 1 else np.nan
        row = [*layers, *between, gone, BOUND, side, found.reason, *counts(units).values(), clusters]
        return pd.DataFrame([row], columns=columns)

    return by_group(rows, ["control", "kind"], table)


def _halving(units: Units, *, seed: int) -> tuple[Crossing, int, str]:
    delta = units.grid("delta_logit").astype(float)
    of = estimate(delta[:, None], units.design)
    nan = float("nan")
    if np.isnan(of.se).any():
        return Crossing(nan, nan, nan, delta.shape[1], of.clusters), 0, of.clusters
    reach = critical(of, seed=seed)[0][0]
    if abs(of.mean[0, 0]) <= reach * of.se[0, 0]:
        return Crossing(nan, nan, nan, delta.shape[1], "the interval at l = 0 holds 0"), 0, of.clusters
    side = int(np.sign(of.mean[0, 0]))
    under = side * (delta[:, :1] / 2 - delta)
    return crossing(estimate(under[:, None], units.design), units.layers, seed=seed), side, of.clusters


def _nothing_left(units: Units, *, seed: int) -> int:
    metrics = {"changed": Metric(units.grid("flip_from_base").astype(float), share=True)}
    of, shares, counted = measure(units, metrics)
    reach, _ = critical(of, seed=seed, level=2 * LEVEL - 1)
    _, high = limits(of, reach, metrics, shares=shares, counted=counted)
    return int(first_from(high[0] < BOUND))
