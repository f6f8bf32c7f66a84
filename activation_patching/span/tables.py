"""Make the tables of span and exchange runs from patches.csv."""

from typing import Any

import numpy as np
import pandas as pd

from activation_patching.span.effects import LEAST_KEPT, Transfer, against_donors, half_effect, metrics_of, same_pairs, transfer
from common.clips.pairs import KINDS, SAME_TEXT
from common.stats.layer_tables import Metric, gain, layer_table
from common.stats.units import Units, by_group, design_of, labels_of, pair_units

COUNTED = ("n_texts", "n_speakers", "n_sources", "clusters")  # what intervals are over
ENDS = ("", "_lo", "_hi")


def tables_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of a run, whatever it did to the states, by the names of their files."""
    subspaces, inner = _exchanged(rows), rows.layer.nunique() > 2
    effects, summaries = [], []
    for kind in (kind for kind in KINDS if (rows.kind == kind).any()):
        of_kind = {str(name): pair_units(found) for name, found in rows[rows.kind == kind].groupby("control", sort=False)}
        of_kind = same_pairs(of_kind) if subspaces else of_kind
        real = transfer_of(of_kind)
        for control in ("none", "random_subspace", "whole"):
            if control in of_kind:
                found = real if control == "none" else transfer(of_kind[control])
                names = {"kind": kind} | ({"control": control} if subspaces else {})
                effects.append(effect_layers(of_kind[control], found).assign(**names))
                if inner:
                    more = _against(of_kind, control, real)
                    summaries.append(summary_row(of_kind[control], found, more).assign(**names, baseline=_baseline(of_kind)))
    keys = ["kind", *(["control"] if subspaces else [])]
    by_layer = pd.concat(effects, ignore_index=True).drop(columns=list(COUNTED), errors="ignore")
    tables = {
        "layers": by_group(rows, ["control", "kind"], _layers),
        "effects": _ordered(by_layer, [*keys, "layer"]),
        "summary": _ordered(pd.concat(summaries, ignore_index=True), keys) if inner else pd.DataFrame(columns=keys),
    }
    beyond = beyond_label(rows) if inner else pd.DataFrame()
    return tables | ({"beyond_label": beyond} if len(beyond) else {})


def _exchanged(rows: pd.DataFrame) -> bool:
    """Tell whether subspaces were exchanged, not whole spans."""
    return "intervention" in rows and len(rows) > 0


def transfer_of(of_kind: dict[str, Units]) -> Transfer:
    """Return what the pairs of one kind transfer, beyond third labels; where too few pairs have these, beyond control donors."""
    found = transfer(of_kind["none"])
    if _baseline(of_kind) == "same-labels donors":
        return against_donors(of_kind["none"], of_kind["same_labels_donor"])
    return found


def _baseline(of_kind: dict[str, Units]) -> str:
    donors = "same_labels_donor" in of_kind and transfer(of_kind["none"]).kept < LEAST_KEPT
    return "same-labels donors" if donors else "third labels"


def effect_layers(units: Units, found: Transfer) -> pd.DataFrame:
    """Return one row per layer: `kept`, effects of answers (shares) and of logits with intervals, `from_base` (share)."""
    changed = Metric(units.grid("flip_from_base").astype(float), share=True)
    table = layer_table(units, metrics_of(found) | {"from_base": changed}).assign(kept=found.kept)
    return table.drop(columns=[f"{c}{end}" for c in ("to_target", "to_third", "logit_target", "logit_third") for end in ENDS[1:]])


def summary_row(units: Units, found: Transfer, further: dict[str, Metric]) -> pd.DataFrame:
    """Return one row: the effects in the mean of the inner layers, no layer selected, and the half-effect layer.

    At l = 0 a patch is the donor's answer and at l = L the recipient's, by construction: neither is in the mean.
    """
    changed = Metric(inner_mean(units.grid("flip_from_base").astype(float)), share=True)
    return inner_summary(units, metrics_of(found.mean_over(slice(1, -1))) | {"from_base": changed} | further, found)


def inner_summary(units: Units, metrics: dict[str, Metric], found: Transfer) -> pd.DataFrame:
    """Return one row of metrics of the inner layers' mean, the layers that these are, and the half-effect layer of `found`."""
    inner, half = units.layers[1:-1], half_effect(units, found)
    table = layer_table(Units(units.unit_rows, units.unit_rows, inner[:1], units.design), metrics).drop(columns="layer")
    ends = {"first_layer": inner[0], "last_layer": inner[-1]}
    return table.assign(kept=found.kept, **ends, **half.columns("half_effect_layer"), reason=half.reason)


def _against(of_kind: dict[str, Units], control: str, real: Transfer) -> dict[str, Metric]:
    """Return what the summary of the real pairs says beside their own effects: the random subspace's, and of the whole state."""
    if control != "none" or "random_subspace" not in of_kind:
        return {}
    random = transfer(of_kind["random_subspace"])
    further = {"minus_random": Metric(inner_mean(real.effect - random.effect))}
    further["logit_minus_random"] = Metric(inner_mean(real.effect_logit - random.effect_logit))
    if "whole" in of_kind:
        whole = transfer(of_kind["whole"])
        further["of_whole"] = Metric(inner_mean(real.effect_logit), over=inner_mean(whole.effect_logit))
    return further


def beyond_label(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row where prosody pairs have same-text donors: `beyond_label`, answers changed, real minus control (share).

    A donor of the same text with both labels of the recipient changes all of the voice but its label. Mean of the inner layers,
    over the pairs that have both.
    """
    control = pair_units(rows[rows.control == SAME_TEXT])
    if not len(control.unit_rows):
        return pd.DataFrame()
    real = pair_units(rows[(rows.control == "none") & rows.true_pair_id.isin(control.unit_rows.true_pair_id)])
    donors = real.unit_rows.filter(regex="^donor_").set_index(control.unit_rows.index)
    unit_rows = control.unit_rows.join(donors.rename(columns=lambda c: c.replace("donor_", "true_")))
    design = design_of(unit_rows, ("recipient_", "donor_", "true_"), known=labels_of(rows))
    changed, there = real.grid("flip_from_base").astype(float), control.grid("flip_from_base").astype(float)
    alone = Units(control.unit_rows, control.unit_rows, control.layers[1:-1][:1], design)
    return layer_table(alone, {"beyond_label": gain(inner_mean(changed - there))}).drop(columns="layer")


def _layers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per layer: shares of pairs `flip_to_target` and `flip_from_base`, mean `delta_logit` (logits).

    `kv_shared`: 1 where no patch reaches the answer. Of subspaces also `decoded`: the share of pairs whose recipient's label the
    subspace decodes, `chance` of it, and the mean `rank`.
    """
    units = pair_units(rows)
    subspaces = _exchanged(rows)
    shares = ("flip_to_target", "flip_from_base", *(("decoded",) if subspaces else ()))
    metrics = {name: Metric(units.grid(name).astype(float), share=True) for name in shares}
    table = layer_table(units, metrics | {"delta_logit": Metric(units.grid("delta_logit").astype(float))})
    table = table.assign(kv_shared=units.grid("kv_shared").max(axis=0))
    return table.assign(chance=1 / len(labels_of(rows)), rank=units.grid("rank").mean(axis=0)) if subspaces else table


def inner_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the inner layers of values [unit, layer], as one layer."""
    return values[:, 1:-1].mean(axis=1, keepdims=True)


def _ordered(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return table[[*keys, *(c for c in table if c not in keys)]]


def named(table: pd.DataFrame, names: dict[str, Any]) -> pd.DataFrame:
    """Return a table with the columns `names` first; what does not change is 0, not a rounding error below."""
    numbers = table.select_dtypes(float)
    table = table.assign(**(numbers.round(9) + 0.0), **names)
    return table[[*names, *(c for c in table if c not in names)]]
