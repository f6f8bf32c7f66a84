"""Make the tables of a knockout run from its rows.

An answer depends on the words as far as label y is answered more often to clips whose words say y than to clips of the same voice
in which y is a third label. Of the voice likewise. A constant answer gives 0, however often it is right.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from activation_patching.span.effects import Transfer, answered, matched, rise
from activation_patching.span.tables import COUNTED, inner_mean, inner_summary, named
from common.clips.pairs import KINDS, OTHER, SHARED_LABEL
from common.stats.layer_tables import Floats, Metric, layer_table
from common.stats.units import Units, clip_units, label_codes, labels_of


@dataclass(frozen=True)
class Dependence:
    """How far answers depend on one cue: `cut`, `untouched`, and how the `change` is made up; of each clip and layer."""

    cut: Transfer
    untouched: Transfer

    @property
    def change(self) -> Floats:
        """Return by how much the dependence rises where the edge is cut (share)."""
        return self.cut.effect - self.untouched.to_target + self.untouched.to_third


def dependence(units: Units, kind: str) -> Dependence:
    """Return how far the answers of one edge and window depend on the words ("semantic") or the voice ("prosody")."""
    labels, other = labels_of(units.rows), SHARED_LABEL[kind]
    named = np.stack([label_codes(units.unit_rows[c], labels) for c in (f"{kind}_label", other, other)], axis=1)
    return Dependence(*(matched(named, answered(units, column), rise(units)) for column in ("pred_cut", "pred_base")))


def tables_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of a run: `effects` by layer, and their `summary` in the mean of the inner layers."""
    effects, summary = [], []
    for (edge, window), group in rows.groupby(["edge", "window"], sort=False):
        units = clip_units(group)
        found = {kind: dependence(units, kind) for kind in KINDS}
        for kind, of_cue in found.items():
            names = {"edge": edge, "window": window, "kind": kind}
            metrics = {
                "dependence": Metric(of_cue.cut.to_target, down=of_cue.cut.to_third),
                "effect": Metric(of_cue.change),
                "effect_logit": Metric(of_cue.cut.effect_logit),
            }
            effects.append(named(layer_table(units, metrics).assign(kept=of_cue.cut.kept), names))
            if len(units.layers) > 2:
                other = found[OTHER[kind]]
                summary.append(named(_summary_row(units, of_cue, other), names))
    by_layer = pd.concat(effects, ignore_index=True).drop(columns=list(COUNTED), errors="ignore")
    return {"effects": by_layer, "summary": pd.concat(summary, ignore_index=True) if summary else pd.DataFrame()}


def _summary_row(units: Units, of_cue: Dependence, other: Dependence) -> pd.DataFrame:
    """Return one row: effects in the mean of the inner layers, and their differences from the other cue's (`minus_other`).

    `untouched`: the dependence of the clips' own answers. `half_effect_layer`: from where on the loss in the logit is below half
    of that at the first layer.
    """
    cut, untouched = of_cue.cut, of_cue.untouched
    metrics = {
        "effect": Metric(inner_mean(of_cue.change)),
        "effect_logit": Metric(inner_mean(cut.effect_logit)),
        "minus_other": Metric(inner_mean(of_cue.change - other.change)),
        "untouched": Metric(inner_mean(untouched.to_target), down=inner_mean(untouched.to_third)),
    }
    loss = Transfer(-cut.to_target, -cut.to_third, -cut.logit_target, -cut.logit_third, cut.kept)  # a smaller one is less
    return inner_summary(units, metrics, loss).drop(columns="reason")
