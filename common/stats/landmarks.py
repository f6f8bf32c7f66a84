"""The layer at which something happens, with an interval: where the answer is decided, where the audio span loses control."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from common.stats.resampling import DRAWS, LEVEL, Estimate, Floats, critical, draws, estimate, first_from
from common.stats.units import Units

TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Landmark:
    """A layer's index with its interval; len(layers) stands for none. `side` is the sign; `reason` says why there is none."""

    layer: int
    low: int
    high: int
    side: int = 0
    reason: str = ""


def crossing(of: Estimate, *, seed: int, count: int = DRAWS) -> Landmark:
    """Return from where the band of a curve (the only column of `of`) stays on one side of 0.

    The low end is where draws of the curve cross 0, the high end where the bands of draws do: between them are both the layer at
    which the true curve crosses and the one at which data of this size show it. None where the band at the last layer holds 0:
    then the high end is none too, and the low one the earliest layer that a draw of either sign would give.
    """
    none = of.mean.shape[1]
    if np.isnan(of.se).any():
        return Landmark(none, none, none, reason=of.clusters)
    (reach,), (band,) = critical(of, seed=seed, count=count)
    mean, half = of.mean[0], band * of.se[0]
    shaken = _curves(of, reach, seed=seed, count=count)
    shaken *= np.sign(shaken[:, -1:])
    if abs(mean[-1]) <= half[-1]:
        low, _ = _ends(first_from(shaken > 0), np.array([none]))
        return Landmark(none, low, none, reason="the band at the last layer holds 0")
    side = int(np.sign(mean[-1]))
    found = int(first_from(side * mean > half))
    low, high = _ends(first_from(shaken > 0), first_from(shaken > half))
    return Landmark(found, min(low, found), max(high, found), side)


def halving(of: Estimate, *, seed: int, count: int = DRAWS) -> Landmark:
    """Return from where a curve (the only column of `of`) stays under half of its first value; the ends are those of draws.

    None where the interval of the first value holds 0: there is nothing to halve.
    """
    none = of.mean.shape[1]
    if np.isnan(of.se).any():
        return Landmark(none, none, none, reason=of.clusters)
    (reach,), _ = critical(of, seed=seed, count=count)
    mean = of.mean[0]
    if abs(mean[0]) <= reach * of.se[0, 0]:
        return Landmark(none, none, none, reason="the interval at the first layer holds 0")
    side = int(np.sign(mean[0]))
    at = first_from(side * (mean[0] / 2 - mean) > 0)
    shaken = _curves(of, reach, seed=seed, count=count)
    found = first_from(side * (shaken[:, :1] / 2 - shaken) > 0)
    low, high = _ends(found, found)
    return Landmark(int(at), low, high, side)


def _curves(of: Estimate, reach: float, *, seed: int, count: int) -> Floats:
    """Return draws of the curve [draw, layer], spread as far as its interval reaches."""
    return of.mean[0] + reach / stats.norm.isf(TAIL) * of.se[0] * draws(of, 0, seed=seed, count=count)


def _ends(lows: np.ndarray, highs: np.ndarray) -> tuple[int, int]:
    low, high = np.quantile(lows, TAIL, method="lower"), np.quantile(highs, 1 - TAIL, method="higher")
    return int(low), int(high)


def landmark_table(units: Units, column: str, name: str, find: Callable[[Estimate], Landmark]) -> pd.DataFrame:
    """Return one row: the layer in which `find` sees the landmark, its ends, and why it is nan. No units, no row."""
    columns = [name, f"{name}_lo", f"{name}_hi", "side", "reason", "n", "clusters"]
    if not len(units.firsts):
        return pd.DataFrame(columns=columns)
    of = estimate(units.grid(column).astype(float)[:, None], units.factors)
    found = find(of)
    layers = [*units.layers, np.nan]
    at = [layers[i] for i in (found.layer, found.low, found.high)]
    return pd.DataFrame([[*at, found.side, found.reason, len(units.firsts), of.clusters]], columns=columns)


def where(found: pd.Series, name: str, what: str) -> str:
    """Say in words at which layer a row of decision_layer or release_layer puts `what`, or why at none."""
    ends = " to ".join("none" if pd.isna(found[f"{name}_{end}"]) else f"{found[f'{name}_{end}']:.0f}" for end in ("lo", "hi"))
    if pd.isna(found[name]):
        return f"{what}: at no layer ({found.reason})"
    return f"{what} from l = {found[name]:.0f} on (95 % interval {ends})"


def stated(row: pd.Series, column: str, form: str = ".2f") -> str:
    """Return "mean [low, high]", the mean alone where there is no interval, "-" where there is no mean."""
    if pd.isna(row[column]):
        return "-"
    low, high = row[f"{column}_lo"], row[f"{column}_hi"]
    return f"{row[column]:{form}}" + ("" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]")
