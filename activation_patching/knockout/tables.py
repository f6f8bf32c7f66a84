"""Make the tables of a knockout run from its rows.

An answer depends on the words as far as label y is answered more often to clips whose words say y than to clips of the same voice
in which y is a third label. Of the voice likewise. A constant answer gives 0, however often it is right.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from activation_patching.span.effects import Transfer, half_effect, matched
from activation_patching.span.tables import COUNTED
from common.stats.layer_tables import Floats, Metric, layer_table
from common.stats.units import Units, clip_units, label_codes, labels_of

CUES = {"semantic": ("semantic_label", "prosody_label"), "prosody": ("prosody_label", "semantic_label")}  # its label, the other


@dataclass(frozen=True)
class Dependence:
    """How far answers depend on one cue: `cut`, `untouched`, and how the `change` is made up; of each clip and layer."""

    cut: Transfer
    untouched: Transfer

    @property
    def change(self) -> Floats:
        """Return by how much the dependence rises where the edge is cut (share)."""
        return self.cut.to_target - self.cut.to_third - self.untouched.to_target + self.untouched.to_third

    @property
    def change_logit(self) -> Floats:
        return self.cut.logit_target - self.cut.logit_third


def dependence(units: Units, kind: str) -> Dependence:
    """Return how far the answers of one edge and window depend on the words ("semantic") or the voice ("prosody")."""
    labels, (own, other) = labels_of(units.rows), CUES[kind]
    named = np.stack([label_codes(units.unit_rows[c], labels) for c in (own, other, other)], axis=1)
    rise = np.stack([units.grid(f"logit_{x}") - units.grid(f"base_{x}") for x in labels], axis=1)
    cut, untouched = (matched(named, _said(units, column, labels), rise) for column in ("pred_cut", "pred_base"))
    return Dependence(cut, untouched)


def _said(units: Units, column: str, labels: list[str]) -> Floats:
    """Return 1 where a label is the answer, [clip, label, layer]."""
    answer = label_codes(units.rows[column], labels).reshape(len(units.unit_rows), -1)
    return (answer[:, None, :] == np.arange(len(labels))[:, None]).astype(float)


def tables_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of a run: `effects` by layer, and their `summary` in the mean of the inner layers."""
    effects, summary = [], []
    for (edge, window), group in rows.groupby(["edge", "window"], sort=False):
        units = clip_units(group)
        found = {kind: dependence(units, kind) for kind in CUES}
        for kind, of_cue in found.items():
            names = {"edge": edge, "window": window, "kind": kind}
            effects.append(_named(layer_table(units, _metrics(of_cue)).assign(kept=of_cue.cut.kept), names))
            if len(units.layers) > 2:
                other = found["prosody" if kind == "semantic" else "semantic"]
                summary.append(_named(_summary_row(units, of_cue, other), names))
    by_layer = pd.concat(effects, ignore_index=True).drop(columns=list(COUNTED), errors="ignore")
    return {"effects": by_layer, "summary": pd.concat(summary, ignore_index=True) if summary else pd.DataFrame()}


def _metrics(of_cue: Dependence) -> dict[str, Metric]:
    """Return the metrics by layer: `dependence` (share) and its change by the cut, `effect` (share) and `effect_logit`."""
    return {
        "dependence": Metric(of_cue.cut.to_target, down=of_cue.cut.to_third),
        "effect": Metric(of_cue.change),
        "effect_logit": Metric(of_cue.change_logit),
    }


def _summary_row(units: Units, of_cue: Dependence, other: Dependence) -> pd.DataFrame:
    """Return one row: effects in the mean of the inner layers, and their differences from the other cue's (`minus_other`).

    `untouched`: the dependence of the clips' own answers. `half_effect_layer`: from where on the loss in the logit is below half
    of that at the first layer.
    """
    inner = slice(1, -1)

    def mean(values: Floats) -> Floats:
        return values[:, inner].mean(axis=1, keepdims=True)

    metrics = {
        "effect": Metric(mean(of_cue.change)),
        "effect_logit": Metric(mean(of_cue.change_logit)),
        "minus_other": Metric(mean(of_cue.change - other.change)),
        "untouched": Metric(mean(of_cue.untouched.to_target), down=mean(of_cue.untouched.to_third)),
    }
    alone = Units(units.unit_rows, units.unit_rows, units.layers[inner][:1], units.design)
    half = half_effect(units, _loss(of_cue.cut))
    places = {"half_effect_layer": half.place, "half_effect_layer_lo": half.low, "half_effect_layer_hi": half.high}
    layers = {"first_layer": units.layers[inner][0], "last_layer": units.layers[inner][-1]}
    return layer_table(alone, metrics).drop(columns="layer").assign(kept=of_cue.cut.kept, **layers, **places)


def _loss(cut: Transfer) -> Transfer:
    """Return what is lost where attention is cut, so that less of it is a smaller effect."""
    return Transfer(-cut.to_target, -cut.to_third, -cut.logit_target, -cut.logit_third, cut.kept)


def _named(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    numbers = table.select_dtypes(float)
    table = table.assign(**(numbers.round(9) + 0.0), **names)  # what does not change is 0, not a rounding error below
    return table[[*names, *(c for c in table if c not in names)]]
