"""Rows of scaled.csv to the tables of a run: what each layer and factor gives and costs, and the ones chosen on other texts."""

from typing import Any

import numpy as np
import pandas as pd

from activation_patching.scale.curves import ASKS, OWN, RUN, Place
from activation_patching.span.tables import inner_mean, named
from common.clips.pairs import KINDS, OTHER
from common.stats.layer_tables import Floats, Metric, gain, layer_table
from common.stats.units import Units, clip_units

ERASES = -1.0  # the factor that takes out what is scaled
_ERRORS = ["word_errors", "word_errors_base", "words_said"]


def tables_of(rows: pd.DataFrame, transcribed: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
    """Return `scale` (kind x control x factor x layer), `erased` (kind), and of layers chosen on the other half of the texts:
    `curve` (kind x control x factor), `chosen` (kind; the factor chosen too). The last two are empty where a half has no place to
    choose, and `erased` where no factor is -1 or no layer lies between others. With the rows of `transcribed` texts these tell
    word error rates too.
    """
    if transcribed is not None:
        rows = rows.merge(
            transcribed[["curve_id", "layer", *_ERRORS]], on=["curve_id", "layer"], how="left", validate="one_to_one"
        )
    erased = _joined([erased_row(rows, kind) for kind in KINDS if ERASES in set(rows.factor) and rows.layer.nunique() > 2])
    rows, curve, chosen = with_untouched(rows), [], []
    for kind, places in places_of(rows).items():
        layers = {half: layer for half, (layer, _) in places.items()}
        curve += [_curve(rows, kind, control, factor, layers) for _, control, factor in _groups(rows[rows.kind == kind])]
        chosen.append(chosen_row(rows, kind, places))
    scale = [_scale(rows, kind, control, factor) for kind, control, factor in _groups(rows)]
    return {"scale": _joined(scale), "erased": erased, "curve": _joined(curve), "chosen": _joined(chosen)}


def places_of(rows: pd.DataFrame) -> dict[str, dict[int, Place]]:
    """Return for each cue the layer and factor for each half of the texts, chosen on the other; no cue that has not both."""
    found: dict[str, dict[int, Place]] = {}
    for kind in KINDS if set(rows.half) == {0, 1} else ():
        places = {half: choose(rows[rows.half != half], kind) for half in (0, 1)}
        if there := {half: place for half, place in places.items() if place is not None}:
            found |= {kind: there} if len(there) == 2 else {}
    return found


def with_untouched(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with those of factor 0, the untouched answers, which no pass needs to make."""
    first = rows[(rows.factor == rows.factor.iloc[0])]
    same = {"factor": 0.0, "pred_scaled": first.pred_base, "pred_direct": first.pred_base, "mass": first.mass_base, "kl": 0.0}
    same |= {"word_errors": first.word_errors_base} if "word_errors" in rows else {}
    return pd.concat([rows, first.assign(**same)], ignore_index=True)


def choose(rows: pd.DataFrame, kind: str) -> Place | None:
    """Return the inner layer and the factor above 0 that give most: gain in answers with the cue, less what congruent clips lose.

    Of the gain counts what later blocks make of it: less what the same change gives at h_L, which is a readout. Where
    that is equal, the larger gain. None where there is no inner layer, no factor above 0, or no conflict clip.
    """
    own = rows[(rows.kind == kind) & (rows.control == OWN) & (rows.asked == RUN)]
    inner = own[(own.layer > own.layer.min()) & (own.layer < own.layer.max()) & (own.factor > 0)]
    of_conflict, of_congruent = inner[inner.conflict == 1], inner[inner.conflict == 0]
    if of_conflict.empty:
        return None
    label, keys = f"{kind}_label", ["layer", "factor"]
    base = (of_conflict.pred_base == of_conflict[label]).groupby([of_conflict[k] for k in keys]).mean()

    def share(of: pd.DataFrame, column: str) -> pd.Series:
        return (of[column] == of[label]).groupby([of[k] for k in keys]).mean()

    given, direct = share(of_conflict, "pred_scaled") - base, share(of_conflict, "pred_direct") - base
    price = share(of_congruent, "pred_base") - share(of_congruent, "pred_scaled") if len(of_congruent) else 0 * given
    read = (given - direct.clip(lower=0) - price).round(9)
    layer, factor = max(given.index, key=lambda place: (read[place], given[place]))
    return int(layer), float(factor)


def erased_row(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return one row, in the mean of the inner layers: answers that still are the cue's label without its subspace, and more.

    `random`: the same without a random subspace; `minus_random` their difference (shares of conflict clips).
    """
    label, mean = f"{kind}_label", dict[str, Floats]()
    units = clip_units(_select(rows, kind, OWN, ERASES))
    for name, control in (("erased", OWN), ("random", "random_subspace")):
        mean[name] = inner_mean(_said(clip_units(_select(rows, kind, control, ERASES)), "pred_scaled", label))
    metrics = {name: Metric(values, share=True) for name, values in mean.items()}
    inner = units.layers[1:-1]
    units = Units(units.unit_rows, units.unit_rows, inner[:1], units.design)
    table = layer_table(units, metrics | {"minus_random": gain(mean["erased"] - mean["random"])})
    layers = {"first_layer": inner[0], "last_layer": inner[-1]}
    return named(table.drop(columns="layer").assign(**layers), {"kind": kind})


def _groups(rows: pd.DataFrame) -> list[tuple[str, str, float]]:
    found = rows[["kind", "control", "factor"]].drop_duplicates().sort_values("factor", kind="stable")
    order = {kind: i for i, kind in enumerate(KINDS)}
    return sorted(found.itertuples(index=False, name=None), key=lambda g: (order[g[0]], g[1] != OWN, g[1], g[2]))


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["kind"])


def _select(rows: pd.DataFrame, kind: str, control: str, factor: float, asked: str = RUN, conflict: int = 1) -> pd.DataFrame:
    same = (rows.kind == kind) & (rows.control == control) & (rows.factor == factor)
    return rows[same & (rows.asked == asked) & (rows.conflict == conflict)]


def _scale(rows: pd.DataFrame, kind: str, control: str, factor: float) -> pd.DataFrame:
    table = layer_table(*_outcomes(_select(rows, kind, control, factor), kind))
    for name, found in _costs(rows, kind, control, factor).items():
        table = table.merge(found.rename(columns={"n": f"n_{name}"}), on="layer", how="left")
    return named(table, {"kind": kind, "control": control, "factor": factor})


def _curve(rows: pd.DataFrame, kind: str, control: str, factor: float, layers: dict[int, int]) -> pd.DataFrame:
    """Return one row: a factor at the layer that the other half of the texts has chosen."""
    there = rows[rows.layer == rows.half.map(layers)].assign(layer=0)
    return _scale(there, kind, control, factor).drop(columns="layer")


def _outcomes(rows: pd.DataFrame, kind: str) -> tuple[Units, dict[str, Metric]]:
    units = clip_units(rows)
    words, voice = (_said(units, "pred_scaled", label) for label in ("semantic_label", "prosody_label"))
    return units, {
        "words": Metric(words, share=True),
        "voice": Metric(voice, share=True),
        "neither": Metric(1 - words - voice, share=True),
        "direct": Metric(_said(units, "pred_direct", f"{kind}_label"), share=True),
        "mass": Metric(units.grid("mass").astype(float), share=True),
        "kl": Metric(units.grid("kl").astype(float)),
    }


def _costs(rows: pd.DataFrame, kind: str, control: str, factor: float) -> dict[str, pd.DataFrame]:
    """Return by layer the congruent clips that are right, and the clips right that are asked for the other cue."""
    found = {
        "congruent": (_select(rows, kind, control, factor, conflict=0), f"{kind}_label"),
        "asked_other": (_select(rows, kind, control, factor, asked=ASKS[OTHER[kind]]), f"{OTHER[kind]}_label"),
    }
    tables = {}
    for name, (some, label) in found.items():
        if len(some):
            units = clip_units(some)
            table = layer_table(units, {name: Metric(_said(units, "pred_scaled", label), share=True)})
            tables[name] = table[["layer", "n", name, f"{name}_lo", f"{name}_hi"]]
    if len(some := _transcribed(_select(rows, kind, control, factor))):
        tables["word_error_rate"] = _error_rates(some, {"word_error_rate": "word_errors"})
    return tables


def _transcribed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of clips that the model was asked to transcribe."""
    return rows[rows.words_said.notna()] if "words_said" in rows else rows.iloc[:0]


def _error_rates(rows: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Return by layer the word errors for each word said, a rate of that name for each of the columns."""
    units = clip_units(rows)
    said = units.grid("words_said").astype(float)
    table = layer_table(units, {name: Metric(units.grid(column).astype(float), over=said) for name, column in columns.items()})
    for name, column in columns.items():
        if not units.grid(column).any():  # no clip tells how far the rate may be off
            table[[f"{name}_lo", f"{name}_hi"]] = np.nan
    return table[["layer", "n", *(f"{name}{end}" for name in columns for end in ("", "_lo", "_hi"))]]


def _said(units: Units, column: str, label: str) -> Floats:
    """Return 1 where an answer is the clip's label, [clip, layer]."""
    return (units.rows[column].to_numpy() == units.rows[label].to_numpy()).astype(float).reshape(len(units.unit_rows), -1)


def chosen_row(rows: pd.DataFrame, kind: str, places: dict[int, Place]) -> pd.DataFrame:
    """Return one row: what the layer and factor that the other half of the texts has chosen give, beside baselines and costs."""
    label, other = f"{kind}_label", OTHER[kind]
    layer, factor = (rows.half.map({half: place[i] for half, place in places.items()}) for i in (0, 1))
    there = rows[(rows.layer == layer) & (rows.factor == factor)].assign(layer=0, factor=0.0)

    def units_of(name: str, control: str = OWN, asked: str = RUN, conflict: int = 1) -> Units:
        return clip_units(_select(there, name, control, 0.0, asked, conflict))

    units = units_of(kind)
    said = _said(units, "pred_scaled", label)
    beside = {control: _said(units_of(kind, control), "pred_scaled", label) for control in ("random_subspace", "permuted_labels")}
    anywhere = rows[(rows.layer > rows.layer.min()) & (rows.layer < rows.layer.max()) & (rows.factor == factor)]
    all_layers = clip_units(_select(anywhere.assign(factor=0.0), kind, OWN, 0.0))
    at_end = rows[(rows.layer == rows.layer.max()) & (rows.factor == factor)].assign(layer=0, factor=0.0)
    read = _said(clip_units(_select(at_end, kind, OWN, 0.0)), "pred_scaled", label)
    before, asked = _said(units, "pred_base", label), _said(units, "pred_asked", label)
    metrics = {
        "untouched": Metric(before, share=True),
        "scaled": Metric(said, share=True),
        "gain": gain(said - before),
        "minus_random": gain(said - beside["random_subspace"]),
        "minus_permuted": gain(said - beside["permuted_labels"]),
        "minus_other_cue": gain(said - _said(units_of(other), "pred_scaled", label)),
        "minus_any_layer": gain(said - _said(all_layers, "pred_scaled", label).mean(axis=1, keepdims=True)),
        "minus_asked": gain(said - asked),
        "minus_direct": gain(said - _said(units, "pred_direct", label)),
        "minus_readout": gain(said - read),
        "decoded": Metric(units.grid("decoded").astype(float), share=True),
        "mass": Metric(units.grid("mass").astype(float), share=True),
        "mass_untouched": Metric(units.grid("mass_base").astype(float), share=True),
        "kl": Metric(units.grid("kl").astype(float)),
    }
    table = layer_table(units, metrics).drop(columns="layer")
    for name, of in (("congruent", units_of(kind, conflict=0)), ("asked_other", units_of(kind, asked=ASKS[other]))):
        right = label if name == "congruent" else f"{other}_label"
        table = pd.concat([table, _change(of, name, right)], axis=1)
    if len(some := _transcribed(_select(there, kind, OWN, 0.0))):
        some = some.assign(more_errors=some.word_errors - some.word_errors_base)
        rates = {"word_error_rate_before": "word_errors_base", "word_error_rate_change": "more_errors"}
        table = pd.concat(
            [table, _error_rates(some, rates).drop(columns="layer").rename(columns={"n": "n_word_error_rate"})], axis=1
        )
    chosen: dict[str, Any] = {f"{what}_{half}": places[half][i] for i, what in enumerate(("layer", "factor")) for half in (0, 1)}
    return named(table.assign(**chosen), {"kind": kind})


def _change(units: Units, name: str, label: str) -> pd.DataFrame:
    """Return the columns of a side effect: the share that is right `name`d `_before`, and how it changes; nan without clips."""
    columns = [f"{name}{end}" for end in ("_before", "_change", "_change_lo", "_change_hi")]
    if not len(units.unit_rows):
        return pd.DataFrame([dict.fromkeys([*columns, f"n_{name}"], np.nan)])
    before = _said(units, "pred_base", label)
    metrics = {f"{name}_before": Metric(before, share=True), f"{name}_change": gain(_said(units, "pred_scaled", label) - before)}
    return layer_table(units, metrics)[["n", *columns]].rename(columns={"n": f"n_{name}"})
