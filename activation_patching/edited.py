"""Tables of a run that erased or exchanged a subspace: what that does at each layer, and how much of a whole patch it carries."""

import numpy as np
import pandas as pd

from activation_patching.paired import edit_of, open_layers, paired_layers, transfer
from common.stats.metrics import Metric, gain, layer_table
from common.stats.units import Units, by_group, pair_units


def edit_tables(rows: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables of a run of edits, by the names of their files."""
    tables = {
        "layers": by_group(rows, ["control", "kind"], lambda of_kind: _layers(pair_units(of_kind), seed=seed)),
        "paired": paired_layers(rows, seed=seed),
        "transfer": transfer(rows, seed=seed),
    }
    if edit_of(rows) == "exchange":
        tables |= {"carried": carried(rows, seed=seed), "carried_mean": carried(rows, seed=seed, mean=True)}
    return tables


def _layers(units: Units, *, seed: int) -> pd.DataFrame:
    """Return one row per layer over the pairs: shares of pairs, or logits.

    - `flip_to_target`, `flip_from_base`, `delta_logit` as of any patch; of erasure the target is the clip's own label, so that
      `flip_to_target` is how often the answer still is that label. `delta_margin`: what the edit adds to the recipient's margin.
    - `told`: the subspace tells the recipient's label, though it was learned from other texts and speakers. Where that is at
      `chance` the edit touches nothing of the label, and no effect says nothing. `rank`: the mean one of the subspaces.
    """
    shares = {name: Metric(units.grid(name).astype(float), share=True) for name in ("flip_to_target", "flip_from_base", "told")}
    logits = {name: Metric(units.grid(name).astype(float)) for name in ("delta_logit", "delta_margin")}
    table = layer_table(units, shares | logits, seed=seed)
    labels = sum(c.startswith("logit_") for c in units.rows)
    return table.assign(
        floor=(units.firsts.pred_base == units.firsts.target).mean(),
        chance=1 / labels,
        rank=units.grid("rank").mean(axis=0),
        **{name: units.firsts[name].iloc[0] if len(units.firsts) else "" for name in ("edit", "at")},
    )


def carried(rows: pd.DataFrame, *, seed: int, mean: bool = False) -> pd.DataFrame:
    """Return per kind and layer how much of what the whole state does the subspace does, on the same pairs.

    With `mean` one row per kind: of what they do in the mean of the `open_layers`, from `layer` on.

    `flips`: flips to the target beyond the recipient's own answers, exchange over whole state; `delta`: the target's logit. The
    ratios are nan where the interval of what the whole state does (`whole_flips`, `whole_delta`) holds 0.
    """

    def table(of_kind: pd.DataFrame) -> pd.DataFrame:
        whole = pair_units(of_kind[of_kind.control == "whole"])
        names = [str(name).rsplit("|whole:", 1)[0] for name in whole.firsts.pair_id]
        real = pair_units(of_kind[(of_kind.control == "none") & of_kind.pair_id.isin(names)])
        at = pd.Index(real.firsts.pair_id).get_indexer(names)
        floor = (whole.firsts.pred_base == whole.firsts.target).to_numpy()[:, None].astype(float)
        flips, whole_flips = (u.grid("flip_to_target").astype(float)[i] - floor for u, i in ((real, at), (whole, slice(None))))
        delta, whole_delta = (u.grid("delta_logit").astype(float)[i] for u, i in ((real, at), (whole, slice(None))))
        if mean:
            inside = open_layers(rows)
            flips, whole_flips, delta, whole_delta = (
                a[:, inside].mean(axis=1, keepdims=True) for a in (flips, whole_flips, delta, whole_delta)
            )
            whole = Units(whole.firsts, whole.firsts, whole.layers[inside][:1], whole.design)
        metrics = {
            "flips": Metric(flips, over=whole_flips),
            "delta": Metric(delta, over=whole_delta),
            "whole_flips": gain(whole_flips),
            "whole_delta": Metric(whole_delta),
        }
        found = layer_table(whole, metrics, seed=seed)
        for name in ("flips", "delta"):
            shown = found[f"whole_{name}_lo"] > 0
            found.loc[~shown, [c for c in found if c == name or c.startswith(f"{name}_")]] = np.nan
        return found

    return by_group(rows, ["kind"], table)
