"""Make the tables of a components run from its rows."""

import numpy as np
import pandas as pd

from activation_patching.knockout.tables import dependence
from activation_patching.span.effects import LEAST_KEPT, transfer
from activation_patching.span.tables import COUNTED, effect_layers
from common.clips.pairs import KINDS
from common.stats.layer_tables import Metric, layer_table
from common.stats.units import Units, clip_units, labels_of, pair_units

STRONGEST = 10


def tables_of(
    rows: pd.DataFrame, sets: pd.DataFrame | None = None, ablated: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """Return the tables of a run: `effects` of every part and block, the `strongest` parts of each kind, and of `sets` what the
    strongest heads do `together`, of `ablated` clips what becomes without them (`ablation`).
    """
    effects, strongest = [], []
    for kind in (kind for kind in KINDS if (rows.kind == kind).any()):
        of_kind = rows[rows.kind == kind]
        for part, of_part in of_kind.groupby("part", sort=False):
            units = pair_units(of_part)
            table = effect_layers(units, transfer(units)).assign(kind=kind, part=part)
            effects.append(pd.concat([table, _direct(units)], axis=1))
        strongest.append(_strongest(of_kind).assign(kind=kind))
    by_layer = pd.concat(effects, ignore_index=True).drop(columns=list(COUNTED), errors="ignore")
    tables = {
        "effects": _first(by_layer, ["kind", "part", "layer"]),
        "strongest": _first(pd.concat(strongest, ignore_index=True), ["kind", "part", "layer"]),
    }
    if sets is not None:
        kinds = [_together(of_kind).assign(kind=kind) for kind, of_kind in sets.groupby("kind", sort=False)]
        tables["together"] = _first(pd.concat(kinds, ignore_index=True), ["kind", "heads"])
    if ablated is not None:
        tables["ablation"] = pd.concat([_ablation(of_kind, str(kind)) for kind, of_kind in ablated.groupby("carry", sort=False)])
    return tables


def _ablation(of_kind: pd.DataFrame, carry: str) -> pd.DataFrame:
    """Return how far answers depend on each cue without the heads that carry one: by number of heads and cue.

    `effect`: the change without the strongest; `minus_random`: the same less the change without random heads of the same blocks.
    """
    chosen, random = (clip_units(of_kind[of_kind["heads"] == name]) for name in ("chosen", "random"))
    found = []
    for kind in KINDS:
        one, other = dependence(chosen, kind), dependence(random, kind)
        metrics = {"effect": Metric(one.change), "minus_random": Metric(one.change - other.change)}
        table = layer_table(chosen, metrics).round(9).rename(columns={"layer": "heads"}).assign(carry=carry, kind=kind)
        found.append(_first(table, ["carry", "kind", "heads"]))
    return pd.concat(found)


def _first(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return table[[*keys, *(c for c in table if c not in keys)]]


def _together(of_kind: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each number of heads put together: the effect on the logit, and its share of that of all heads."""
    units = pair_units(of_kind)
    effect = transfer(units).effect_logit
    whole = np.repeat(effect[:, -1:], effect.shape[1], axis=1)
    table = layer_table(units, {"effect_logit": Metric(effect), "share": Metric(effect, over=whole)})
    return table.rename(columns={"layer": "heads"})


def _strongest(of_kind: pd.DataFrame) -> pd.DataFrame:
    """Return the parts that raise the target's logit most beyond third labels: chosen on one half of the texts, estimated on the
    other, both ways.

    `chosen`: by how many of the halves. `effect_logit` is of the pairs of those halves that did not choose the part.
    """
    single = of_kind[~of_kind.part.str.endswith("_tail")]
    chosen: dict[tuple[str, int], list[int]] = {}
    for half, rows in single.groupby("half", sort=True):
        for name in _largest(rows):
            chosen.setdefault(name, []).append(int(half))
    halves, tables = set(single.half.unique()), []
    for (part, layer), by in chosen.items():
        rows = single[(single.part == part) & (single.layer == layer)]
        others = rows[rows.half.isin({1 - half for half in by} & halves)]
        if len(others):
            units = pair_units(others)
            of_part = transfer(units)
            if not of_part.kept >= LEAST_KEPT:
                continue
            found = layer_table(units, {"effect_logit": Metric(of_part.effect_logit)})
            tables.append(pd.concat([found.assign(part=part, chosen=len(by)), _direct(units)], axis=1))
    columns = ["part", "layer", "chosen"]
    if not tables:
        return pd.DataFrame(columns=columns)
    return _first(pd.concat(tables, ignore_index=True), columns).sort_values("effect_logit", ascending=False)


def _largest(rows: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the parts and blocks with the largest mean effects."""
    means: dict[tuple[str, int], float] = {}
    for part, of_part in rows.groupby("part", sort=False):
        units = pair_units(of_part)
        mean = transfer(units).effect_logit.mean(axis=0)
        means |= {(str(part), int(layer)): float(e) for layer, e in zip(units.layers, mean) if not np.isnan(e)}
    return sorted(means, key=lambda name: -means[name])[:STRONGEST]


def _direct(units: Units) -> pd.DataFrame:
    """Return the columns `direct`: of the effect on the logit what a part does by itself, straight through the residual stream.

    None where that cannot be told of the model, and empty over the tail.
    """
    labels = labels_of(units.rows)
    if f"direct_{labels[0]}" not in units.rows:
        return pd.DataFrame()
    alone = units.rows.assign(**{f"logit_{x}": units.rows[f"base_{x}"] + units.rows[f"direct_{x}"] for x in labels})
    found = transfer(Units(alone, units.unit_rows, units.layers, units.design))
    return layer_table(units, {"direct": Metric(found.effect_logit)})[["direct", "direct_lo", "direct_hi"]]
