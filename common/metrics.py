"""Rows to per-layer tables with intervals. Pure functions from tables to tables.

The unit of sampling is the text: clips that share one are not independent. Intervals are 95 % percentile intervals of a
cluster bootstrap over texts (Field & Welsh 2007, J. R. Stat. Soc. B 69); a pair depends on two texts and is weighted by the
product of their draws (the node bootstrap of Snijders & Borgatti 1999, Connections 22), a pair within one text by its draw.
"""

import numpy as np
import pandas as pd

DRAWS = 1000
LEVEL = 0.95


def lens_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per layer: `n`, mean `margin` (logits), win rates `win_*` (shares of clips), each with `_lo` and `_hi`."""
    rows = rows.assign(**{f"win_{o}": (rows.outcome == o).astype(float) for o in ("semantic", "prosody", "other")})
    columns = ["margin", "win_semantic", "win_prosody", "win_other"]
    return _layers(rows, columns, unit="sample_id", texts=("text_id", "text_id"), seed=seed)


def patch_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per kind and layer: `n`, mean flips (shares of pairs) and `delta_logit`, each with `_lo` and `_hi`.

    `floor` is the share of pairs whose recipient answers the target unpatched, `ceiling` that of the donor: where
    `flip_to_target` ends (l = L) and starts (l = 0). `kv_shared` is 1 where a patch cannot reach the answer.
    """
    rows = rows.assign(
        floor=(rows.pred_base == rows.target).astype(float),
        ceiling=(rows.pred_donor == rows.target).astype(float),
        kv_shared=rows.get("kv_shared", 0),
    )
    columns = ["flip_to_target", "flip_from_base", "delta_logit"]
    tables = []
    for kind, of_kind in rows.groupby("kind", sort=False):
        table = _layers(of_kind, columns, unit="pair_id", texts=("recipient_text_id", "donor_text_id"), seed=seed)
        table.insert(0, "kind", kind)
        kv_shared = of_kind.groupby("layer").kv_shared.max().to_numpy()
        tables.append(table.assign(floor=of_kind.floor.mean(), ceiling=of_kind.ceiling.mean(), kv_shared=kv_shared))
    return pd.concat(tables, ignore_index=True)


def _layers(rows: pd.DataFrame, columns: list[str], *, unit: str, texts: tuple[str, str], seed: int) -> pd.DataFrame:
    rows = rows.sort_values([unit, "layer"], kind="stable")
    layers = np.sort(rows.layer.unique())
    if len(rows) % len(layers) or not (rows.layer.to_numpy().reshape(-1, len(layers)) == layers).all():
        raise ValueError(f"not every {unit} has each of the {len(layers)} layers once")
    values = rows[columns].to_numpy(float).reshape(-1, len(layers) * len(columns))  # [unit, layer * column]
    firsts = rows.iloc[:: len(layers)]
    low, high = bootstrap_interval(values, firsts[texts[0]].to_numpy(), firsts[texts[1]].to_numpy(), seed=seed)
    shape = (len(layers), len(columns))
    means, lows, highs = values.mean(axis=0).reshape(shape), low.reshape(shape), high.reshape(shape)
    table = {"layer": layers, "n": len(values), "n_texts": len(set(firsts[texts[0]]) | set(firsts[texts[1]]))}
    for i, column in enumerate(columns):
        table |= {column: means[:, i], f"{column}_lo": lows[:, i], f"{column}_hi": highs[:, i]}
    return pd.DataFrame(table)


def bootstrap_interval(values: np.ndarray, first: np.ndarray, second: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) [metric] of the means of `values` [unit, metric], a unit depending on the texts `first` and `second`.

    With fewer than two texts there is nothing to resample and both are nan.
    """
    names, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    if len(names) < 2:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing
    a, b = codes.reshape(2, -1)
    cells, cell_of = np.unique(a * len(names) + b, return_inverse=True)  # units of one cell always share their weight
    a, b = np.divmod(cells, len(names))
    counts = np.bincount(cell_of).astype(float)
    sums = np.stack([np.bincount(cell_of, weights=column) for column in values.T], axis=1)  # [cell, metric]
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(DRAWS):
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names))).astype(float)
        weights = drawn[a] * np.where(a == b, 1.0, drawn[b])
        if total := weights @ counts:
            means.append(weights @ sums / total)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    return low, high
