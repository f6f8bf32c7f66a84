"""The patch against the same patch with a control donor, on the same pairs: what it carries beyond disturbing the recipient."""

import numpy as np
import pandas as pd

from common.clips.pairs import CONTROLS, SUBSPACE_CONTROLS
from common.stats.intervals import holm, p_mcnemar
from common.stats.metrics import Metric, gain, layer_table
from common.stats.units import FIELDS, Units, design_of, labels_of, pair_units

KEYS = ("kind", "control_donor", "outcome")
DIFFERENCE = ("difference", "difference_lo", "difference_hi")
SHARES = ("flips", "changed")
# The recipient itself must change nothing: a check, no comparison.
TESTED = tuple(dict.fromkeys(c for c in (*SUBSPACE_CONTROLS, *CONTROLS) if c != "itself"))
Arrays = dict[str, tuple[np.ndarray, np.ndarray | None]]
ENDS = ("", "_lo", "_hi", "_band_lo", "_band_hi", "_lo90", "_hi90", "_p")


def paired_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per kind, control donor, outcome and layer: `difference`, the donor's patch minus the control's, paired.

    Outcomes: `flips` to the target (share), `delta` of its logit, `directedness`; of edits also `changed`, the answer is another
    than unedited (share), and of erasure `margin`, what it adds to the clip's margin. `real` and `control` are the two means, `n`
    the pairs that have both. `p` tests a difference of 0 (of shares by the larger of that for clustered pairs and McNemar's exact
    one), `p_holm` corrects it over layers and kinds; layers outside `open_layers` are not tested. `difference_lo90` and `_hi90`:
    90 % interval.
    """
    tables, inner = [], open_layers(rows)
    for units, real, there, control, kind in _pairs_of(rows):
        table = layer_table(units, _metrics(real, there), seed=seed, test=True)
        for share in SHARES:
            if share in real:
                changed = real[share][0] - there[share][0]
                exact = p_mcnemar((changed > 0).sum(axis=0), (changed < 0).sum(axis=0))
                table[f"{share}_p"] = np.maximum(table[f"{share}_p"], exact)
        tables.append(_long(table, real, there).assign(kind=kind, control_donor=control))
    if not tables:
        return pd.DataFrame(columns=[*KEYS, "layer", "n", *DIFFERENCE, "p", "p_holm"])
    table = pd.concat(tables, ignore_index=True)
    tested = table.layer.isin(np.unique(table.layer)[inner])
    table.loc[~tested, "p"] = np.nan
    return _ordered(_corrected(table, tested))


def edit_of(rows: pd.DataFrame) -> str:
    """Return what a run did to the states: "span" put in a donor's, "erase", "exchange"."""
    return str(rows.edit.iloc[0]) if "edit" in rows and len(rows) else "span"


def open_layers(rows: pd.DataFrame) -> slice:
    """Return the layers whose answers are not known by construction.

    Of a whole span the first is the donor's own and the last the recipient's. Of an edit of the span the last is the recipient's:
    nothing reads the span of h_L. Of the last position the first is: its h_0 is the same token in every clip.
    """
    if edit_of(rows) == "span":
        return slice(1, -1)
    return slice(1, None) if rows["at"].iloc[0] == "last" else slice(None, -1)


def transfer(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per kind, control donor and outcome: the same difference in the mean of the `open_layers` that have rows.

    No layer is selected, so its interval needs no correction for that. `primary` marks the experiment's primary outcome: flips,
    against a donor with the recipient's own labels (where no pair has one, against the first control there is); of an exchanged
    subspace against a random one; of an erased one that the answer is `changed`, against a random one. `p_holm` corrects over
    kinds.
    """
    tables, inside = [], open_layers(rows)

    def averaged(arrays: Arrays) -> Arrays:
        def mean(array: np.ndarray) -> np.ndarray:
            return array[:, inside].mean(axis=1, keepdims=True)

        return {name: (mean(values), None if over is None else mean(over)) for name, (values, over) in arrays.items()}

    for units, real, there, control, kind in _pairs_of(rows):
        inner = units.layers[inside]
        if not len(inner):
            continue
        real, there = averaged(real), averaged(there)
        mean = Units(units.firsts, units.firsts, inner[:1], units.design)
        table = layer_table(mean, _metrics(real, there), seed=seed, test=True)
        tables.append(_long(table, real, there).assign(kind=kind, control_donor=control, last_layer=inner[-1]))
    if not tables:
        columns = [*KEYS, "n", *DIFFERENCE, "clusters", "held_fixed", "p", "p_holm", "primary"]
        return pd.DataFrame(columns=columns).astype({"primary": bool})
    table = pd.concat(tables, ignore_index=True).rename(columns={"layer": "first_layer"})
    table = _ordered(_corrected(table, np.ones(len(table), dtype=bool)))
    named = next(c for c in TESTED if c in set(table.control_donor))
    return table.assign(primary=(table.outcome == table.outcome.iloc[0]) & (table.control_donor == named))


def _pairs_of(rows: pd.DataFrame) -> list[tuple[Units, Arrays, Arrays, str, str]]:
    """Return per control and kind the pairs that have both patches, the arrays of both sides (see `_arrays`), and their names."""
    found: list[tuple[Units, Arrays, Arrays, str, str]] = []
    if "control" not in rows:
        return found
    for kind in rows.kind.unique():
        of_kind = rows[rows.kind == kind]
        real = pair_units(of_kind[of_kind.control == "none"])
        place = pd.Index(real.firsts.pair_id)
        for control in TESTED:
            other = pair_units(of_kind[of_kind.control == control])
            at = place.get_indexer([str(name).rsplit(f"|{control}:", 1)[0] for name in other.firsts.pair_id])
            if not len(at):
                continue
            kept = np.repeat(at >= 0, len(other.layers))
            other, at = pair_units(other.rows[kept]), at[at >= 0]
            donors = real.firsts.iloc[at].set_index(other.firsts.index)
            fields = [f for f in (*FIELDS.values(), "semantic_label") if f"donor_{f}" in donors]
            firsts = other.firsts.assign(**{f"true_{f}": donors[f"donor_{f}"] for f in fields})
            design = design_of(firsts, ("recipient_", "true_", "donor_"), known=labels_of(rows))
            units = Units(other.rows, firsts, other.layers, design)
            found.append((units, _arrays(real, at), _arrays(other, slice(None)), control, kind))
    return found


def _arrays(units: Units, at: np.ndarray | slice) -> Arrays:
    """Return for each outcome its values [unit, layer], and of those that are ratios what they are over."""
    flips, delta, changed = (units.grid(c).astype(float)[at] for c in ("flip_to_target", "delta_logit", "flip_from_base"))
    if (edit := edit_of(units.rows)) != "span":
        arrays: Arrays = {"changed": (changed, None), "flips": (flips, None), "delta": (delta, None)}
        if edit == "erase":
            return arrays | {"margin": (units.grid("delta_margin").astype(float)[at], None)}
        return {name: arrays[name] for name in ("flips", "delta", "changed")}
    elsewhere = (units.firsts.pred_base != units.firsts.target).to_numpy()[at, None]
    moved = elsewhere * (changed > 0).astype(float)
    return {"flips": (flips, None), "delta": (delta, None), "directedness": (flips * moved, moved)}


def _metrics(real: Arrays, control: Arrays) -> dict[str, Metric]:
    found = {}
    for name, (values, over) in real.items():
        there, over_there = control[name]
        if over is not None:
            found[name] = Metric(values, over=over, less=Metric(there, over=over_there))
        else:
            found[name] = gain(values - there) if name in SHARES else Metric(values - there)
    return found


def _long(table: pd.DataFrame, real: Arrays, control: Arrays) -> pd.DataFrame:
    """Return a wide table of the outcomes as one row per layer and outcome, with the means of both sides."""
    shared = [c for c in table if not c.startswith(tuple(real))]
    parts = []
    for outcome in real:
        columns = {f"{outcome}{end}": "p" if end == "_p" else f"difference{end}" for end in ENDS}
        sides = {side: _mean(*arrays[outcome]) for side, arrays in (("real", real), ("control", control))}
        parts.append(table[[*shared, *columns]].rename(columns=columns).assign(outcome=outcome, **sides))
    return pd.concat(parts, ignore_index=True)


def _mean(values: np.ndarray, over: np.ndarray | None) -> np.ndarray:
    if over is None:
        return values.mean(axis=0)
    below = over.mean(axis=0)
    return np.where(below > 0, values.mean(axis=0) / np.where(below > 0, below, 1), np.nan)


def _corrected(table: pd.DataFrame, tested: "pd.Series[bool] | np.ndarray") -> pd.DataFrame:
    """Return the table with p corrected within each control donor and outcome: over kinds, and layers where there are more."""
    table = table.assign(p_holm=np.nan)
    for _, rows in table[tested].groupby(["control_donor", "outcome"]):
        some = rows.p.dropna()
        table.loc[some.index, "p_holm"] = holm(some.to_numpy())
    return table


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table[[*KEYS, *(c for c in table if c not in KEYS)]]
