"""Make a table with a row per layer from means, shares and differences."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from common.stats.clustered_means import ClusteredMeans, Floats, estimate
from common.stats.intervals import difference_interval, interval
from common.stats.units import Units, counts


@dataclass(frozen=True)
class Metric:
    """A mean of `values` [unit, layer], or its ratio to the mean of `over`.

    `share`: it lies within 0 and 1. `down`: it is the difference of two shares, that of `values` and that of `down`.
    """

    values: Floats
    over: Floats | None = None
    share: bool = False
    down: Floats | None = None


def gain(difference: np.ndarray) -> Metric:
    """Return the metric of a paired difference of shares from what each unit gained: 1, 0 or -1, or means of these."""
    return Metric(np.maximum(difference, 0), down=np.maximum(-difference, 0))


def layer_table(units: Units, metrics: dict[str, Metric], *, widen: float = 1.0) -> pd.DataFrame:
    """Return one row per layer: counts, what was resampled, and each metric's value with its interval, `_lo` and `_hi`.

    `widen` is by how much the standard errors are larger than the units tell, of values that were learned from other units.
    """
    columns = [f"{name}{end}" for name in metrics for end in ("", "_lo", "_hi")]
    table = {"layer": units.layers} | counts(units)
    if not len(units.unit_rows):
        return pd.DataFrame(columns=[*table, "clusters", *columns], dtype=float)
    of = measure(units, metrics)
    low, high = limits(replace(of, se=widen * of.se), metrics)
    figures = np.stack([of.mean[: len(metrics)], low, high], axis=1)  # [metric, value and ends, layer]
    return pd.DataFrame(table | {"clusters": of.clusters} | dict(zip(columns, figures.reshape(-1, len(units.layers)))))


def measure(units: Units, metrics: dict[str, Metric]) -> ClusteredMeans:
    """Return the means of the metrics and, after them, of the two shares of each difference."""
    sides = [side for m in metrics.values() if m.down is not None for side in (m.values, m.down)]
    return estimate(np.stack([*map(_values, metrics.values()), *sides], axis=1).astype(float), units.design)


def _values(metric: Metric) -> Floats:
    """Return what each unit adds to the mean; of a ratio, to first order."""
    if metric.over is None:
        return metric.values if metric.down is None else metric.values - metric.down
    below = metric.over.mean(axis=0)
    below = np.where(below == 0, np.nan, below)
    ratio = metric.values.mean(axis=0) / below
    return ratio + (metric.values - ratio * metric.over) / below


def limits(of: ClusteredMeans, metrics: dict[str, Metric]) -> tuple[Floats, Floats]:
    """Return (low, high) [metric, layer] of what `measure` returned."""
    at = len(metrics)
    share = np.array([m.share for m in metrics.values()] + [True] * (len(of.mean) - at))
    differences = [i for i, m in enumerate(metrics.values()) if m.down is not None]
    like = [*range(at), *(side for place in range(len(differences)) for side in (at + 2 * place + 1, at + 2 * place))]
    low, high = interval(of, share=share, like=like)
    for place, i in enumerate(differences):
        up, down = at + 2 * place, at + 2 * place + 1
        with np.errstate(divide="ignore", invalid="ignore"):
            shared = (of.se[up] ** 2 + of.se[down] ** 2 - of.se[i] ** 2) / (2 * of.se[up] * of.se[down])
        related = np.clip(np.nan_to_num(shared), -1, 1)
        sides = (of.mean[up], low[up], high[up]), (of.mean[down], low[down], high[down])
        low[i], high[i] = difference_interval(*sides, related)
    return low[:at], high[:at]
