"""Where in the layers one cue comes to decide the answers."""

import numpy as np
import pandas as pd

from common.clips.pairs import KINDS
from common.stats.covariance import estimate
from common.stats.landmarks import Crossing, crossing
from common.stats.nulls import label_prior
from common.stats.units import Units, by_group, clip_units, counts, label_codes, labels_of

OUTCOMES = (*KINDS, "other")


def decision_layer(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return where one cue comes to decide the answers: `crossing` (between layers), `decision_layer`, and which `side` it is.

    From the crossing on that cue's label is the most frequent outcome, up to L. From `decision_layer` on the data show it: the
    bands of its win rate less that of each other outcome, and of the margin beyond the label prior, stay above 0. l = 0 is left
    out: it is the same state for every clip, so what differs there are the labels and no answer.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = clip_units(conflict_rows(rows))
        columns = ["decision_layer", "crossing", "crossing_lo", "crossing_hi", "side", "reason", *counts(units), "clusters"]
        if not len(units.firsts):
            return pd.DataFrame(columns=columns)
        found, side, layers = _decision(units, seed=seed)
        at = layers[found.shown] if found.shown < len(layers) else np.nan
        clusters = estimate(units.grid("margin")[:, None].astype(float), units.design).clusters
        return pd.DataFrame(
            [[at, found.place, found.low, found.high, side, found.reason, *counts(units).values(), clusters]], columns=columns
        )

    return by_group(rows, ["control"], table)


def _decision(units: Units, *, seed: int) -> tuple[Crossing, str, np.ndarray]:
    """Return where the winner at the last layer crosses, which side it is, and the layers that were looked at."""
    inside = units.layers > 0 if (units.layers > 0).any() else units.layers >= 0
    layers = units.layers[inside]
    wins = {o: (units.grid("outcome") == o).astype(float)[:, inside] for o in OUTCOMES}
    rates = {o: won[:, -1].mean() for o, won in wins.items()}
    side, rival = sorted(KINDS, key=lambda kind: -rates[kind])
    nan = float("nan")
    if rates["other"] >= rates[side] or rates[rival] == rates[side]:
        return (
            Crossing(nan, nan, nan, len(layers), "neither cue's label is the most frequent outcome at the last layer"),
            "none",
            layers,
        )
    leads = [wins[side] - wins[o] for o in OUTCOMES if o != side and (o != "other" or wins["other"].any())]
    found = crossing(estimate(np.stack(leads, axis=1), units.design), layers, seed=seed)
    prior = prior_values(units)
    if prior is None or np.isnan(found.place):
        return found, side if not np.isnan(found.place) else "none", layers
    sign = 1 if side == "prosody" else -1
    beyond = crossing(estimate(sign * (units.grid("margin") - prior)[:, None, inside], units.design), layers, seed=seed)
    if np.isnan(beyond.place):
        reason = "the margin is not beyond the label prior at the last layer"
        return Crossing(nan, nan, nan, len(layers), beyond.reason if beyond.reason.startswith("none") else reason), "none", layers
    return Crossing(found.place, found.low, found.high, max(found.shown, beyond.shown)), side, layers


def conflict_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.semantic_label != rows.prosody_label]


def prior_values(units: Units) -> np.ndarray | None:
    """Return the values of the margin's label prior [unit, layer]; None where the rows have no logits."""
    labels = [c for c in units.rows if c.startswith("logit_")]
    if not labels:
        return None
    known = labels_of(units.rows)
    words, voice = (label_codes(units.firsts[f"{kind}_label"], known) for kind in KINDS)
    return label_prior(np.stack([units.grid(c) for c in labels]), words, voice) if len(words) else np.empty((0, 0))
