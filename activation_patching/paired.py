"""The patch against the same patch with a control donor, on the same pairs: what it carries beyond disturbing the recipient."""

import numpy as np
import pandas as pd

from common.clips.pairs import CONTROLS
from common.stats.intervals import holm, p_mcnemar
from common.stats.metrics import Metric, gain, layer_table
from common.stats.units import FIELDS, Units, design_of, labels_of, pair_units

KEYS = ("kind", "control_donor", "outcome")
DIFFERENCE = ("difference", "difference_lo", "difference_hi")
OUTCOMES = ("flips", "delta", "directedness")
TESTED = tuple(c for c in CONTROLS if c != "itself")  # the recipient itself must change nothing: a check, no comparison
ENDS = ("", "_lo", "_hi", "_band_lo", "_band_hi", "_lo90", "_hi90", "_p")


def paired_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per kind, control donor, outcome and layer: `difference`, the donor's patch minus the control's, paired.

    Outcomes: `flips` to the target (share), `delta` of its logit, `directedness`. `real` and `control` are the two means, `n`
    the pairs that have both. `p` tests a difference of 0 (of flips by the larger of that for clustered pairs and McNemar's exact
    one), `p_holm` corrects it over layers and kinds. l = 0 and l = L are not tested: there the answers are the donor's and the
    recipient's own by construction. `difference_lo90`, `_hi90`: 90 % interval.
    """
    tables = []
    for units, arrays, control, kind in _pairs_of(rows):
        table = layer_table(units, _metrics(*arrays), seed=seed, test=True)
        changed = arrays[0] - arrays[4]
        table["flips_p"] = np.maximum(table.flips_p, p_mcnemar((changed > 0).sum(axis=0), (changed < 0).sum(axis=0)))
        tables.append(_long(table, arrays).assign(kind=kind, control_donor=control))
    if not tables:
        return pd.DataFrame(columns=[*KEYS, "layer", "n", *DIFFERENCE, "p", "p_holm"])
    table = pd.concat(tables, ignore_index=True)
    inner = (table.layer > table.layer.min()) & (table.layer < table.layer.max())
    table.loc[~inner, "p"] = np.nan
    return _ordered(_corrected(table, inner))


def transfer(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per kind, control donor and outcome: the same difference in the mean of the inner layers that have rows.

    No layer is selected, so its interval needs no correction for that. `primary` marks the experiment's primary outcome: flips,
    against a donor with the recipient's own labels (where no pair has one, against the first control there is). `p_holm` corrects
    over kinds.
    """
    tables = []
    for units, arrays, control, kind in _pairs_of(rows):
        inner = units.layers[1:-1]
        if not len(inner):
            continue
        middle = tuple(array[:, 1:-1].mean(axis=1, keepdims=True) for array in arrays)
        mean = Units(units.firsts, units.firsts, inner[:1], units.design)
        table = layer_table(mean, _metrics(*middle), seed=seed, test=True)
        tables.append(_long(table, middle).assign(kind=kind, control_donor=control, last_layer=inner[-1]))
    if not tables:
        columns = [*KEYS, "n", *DIFFERENCE, "clusters", "held_fixed", "p", "p_holm", "primary"]
        return pd.DataFrame(columns=columns).astype({"primary": bool})
    table = pd.concat(tables, ignore_index=True).rename(columns={"layer": "first_layer"})
    table = _ordered(_corrected(table, np.ones(len(table), dtype=bool)))
    named = next(c for c in TESTED if c in set(table.control_donor))
    return table.assign(primary=(table.outcome == OUTCOMES[0]) & (table.control_donor == named))


def _pairs_of(rows: pd.DataFrame) -> list[tuple[Units, tuple[np.ndarray, ...], str, str]]:
    """Return per control and kind the pairs that have both patches, and their arrays [unit, layer] (see `_metrics`)."""
    found: list[tuple[Units, tuple[np.ndarray, ...], str, str]] = []
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
            arrays = tuple(a for side, i in ((real, at), (other, slice(None))) for a in _arrays(side, i))
            found.append((Units(other.rows, firsts, other.layers, design), arrays, control, kind))
    return found


def _arrays(units: Units, at: np.ndarray | slice) -> tuple[np.ndarray, ...]:
    """Return flips, delta, directed flips and moves from another label than the target, [unit, layer]."""
    flips = units.grid("flip_to_target").astype(float)
    elsewhere = (units.firsts.pred_base != units.firsts.target).to_numpy()[:, None]
    moved = (elsewhere & (units.grid("flip_from_base") > 0)).astype(float)
    return tuple(a[at] for a in (flips, units.grid("delta_logit").astype(float), flips * moved, moved))


def _metrics(*arrays: np.ndarray) -> dict[str, Metric]:
    flips, delta, came, moved, flips_there, delta_there, came_there, moved_there = arrays
    directed = Metric(came, over=moved, less=Metric(came_there, over=moved_there))
    return {"flips": gain(flips - flips_there), "delta": Metric(delta - delta_there), "directedness": directed}


def _long(table: pd.DataFrame, arrays: tuple[np.ndarray, ...]) -> pd.DataFrame:
    """Return a wide table of the outcomes as one row per layer and outcome, with the means of both sides."""
    with np.errstate(invalid="ignore"):
        means = [np.nanmean(a, axis=0) for a in arrays]
        directed = [np.where(b > 0, a / b, np.nan) for a, b in ((means[2], means[3]), (means[6], means[7]))]
    sides = {"flips": means[0::4], "delta": means[1::4], "directedness": directed}
    shared = [c for c in table if not c.startswith(OUTCOMES)]
    parts = []
    for outcome, (real, control) in sides.items():
        columns = {f"{outcome}{end}": "p" if end == "_p" else f"difference{end}" for end in ENDS}
        parts.append(table[[*shared, *columns]].rename(columns=columns).assign(outcome=outcome, real=real, control=control))
    return pd.concat(parts, ignore_index=True)


def _corrected(table: pd.DataFrame, tested: "pd.Series[bool] | np.ndarray") -> pd.DataFrame:
    """Return the table with p corrected within each control donor and outcome: over kinds, and layers where there are more."""
    table = table.assign(p_holm=np.nan)
    for _, rows in table[tested].groupby(["control_donor", "outcome"]):
        some = rows.p.dropna()
        table.loc[some.index, "p_holm"] = holm(some.to_numpy())
    return table


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table[[*KEYS, *(c for c in table if c not in KEYS)]]
