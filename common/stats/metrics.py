"""Means, shares, ratios and differences of units, and the table per layer that each of them ends in."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from common.stats.covariance import Floats, Jackknifed, Statistic, estimate
from common.stats.intervals import difference_interval, interval, reach_of
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
    if not len(units.firsts):
        return pd.DataFrame(columns=[*table, "clusters", *columns], dtype=float)
    of = measure(units, metrics)
    low, high = limits(replace(of, se=widen * of.se), metrics)
    figures = np.stack([of.mean[: len(metrics)], low, high], axis=1)  # [metric, value and ends, layer]
    return pd.DataFrame(table | {"clusters": of.clusters} | dict(zip(columns, figures.reshape(-1, len(units.layers)))))


def measure(units: Units, metrics: dict[str, Metric]) -> Jackknifed:
    """Return the estimate of the metrics and, after them, of the two shares of each difference.

    A ratio is computed anew without each cluster, so both its means are columns of the estimate.
    """
    sides = [Metric(side) for m in metrics.values() if m.down is not None for side in (m.values, m.down)]
    results = [replace(m, values=m.values - m.down) if m.down is not None else m for m in metrics.values()] + sides
    values, statistic = _recipe(results)
    return estimate(values, units.design, statistic=statistic)


def limits(of: Jackknifed, metrics: dict[str, Metric]) -> tuple[Floats, Floats]:
    """Return (low, high) [metric, layer] of what `measure` returned."""
    at, reach, like = len(metrics), reach_of(of), np.arange(len(of.mean))
    differences = [i for i, m in enumerate(metrics.values()) if m.down is not None]
    for place, i in enumerate(differences):
        sides = slice(at + 2 * place, at + 2 * place + 2)
        reach[sides], like[sides] = reach[i], like[sides][::-1].copy()  # a side reaches as far as its difference
    share = np.array([m.share for m in metrics.values()] + [True] * (len(of.mean) - at))
    low, high = interval(of, share=share, like=like.tolist(), of_reach=reach)
    for place, i in enumerate(differences):
        up, down = at + 2 * place, at + 2 * place + 1
        with np.errstate(divide="ignore", invalid="ignore"):
            shared = (of.se[up] ** 2 + of.se[down] ** 2 - of.se[i] ** 2) / (2 * of.se[up] * of.se[down])
        related = np.clip(np.nan_to_num(shared), -1, 0)  # above 0 it would shrink to nothing where few units changed
        low[i], high[i] = difference_interval(*((of.mean[s], low[s], high[s]) for s in (up, down)), related)
    return low[:at], high[:at]


def _recipe(metrics: list[Metric]) -> tuple[Floats, Statistic]:
    """Return the columns [unit, column, layer] whose means the metrics are made of, and how."""
    columns: list[Floats] = []
    parts: list[tuple[int, int | None]] = []
    for metric in metrics:
        columns.append(metric.values)
        top = len(columns) - 1
        if metric.over is not None:
            columns.append(metric.over)
        parts.append((top, None if metric.over is None else top + 1))

    def one(means: Floats, top: int, bottom: int | None) -> Floats:
        if bottom is None:
            return means[..., top, :]
        below = means[..., bottom, :]
        return means[..., top, :] / np.where(below == 0, np.nan, below)

    def statistic(means: Floats) -> Floats:
        return np.stack([one(means, *part) for part in parts], axis=-2)

    return np.stack(columns, axis=1).astype(float), statistic
