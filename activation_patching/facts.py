"""What a patching run found, from its tables: numbers, intervals, controls and verdicts, without words."""

from typing import Any

import pandas as pd

from common.stats.facts import Fact, fact, sided

SIGNIFICANT = 0.05
PAIRED = "paired difference, t of clustered pairs, Holm over kinds"


def patching_facts(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, Fact]]:
    """Return the findings by kind of pair and name.

    The primary outcome, named before any number: `flips`, those to the donor's label minus those that the control donor makes on
    the same pairs, in the mean of the inner layers.
    """
    layers = tables["layers"]
    return {kind: _of_kind({n: t[t.kind == kind] for n, t in tables.items() if "kind" in t}) for kind in layers.kind.unique()}


def edit_facts(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, Fact]]:
    """Return the findings of a run that erased or exchanged a subspace, by kind and name.

    The primary outcome, named before any number, against a random subspace in the mean of the layers: of erasure the answers that
    are `changed`, of exchange the `flips` to the donor's label. The first fact's `verdict` says which edit, its `test` where.
    """
    kinds = tables["layers"].kind.unique()
    return {kind: _of_edit({n: t[t.kind == kind] for n, t in tables.items()}) for kind in kinds}


def _of_edit(tables: dict[str, pd.DataFrame]) -> dict[str, Fact]:
    layers, carried = tables["layers"], tables["transfer"]
    real = layers[layers.control == "none"]
    n = int(real.n.iloc[0])
    facts = [Fact("pairs", float(n), n=n, verdict=real.edit.iloc[0], test=real["at"].iloc[0], row="layers.csv")]
    if len(carried):
        facts += _against_controls(carried, real.layer)
        facts.append(_layers_shown(tables["paired"], _primary(carried)))
    best = real.loc[real.told.idxmax()]
    knows = _runs(real.layer[real.told_band_lo > real.chance].astype(int).tolist())
    known: dict[str, Any] = {"control": f"{best.chance:.2f}", "verdict": knows, "test": "band over all layers at once"}
    facts.append(fact(best, "told", unit="share of pairs", row=f"layers.csv, l = {best.layer:.0f}", **known))
    for _, row in tables.get("carried_mean", real[:0]).iterrows():
        told: dict[str, Any] = {"unit": "of what the whole state does", "control": "whole", "row": "carried_mean.csv"}
        facts += [fact(row, name, **told | {"name": f"carried: {name}"}) for name in ("flips", "delta")]
    return {f.name: f for f in facts}


def _of_kind(tables: dict[str, pd.DataFrame]) -> dict[str, Fact]:
    layers, carried, until = (tables[n] for n in ("layers", "transfer", "release_layer"))
    real = layers[layers.control == "none"]
    facts = [
        Fact("pairs", float(real.n.iloc[0]), n=int(real.n.iloc[0]), row="layers.csv"),
        *_against_controls(carried, real.layer),
    ]
    if _primary(carried):  # no pair of this kind may have a control donor that others have
        facts.append(_layers_shown(tables["paired"], _primary(carried)))
    for _, row in until[until.control == "none"].iterrows():
        reason = row.reason if isinstance(row.reason, str) else ""
        told: dict[str, Any] = {"unit": "layer l", "row": "release_layer.csv"}
        facts.append(fact(row, "crossing", test="Fieller's interval of the interpolated crossing", verdict=reason, **told))
        one_sided = f"one-sided 95 % limit under {row.bound:.2f}"
        facts.append(Fact("nothing_left", float(row.nothing_left), n=int(row.n), test=one_sided, **told))
        if not pd.isna(row.release_layer):
            at = real[real.layer == row.release_layer].iloc[0]
            facts.append(fact(at, "flip_from_base", unit="share of pairs", row=f"layers.csv, l = {row.release_layer:.0f}"))
    without = tables["leave_out"][tables["leave_out"].label != ""]
    if _primary(carried) and len(without) > 1:
        facts.append(_without_labels(without, sided(carried[carried.primary].iloc[0], "difference")))
    return {f.name: f for f in facts}


def _against_controls(carried: pd.DataFrame, layers: "pd.Series[int]") -> list[Fact]:
    """Return each outcome of transfer.csv and the means of its two sides; those against further controls by name.

    `layers` are those of the run.
    """
    facts = []
    for _, row in carried.iterrows():
        name = row.outcome if row.control_donor == _primary(carried) else f"{row.outcome}, {row.control_donor}"
        row = row.rename({"difference": name, "difference_lo": f"{name}_lo", "difference_hi": f"{name}_hi"})
        inside = layers[layers.between(row.first_layer, row.last_layer)].astype(int).tolist()
        inner = f"mean of {_listed(inside)}"
        unit = "logits" if row.outcome in ("delta", "margin") else "share of pairs"
        told: dict[str, Any] = {
            "control": row.control_donor,
            "p": float(row.p_holm),
            "unit": unit,
            "test": PAIRED,
            "row": f"transfer.csv, {inner}",
        }
        above = {1: "more", -1: "less", 0: "none"}[sided(row, name) if row.p_holm < SIGNIFICANT else 0]
        facts.append(fact(row, name, verdict=above, **told))
        for side in ("real", "control"):
            facts.append(Fact(f"{name}: {side}", float(row[side]), n=int(row.n), row=f"transfer.csv, {inner}"))
    return facts


def _listed(layers: list[int]) -> str:
    """Return "l = 1 to 35"; "the 8 listed layers from l = 4 to 32" where some in between have no rows."""
    ends = f"l = {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"l = {layers[0]}"
    return ends if len(layers) == layers[-1] - layers[0] + 1 else f"the {len(layers)} listed layers from {ends}"


def _primary(carried: pd.DataFrame) -> str:
    return str(carried.control_donor[carried.primary].iloc[0]) if carried.primary.any() else ""


def _layers_shown(paired: pd.DataFrame, control: str) -> Fact:
    """Return at which layers flips exceed the control's, as `verdict` "1 to 4, 6"; nan where at none."""
    rows = paired[paired.control_donor == control]
    rows = rows[rows.outcome == paired.outcome.iloc[0]]
    shown = rows[(rows.p_holm < SIGNIFICANT) & (rows.difference > 0)].layer.astype(int).tolist()
    tested = int(rows.p_holm.notna().sum())
    test = f"paired test at each of {tested} layers, Holm over layers and kinds"
    told: dict[str, Any] = {"unit": "layers", "control": control, "row": "paired.csv", "test": test}
    return Fact("layers", float(len(shown)), n=int(rows.n.iloc[0]), verdict=_runs(shown), **told)


def _runs(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]} to {p[-1]}" for p in parts)


def _without_labels(without: pd.DataFrame, side: int) -> Fact:
    other = [str(r.label) for _, r in without.iterrows() if sided(r, "difference") != side]
    told: dict[str, Any] = {
        "unit": "share of pairs",
        "n": len(without),
        "row": "leave_out.csv",
        "test": "each label left out in turn",
    }
    ends = (without.difference.min(), without.difference.max())
    return Fact("flips without a label", float("nan"), *ends, verdict=", ".join(other) or "same", **told)
