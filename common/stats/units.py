"""Arrange rows as arrays: a unit (clip or pair) by a layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from common.stats.clusters import Design, memberships

FIELDS = {"texts": "text_id", "speakers": "speaker", "sources": "source"}


@dataclass(frozen=True)
class Units:
    """Rows as units (clips or pairs) x layers: `rows` sorted, `unit_rows` one row of each unit, `design` what units share."""

    rows: pd.DataFrame
    unit_rows: pd.DataFrame
    layers: np.ndarray
    design: Design

    def grid(self, column: str | pd.Series) -> np.ndarray:
        """Return a column of the rows as [unit, layer]."""
        values = self.rows[column] if isinstance(column, str) else column
        return values.to_numpy().reshape(len(self.unit_rows), len(self.layers))


def clip_units(rows: pd.DataFrame) -> Units:
    return table_units(rows, "sample_id", roles=("",))


def pair_units(rows: pd.DataFrame, roles: Sequence[str] = ("recipient_", "donor_")) -> Units:
    """Return the pairs of one kind and control, in the order of the real pairs: those of a control stand where these do."""
    return table_units(rows, "true_pair_id", roles=roles)


def table_units(rows: pd.DataFrame, unit: str, *, roles: Sequence[str]) -> Units:
    """Return rows as units x layers; a unit depends on the text, speaker and source of its clip in each of `roles`.

    Raises ValueError where a unit lacks a layer.
    """
    order = np.lexsort((rows.layer, pd.factorize(rows[unit], sort=True)[0]))
    rows, layers = rows.iloc[order], np.sort(rows.layer.unique())
    n = max(1, len(layers))
    if len(rows) % n or not (rows.layer.to_numpy().reshape(-1, n) == layers).all() or rows[unit].iloc[::n].duplicated().any():
        raise ValueError(f"not every {unit} has each of the {n} layers once")
    unit_rows = rows.iloc[::n]
    return Units(rows, unit_rows, layers, design_of(unit_rows, roles, known=labels_of(rows)))


def design_of(unit_rows: pd.DataFrame, roles: Sequence[str], *, known: Sequence[str]) -> Design:
    """Return what units share: text, speaker and source of their clips in each of `roles`, as far as there are such columns."""
    names = {factor: [f"{role}{field}" for role in roles] for factor, field in FIELDS.items()}
    given = {f: columns for f, columns in names.items() if {*columns} <= {*unit_rows} and _given(unit_rows[columns])}
    clusters = {f: memberships(*(unit_rows[c].fillna("") for c in columns)) for f, columns in given.items()}
    of_words = [f"{role}semantic_label" for role in roles]
    labelled = {*of_words} <= {*unit_rows} and len(unit_rows) > 0
    return Design(clusters, np.stack([label_codes(unit_rows[c], known) for c in of_words], axis=1) if labelled else None)


def _given(columns: pd.DataFrame) -> bool:
    """Return whether a manifest gave them: of speakers that it leaves empty nothing is known, not that they are one."""
    return columns.empty or bool((columns.notna() & (columns != "")).any(axis=None))


def labels_of(rows: pd.DataFrame) -> list[str]:
    """Return the labels of a run in their order: those of its columns logit_*; without such columns, those that its rows name."""
    if labels := [c.removeprefix("logit_") for c in rows if c.startswith("logit_")]:
        return labels
    named = [c for c in rows if c.endswith("_label") or c in ("winner", "target", "pred_base", "pred_patch", "pred_donor")]
    return sorted({str(label) for column in named for label in rows[column].unique()})


def label_codes(labels: pd.Series, known: Sequence[str]) -> np.ndarray:
    """Return each label's place among the `known` ones."""
    codes = pd.Index(known).get_indexer(labels)
    if (codes < 0).any():
        raise ValueError(f"column {labels.name}: unknown label {labels[codes < 0].iloc[0]!r}; allowed: {', '.join(known)}")
    return codes


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
    filled = [t for t in tables if len(t)] or tables[:1]
    return pd.concat(filled, ignore_index=True)


def counts(units: Units) -> dict[str, Any]:
    """Return how many units, texts, speakers (and sources) there are."""
    levels = {name: len(np.unique(codes[codes >= 0])) for name, codes in units.design.clusters.items()}
    sources = {"n_sources": levels["sources"]} if "sources" in levels else {}
    return {"n": len(units.unit_rows), "n_texts": levels.get("texts", 0), "n_speakers": levels.get("speakers", 0), **sources}
