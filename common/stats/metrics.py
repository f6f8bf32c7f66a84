"""Means, shares, ratios and differences of units, and the table per layer that each of them ends in."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from common.stats.covariance import Estimate, Floats, Statistic, estimate
from common.stats.design import MIN_LEVELS
from common.stats.intervals import LEVEL, critical, gain_interval, interval, p_clustered
from common.stats.units import Units, counts


@dataclass(frozen=True)
class Metric:
    """A mean of `values` [unit, layer], or its ratio to the mean of `over`, or how much that is more than another metric.

    `share`: it lies within 0 and 1. `down`: it is a difference of shares, `values` of them changed up and `down` changed down.
    """

    values: Floats
    over: Floats | None = None
    less: "Metric | None" = None
    share: bool = False
    down: Floats | None = None


def gain(difference: np.ndarray) -> Metric:
    """Return the metric of a paired difference of shares from what each unit gained: 1, 0 or -1, or means of these."""
    return Metric(np.maximum(difference, 0), down=np.maximum(-difference, 0))


def layer_table(units: Units, metrics: dict[str, Metric], *, seed: int, test: bool = False, widen: float = 1.0) -> pd.DataFrame:
    """Return one row per layer: counts, what was resampled, and each metric's value with interval and band.

    With `test` also `_p` (that it is 0), and the ends of the 90 % interval, `_lo90` and `_hi90`, of two one-sided tests.
    `widen` is by how much the standard errors are larger than the units tell, of values that were learned from other units.
    """
    ends = ("_lo", "_hi", "_band_lo", "_band_hi", *(("_lo90", "_hi90", "_p") if test else ()))
    columns = [f"{name}{end}" for name in metrics for end in ("", *ends)]
    table = {"layer": units.layers} | counts(units)
    if not len(units.firsts):
        return pd.DataFrame(columns=[*table, "clusters", *columns], dtype=float)
    of, shares, counted = measure(units, metrics)
    of = replace(of, se=widen * of.se)
    reaches = [*critical(of, seed=seed), *([critical(of, seed=seed, level=2 * LEVEL - 1)[0]] if test else [])]
    figures = [of.mean[: len(metrics)]]
    for reach in reaches:
        figures += limits(of, reach, metrics, shares=shares, counted=counted)
    if test:
        figures.append(p_clustered(of)[: len(metrics)])
    few = np.stack([_few(m, units, of) for m in metrics.values()])
    whole = [figures[0], *(np.where(few, np.nan, figure) for figure in figures[1:])]
    stacked = np.stack(whole, axis=1)  # [metric, value and ends, layer]
    return pd.DataFrame(table | {"clusters": of.clusters} | dict(zip(columns, stacked.reshape(-1, len(units.layers)))))


def measure(units: Units, metrics: dict[str, Metric]) -> tuple[Estimate, np.ndarray, np.ndarray]:
    """Return the estimate of the metrics and, after them, of the two shares of each difference; which are shares; of how many.

    A ratio is computed anew without each cluster, so both its means are columns of the estimate.
    """
    sides = [Metric(side, share=True) for m in metrics.values() if m.down is not None for side in (m.values, m.down)]
    results = [replace(m, values=m.values - m.down) if m.down is not None else m for m in metrics.values()] + sides
    values, statistic = _recipe(results)
    counted = np.stack([_counted(m, units) for m in results])
    return estimate(values, units.design, statistic=statistic), np.array([m.share for m in results]), counted


def limits(
    of: Estimate, reach: Floats, metrics: dict[str, Metric], *, shares: np.ndarray, counted: np.ndarray
) -> tuple[Floats, Floats]:
    """Return (low, high) [metric, layer] of what `measure` returned at `reach` standard errors."""
    at = len(metrics)
    own, like = reach.copy(), np.arange(len(reach))  # a share that changed to one side is taken as far as its difference
    gains = [i for i, m in enumerate(metrics.values()) if m.down is not None]
    for place, i in enumerate(gains):
        sides = slice(at + 2 * place, at + 2 * place + 2)
        own[sides], like[sides] = reach[i], like[sides][::-1].copy()
    low, high = interval(of, own, share=shares, counted=counted, like=like.tolist())
    for place, i in enumerate(gains):
        up, down = at + 2 * place, at + 2 * place + 1
        ups, downs = ((of.mean[s], low[s], high[s]) for s in (up, down))
        with np.errstate(divide="ignore", invalid="ignore"):
            shared = (of.se[up] ** 2 + of.se[down] ** 2 - of.se[i] ** 2) / (2 * of.se[up] * of.se[down])
        related = np.clip(
            np.nan_to_num(shared), -1, 0
        )  # above 0 it would narrow the interval, to nothing where few units changed
        low[i], high[i] = gain_interval(ups, downs, related)
    return low[:at], high[:at]


def _recipe(metrics: list[Metric]) -> tuple[Floats, Statistic]:
    """Return the columns [unit, column, layer] whose means the metrics are made of, and how."""
    columns: list[Floats] = []
    places: dict[int, int] = {}

    def place(values: Floats) -> int:
        if id(values) not in places:
            places[id(values)] = len(columns)
            columns.append(values)
        return places[id(values)]

    parts = [
        [(place(m.values), None if m.over is None else place(m.over)) for m in (metric, metric.less) if m is not None]
        for metric in metrics
    ]

    def one(means: Floats, part: tuple[int, int | None]) -> Floats:
        top, bottom = part
        if bottom is None:
            return means[..., top, :]
        below = means[..., bottom, :]
        return means[..., top, :] / np.where(below == 0, np.nan, below)

    def statistic(means: Floats) -> Floats:
        return np.stack([one(means, p[0]) - (one(means, p[1]) if len(p) > 1 else 0) for p in parts], axis=-2)

    return np.stack(columns, axis=1).astype(float), statistic


def _parts(metric: Metric) -> list[Floats]:
    return [m.over for m in (metric, metric.less) if m is not None and m.over is not None]


def _counted(metric: Metric, units: Units) -> np.ndarray:
    """Return of how many units a metric is, [layer]."""
    return np.min([np.full(len(units.layers), len(units.firsts)), *((p != 0).sum(axis=0) for p in _parts(metric))], axis=0)


def _few(metric: Metric, units: Units, of: Estimate) -> np.ndarray:
    """Return at which layers a ratio is of so few of the clusters that are resampled that nothing is known about others."""
    few = np.zeros(len(units.layers), dtype=bool)
    for over in _parts(metric):
        for layer, counts_here in enumerate((over != 0).T):
            codes = [units.design.clusters[name][counts_here] for name in of.used]
            few[layer] |= any(len(np.unique(c[c >= 0])) < MIN_LEVELS for c in codes)
    return few
