"""Make the tables of a knockout run from its rows.

An answer depends on the words as far as label y is answered more often to clips whose words say y than to clips of the same voice
in which y is a third label. Of the voice likewise. A constant answer gives 0, however often it is right.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from activation_patching.span.effects import Transfer, answered, half_effect, matched, rise
from activation_patching.span.tables import COUNTED, named
from common.clips.pairs import KINDS, SHARED_LABEL
from common.stats.layer_tables import Floats, Metric, layer_table
from common.stats.units import Units, clip_units, label_codes, labels_of

ALONE = {"direct": "audio_to_question", "through_question": "audio_to_last"}  # the edge whose cut leaves a route alone open


@dataclass(frozen=True)
class Dependence:
    """How far answers depend on one cue: `cut`, `untouched`, and how the `change` is made up; of each clip and layer."""

    cut: Transfer
    untouched: Transfer

    @property
    def change(self) -> Floats:
        """Return by how much the dependence rises where the edge is cut (share)."""
        return self.cut.effect - self.untouched.effect

    @property
    def loss(self) -> Transfer:
        """Return what the cut takes away."""
        cut = self.cut
        return Transfer(-cut.to_target, -cut.to_third, -cut.logit_target, -cut.logit_third, cut.kept)


def dependence(units: Units, kind: str) -> Dependence:
    """Return how far the answers of one edge and window depend on the words ("semantic") or the voice ("prosody")."""
    labels, other = labels_of(units.rows), SHARED_LABEL[kind]
    named = np.stack([label_codes(units.unit_rows[c], labels) for c in (f"{kind}_label", other, other)], axis=1)
    return Dependence(*(matched(named, answered(units, column), rise(units)) for column in ("pred_cut", "pred_base")))


def tables_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of a run: `effects` by layer, and the `summary` of what a route alone carries."""
    effects = []
    for (edge, window), group in rows.groupby(["edge", "window"], sort=False):
        units = clip_units(group)
        for kind in KINDS:
            found = dependence(units, kind)
            metrics = {
                "dependence": Metric(found.cut.to_target, down=found.cut.to_third),
                "effect": Metric(found.change),
                "effect_logit": Metric(found.cut.effect_logit),
            }
            names = {"edge": edge, "window": window, "kind": kind}
            effects.append(named(layer_table(units, metrics).assign(kept=found.cut.kept), names))
    by_layer = pd.concat(effects, ignore_index=True).drop(columns=list(COUNTED), errors="ignore")
    return {"effects": by_layer, "summary": pd.concat([_summary_row(rows, kind) for kind in KINDS], ignore_index=True)}


def _summary_row(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return one row: dependence `untouched`, and where one route alone is open, as the other is cut in all blocks.

    `direct`: from the audio to the last token. `through_question`: over the tokens between them. `direct_minus_through`: their
    difference. `logit_*`: the same on the logit, where one cue does not take from the other what it gains: the share that is left
    of what is lost where the audio is hidden from both. `half_effect_layer`: with that done in the blocks from l on, from where
    on the loss in the logit is below half of that at l = 0.
    """
    from_on = rows[rows.window == "from"]
    at_0 = from_on[from_on.layer == from_on.layer.min()]  # cut in all blocks
    units = {edge: clip_units(at_0[at_0.edge == edge]) for edge in (*ALONE.values(), "audio_to_all")}
    found = {edge: dependence(of_edge, kind) for edge, of_edge in units.items()}
    alone, nothing = {route: found[edge].cut for route, edge in ALONE.items()}, found["audio_to_all"]
    own, lost = nothing.untouched, -nothing.cut.effect_logit
    metrics = {name: Metric(of.to_target, down=of.to_third) for name, of in ({"untouched": own} | alone).items()}
    metrics["direct_minus_through"] = Metric(alone["direct"].effect - alone["through_question"].effect)
    metrics |= {f"logit_{route}": Metric(lost + of.effect_logit, over=lost) for route, of in alone.items()}
    less = alone["direct"].effect_logit - alone["through_question"].effect_logit
    metrics["logit_direct_minus_through"] = Metric(less, over=lost)
    table = layer_table(units["audio_to_all"], metrics).drop(columns="layer").assign(kept=own.kept)
    both = clip_units(from_on[from_on.edge == "audio_to_all"])
    half = half_effect(both, dependence(both, kind).loss)
    return named(table.assign(**half.columns("half_effect_layer")), {"kind": kind})
