"""Findings that only a report has room for, beside those of `lens_facts` and `patching_facts`: stretches of layers, health."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from common.stats.facts import Fact, fact, held, over

TELLING = 0.5  # share of the probability from which the labels are most of what the layer would say


def stretches(layers: pd.DataFrame, column: str, **told: Any) -> list[Fact]:
    """Return the stretches of layers in which the band of `column` is above, below, or on 0, l = 0 left out.

    `lo` and `hi` are the first and the last layer, `value` the column's mean, `verdict` more, less or none. The band holds all
    layers at once, so none of them is picked out.
    """
    inner = layers[layers.layer > 0] if len(layers) > 1 else layers
    if f"{column}_band_lo" not in inner or inner[f"{column}_band_lo"].isna().any():
        return []
    side = (inner[f"{column}_band_lo"] > 0).astype(int) - (inner[f"{column}_band_hi"] < 0).astype(int)
    facts = []
    for _, part in inner.groupby((side != side.shift()).cumsum()):
        ends = (float(part.layer.iloc[0]), float(part.layer.iloc[-1]))
        verdict = {1: "more", -1: "less", 0: "none"}[int(side[part.index[0]])]
        row = f"layers.csv, l = {inner.layer.iloc[0]:.0f} to {inner.layer.iloc[-1]:.0f}"
        first = part.iloc[0]
        facts.append(
            Fact(
                column,
                float(part[column].mean()),
                *ends,
                n=int(first.n),
                over=over(first),
                fixed=held(first),
                verdict=verdict,
                row=row,
                test="band over all layers at once",
                **told,
            )
        )
    return facts


def beyond_prior(layers: pd.DataFrame) -> list[Fact]:
    """Return the margin at l = L beyond what label habits alone make of it."""
    last = layers.iloc[-1]
    return (
        [fact(last, "margin_excess", unit="logits", row=f"layers.csv, l = {last.layer:.0f}")] if "margin_excess" in layers else []
    )


def telling_from(layers: pd.DataFrame) -> list[Fact]:
    """Return the first layer from which the labels have half of the probability up to L; none in `value` where they never do."""
    if "mass" not in layers:
        return []
    enough = (layers.mass >= TELLING).to_numpy()
    first = len(enough) - int(np.cumprod(enough[::-1]).sum())
    value = float(layers.layer.iloc[first]) if first < len(layers) else float("nan")
    last = layers.iloc[-1]
    return [
        Fact(
            "mass", value, unit="layer l", n=int(last.n), test=f"{float(last.mass):.2f}", row=f"layers.csv, l = {last.layer:.0f}"
        )
    ]


def cells(labels: pd.DataFrame) -> list[Fact]:
    """Return the cell of the semantic x prosody table in which the voice wins least, and that in which it wins most."""
    conflict = labels[labels.semantic_label != labels.prosody_label]
    if len(conflict) < 2:
        return []
    ends: Sequence[pd.Series] = [conflict.loc[conflict.win_prosody.idxmin()], conflict.loc[conflict.win_prosody.idxmax()]]
    names = [f"{c.semantic_label} / {c.prosody_label}" for c in ends]
    told: dict[str, Any] = {"n": len(conflict), "unit": "share of clips", "row": "labels.csv", "verdict": "\n".join(names)}
    return [Fact("cells", float("nan"), float(ends[0].win_prosody), float(ends[1].win_prosody), **told)]
