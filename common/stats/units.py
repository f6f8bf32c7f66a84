"""Rows as clips or pairs x layers, and the table per layer that every metric ends in."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.clips.samples import LABELS
from common.stats.resampling import MIN_LEVELS, Codes, Floats, critical, estimate, interval, memberships


@dataclass(frozen=True)
class Units:
    """Rows as units (clips or pairs) x layers: `rows` sorted, `firsts` one row of each unit, `factors` what units share."""

    rows: pd.DataFrame
    firsts: pd.DataFrame
    layers: np.ndarray
    factors: dict[str, Codes]

    def grid(self, column: str | pd.Series) -> np.ndarray:
        """Return a column of the rows as [unit, layer]."""
        values = self.rows[column] if isinstance(column, str) else column
        return values.to_numpy().reshape(len(self.firsts), len(self.layers))


@dataclass(frozen=True)
class Metric:
    """`values` [unit, layer] whose mean it is; `share`: it lies within 0 and 1; `counted` [unit, layer]: units that it is of."""

    values: Floats
    share: bool = False
    counted: np.ndarray | None = None


def clip_units(rows: pd.DataFrame) -> Units:
    return _units(rows, "sample_id", texts=["text_id"], speakers=["speaker"])


def pair_units(rows: pd.DataFrame) -> Units:
    return _units(rows, "pair_id", texts=["recipient_text_id", "donor_text_id"], speakers=["recipient_speaker", "donor_speaker"])


def _units(rows: pd.DataFrame, unit: str, *, texts: list[str], speakers: list[str]) -> Units:
    order = np.lexsort((rows.layer, pd.factorize(rows[unit], sort=True)[0]))
    rows, layers = rows.iloc[order], np.sort(rows.layer.unique())
    n = max(1, len(layers))
    if len(rows) % n or not (rows.layer.to_numpy().reshape(-1, n) == layers).all() or rows[unit].iloc[::n].duplicated().any():
        raise ValueError(f"not every {unit} has each of the {n} layers once")
    firsts = rows.iloc[::n]
    names = {"texts": texts, "speakers": speakers}
    factors = {f: memberships(*(firsts[c].fillna("") for c in cs)) for f, cs in names.items() if set(cs) <= set(rows)}
    return Units(rows, firsts, layers, factors)


def by_group(rows: pd.DataFrame, keys: list[str], table: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Return the tables of the groups of rows, one below the other, with the keys that the rows have as first columns."""
    keys = [key for key in keys if key in rows]
    if not keys:
        return table(rows)
    groups = list(rows.groupby(keys, sort=False)) or [(("none",) * len(keys), rows)]
    tables = []
    for names, group in groups:
        tables.append(table(group))
        for place, (key, name) in enumerate(zip(keys, names)):
            tables[-1].insert(place, key, name)
    return pd.concat(tables, ignore_index=True)


def layer_table(units: Units, metrics: dict[str, Metric], *, seed: int) -> pd.DataFrame:
    """Return one row per layer: counts, what was resampled, and each metric's mean with interval and band."""
    levels = {name: len(np.unique(codes[codes >= 0])) for name, codes in units.factors.items()}
    table = {"layer": units.layers, "n": len(units.firsts), "n_texts": levels["texts"], "n_speakers": levels.get("speakers", 0)}
    columns = [f"{name}{end}" for name in metrics for end in ("", "_lo", "_hi", "_band_lo", "_band_hi")]
    if not len(units.firsts):
        return pd.DataFrame(columns=[*table, "clusters", *columns], dtype=float)
    of = estimate(np.stack([m.values for m in metrics.values()], axis=1), units.factors)
    share = np.array([m.share for m in metrics.values()])
    counted = np.stack([_counted(m, units) for m in metrics.values()])
    ends = [e for reach in critical(of, seed=seed) for e in interval(of, reach, share=share, counted=counted)]
    few = np.stack([_few_texts(m, units) for m in metrics.values()])
    figures = np.stack([of.mean, *(np.where(few, np.nan, e) for e in ends)], axis=1)  # [column, mean and ends, layer]
    return pd.DataFrame(table | {"clusters": of.clusters} | dict(zip(columns, figures.reshape(-1, len(units.layers)))))


def _counted(metric: Metric, units: Units) -> np.ndarray:
    return np.full(len(units.layers), len(units.firsts)) if metric.counted is None else metric.counted.sum(axis=0)


def _few_texts(metric: Metric, units: Units) -> np.ndarray:
    """Return at which layers a ratio is of so few texts that nothing is known about others."""
    if metric.counted is None:
        return np.zeros(len(units.layers), dtype=bool)
    texts = units.factors["texts"][:, 0]
    return np.array([len(np.unique(texts[counts])) < MIN_LEVELS for counts in metric.counted.T])


def ratio(numerator: np.ndarray, denominator: np.ndarray, *, share: bool = False) -> Metric:
    """Return the ratio of two means [unit, layer], linearised; nan where the denominator is 0."""
    size = denominator.mean(axis=0) if len(denominator) else np.empty(0)
    size = np.where(size == 0, np.nan, size)
    of_means = numerator.mean(axis=0) / size if len(denominator) else size
    return Metric(of_means + (numerator - of_means * denominator) / size, share, denominator != 0)


def mean_difference(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return values [unit, layer] whose mean is that of the `first` units minus that of the others, linearised."""
    if not len(values):
        return values
    a, b = values[first].mean(axis=0), values[~first].mean(axis=0)
    weight = np.where(first, 1 / first.mean(), -1 / (~first).mean())[:, None]
    return a - b + weight * (values - np.where(first[:, None], a, b))


def label_codes(labels: pd.Series) -> np.ndarray:
    """Return each label's place in LABELS."""
    codes = pd.Index(LABELS).get_indexer(labels)
    if (codes < 0).any():
        raise ValueError(f"column {labels.name}: unknown label {labels[codes < 0].iloc[0]!r}; allowed: {', '.join(LABELS)}")
    return codes
