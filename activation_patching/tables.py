"""Rows of patches.csv to the tables of a run."""

from pathlib import Path

import numpy as np
import pandas as pd

from activation_patching.edited import edit_tables
from activation_patching.facts import edit_facts, patching_facts
from activation_patching.paired import TESTED, edit_of, paired_layers, transfer
from activation_patching.release import release_layer
from activation_patching.words import CONSTRUCTION, edit_statements, patching_statements, primary_name
from common.clips.pairs import KINDS
from common.running.output import read_table
from common.stats.metrics import Metric, gain, layer_table
from common.stats.nulls import shuffled_hits
from common.stats.units import Units, by_group, label_codes, labels_of, pair_units


def controls(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return, for run.json, how far rows 0 are from the donors' own runs and rows L from the recipients', at most."""
    ends = rows.groupby("layer").own_run_difference.max()
    last = "row L - recipient, all pairs" if edit_of(rows) == "span" else "unedited - recipient, all pairs"
    names = {"row 0 - donor, all pairs": ends.iloc[0], last: ends.iloc[-1]}
    return {"controls": {name: float(largest) for name, largest in names.items() if largest == largest}}  # nan: not a control


def tables_of(rows: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables of a run, whatever it did to the states, by the names of their files."""
    return (patch_tables if edit_of(rows) == "span" else edit_tables)(rows, seed=seed)


def patch_tables(rows: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables that the figures and the report are made of, by the names of their files."""
    return {
        "layers": patch_layers(rows, seed=seed),
        "paired": paired_layers(rows, seed=seed),
        "transfer": transfer(rows, seed=seed),
        "contrast": contrast_layers(rows, seed=seed),
        "release_layer": release_layer(rows, seed=seed),
        "leave_out": leave_out(rows, seed=seed),
    }


def patch_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per control, kind and layer over the pairs. Shares of pairs, unless said otherwise.

    - `flip_to_target`, `flip_from_base`; `flip_gain`: flip to target minus the recipient's saying it unpatched, pair by pair.
    - `answer_donor`, `answer_recipient`: the patched answer is that clip's own. Read from the donor's side, row l is the donor's
      run whose tail is the recipient's from h_l on, and `answer_recipient` is how often that tail decides.
    - `*_eligible`: the same among the `n_eligible` pairs whose unpatched answers differ.
    - `directedness`: of the `n_directed` answers that left another label than the target, those that came to it;
      `directedness_null`: with the targets shuffled among those pairs of them whose recipients say the same, and
      `directedness_excess` what is beyond that: 0 if the patch only disturbs, whatever label it disturbs to.
    - `delta_logit`: target's logit, patched minus base (logits); `delta_over_mean`, `delta_over_base`: the same for the target
      minus the mean of the labels, minus the label that the recipient answers unpatched.
    - `recovery`: mean of delta_over_base over its mean `donor_gain` for the donor itself, so 1 at l = 0 and 0 at l = L; nan
      where the interval of `donor_gain` holds 0. Row 0 is taken for the donor's own run, as in a splice.
    - `floor`, `ceiling`: the recipient, the donor answers the target unpatched. `kv_shared`: 1 where no patch reaches the answer.

    Ratios have no interval where fewer than five of the clusters that are resampled are in their denominator. Whether a patch
    carries anything is tested against control donors, pair by pair (see `paired_layers`), not against the floor.
    """
    return by_group(rows, ["control", "kind"], lambda of_kind: _patch_table(pair_units(of_kind), seed=seed))


def _patch_table(units: Units, *, seed: int) -> pd.DataFrame:
    base, donor, target = (units.firsts[c] for c in ("pred_base", "pred_donor", "target"))
    floor, eligible = (base == target).to_numpy(), (base != donor).to_numpy()
    directed = ~floor[:, None] & (units.grid("flip_from_base") > 0)
    shares = {
        "flip_to_target": units.grid("flip_to_target").astype(float),
        "flip_from_base": units.grid("flip_from_base").astype(float),
        "answer_donor": units.grid(units.rows.pred_patch == units.rows.pred_donor).astype(float),
        "answer_recipient": units.grid(units.rows.pred_patch == units.rows.pred_base).astype(float),
    }
    flips, among = shares["flip_to_target"], np.broadcast_to(eligible[:, None], directed.shape).astype(float)
    metrics = {name: Metric(values, share=True) for name, values in shares.items()}
    metrics |= {"flip_gain": gain(flips - floor[:, None])} | _logit_metrics(units)
    came, moved = flips * directed, directed.astype(float)
    labels = labels_of(units.rows)
    codes = [label_codes(units.rows[c], labels).reshape(directed.shape) for c in ("pred_base", "pred_patch", "target")]
    null = shuffled_hits(codes[0][:, 0], codes[1], codes[2][:, 0], directed) if len(directed) else came
    metrics |= {
        "directedness": Metric(came, over=moved, share=True),
        "directedness_excess": Metric(came - null, over=moved),
    }
    metrics |= {f"{name}_eligible": Metric(values * among, over=among, share=True) for name, values in shares.items()}
    table = layer_table(units, metrics, seed=seed)
    recovery = [c for c in table if c.startswith("recovery")]
    table.loc[(table.donor_gain_lo <= 0) & (table.donor_gain_hi >= 0), recovery] = np.nan
    n_directed = directed.sum(axis=0)
    return table.assign(
        directedness_null=null.sum(axis=0) / np.where(n_directed > 0, n_directed, np.nan),
        n_eligible=eligible.sum(),
        n_directed=n_directed,
        floor=(base == target).mean(),
        ceiling=(donor == target).mean(),
        kv_shared=units.grid("kv_shared").max(axis=0) if "kv_shared" in units.rows and len(flips) else 0,
    )


def _logit_metrics(units: Units) -> dict[str, Metric]:
    labels = labels_of(units.rows)
    logits = np.stack([units.grid(f"logit_{label}") for label in labels])  # [label, unit, layer]
    codes = [label_codes(units.firsts[c], labels)[None, :, None] for c in ("target", "pred_base")]
    of_target, of_base = (np.take_along_axis(logits, of_label, axis=0)[0] for of_label in codes)
    over_mean, over_base = of_target - logits.mean(axis=0), of_target - of_base
    moved, donor_gain = over_base - over_base[:, -1:], over_base[:, :1] - over_base[:, -1:]
    donor_gain = np.broadcast_to(donor_gain, moved.shape)
    return {
        "delta_logit": Metric(units.grid("delta_logit").astype(float)),
        "delta_over_mean": Metric(over_mean - over_mean[:, -1:]),
        "delta_over_base": Metric(moved),
        "donor_gain": Metric(donor_gain),
        "recovery": Metric(moved, over=donor_gain),
    }


def contrast_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per layer: semantic minus prosody pairs, in mean `flip_to_target` and `delta_logit`, with intervals.

    Both kinds are made of the same texts and speakers, so their difference has its own interval. No rows without both kinds.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = pair_units(rows if set(KINDS) <= set(rows.kind) else rows[:0])
        semantic = np.repeat((units.firsts.kind == KINDS[0]).to_numpy()[:, None], len(units.layers), axis=1).astype(float)
        prosody = 1 - semantic
        metrics = {}
        for column in ("flip_to_target", "delta_logit"):
            values = units.grid(column).astype(float)
            metrics[column] = Metric(values * semantic, over=semantic, less=Metric(values * prosody, over=prosody))
        contrast = layer_table(units, metrics, seed=seed)
        flips = [c for c in contrast if c.startswith("flip_to_target")]
        contrast[flips] = contrast[flips].clip(-1, 1)
        return contrast

    return by_group(rows, ["control"], table)


def leave_out(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return the main results without each label: per kind one row per `label` left out, first none of them: "".

    Left out are pairs with the label in recipient's or donor's words or voice, as far as the rows tell, or as the target.
    """
    if "control" not in rows:
        return pd.DataFrame(columns=["label", "kind"])
    primary = next((c for c in TESTED if (rows.control == c).any()), "none")
    rows = rows[rows.control.isin(("none", primary))]
    named = [c for c in rows if c.endswith("_label") and not c.startswith("logit_")] + ["target"]

    def without(label: str) -> pd.DataFrame:
        kept = rows[~(rows[named] == label).any(axis=1)] if label else rows
        released = release_layer(kept[kept.control == "none"], seed=seed)
        released = released[["kind", "crossing", "crossing_lo", "crossing_hi", "release_layer", "n"]]
        carried = transfer(kept, seed=seed)
        carried = carried[carried.primary][
            ["kind", "difference", "difference_lo", "difference_hi", "control_donor", "clusters", "held_fixed"]
        ]
        return released.merge(carried, on="kind", how="left").assign(label=label)

    labels = labels_of(rows)
    tables = [without(label) for label in ("", *(labels if len(labels) > 2 else ()))]
    table = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
    return table[["label", *(c for c in table if c != "label")]]


def headline(out: Path) -> pd.DataFrame:
    """Return the main results of a finished run: `what`, its `unit`, `value`, `lo`, `hi`, the `kind` it is about, `n` and `p`."""
    carried = read_table(out, "transfer")
    primary = "same_labels_donor" if (out / "release_layer.csv").exists() else "random_subspace"
    until = read_table(out, "release_layer") if primary == "same_labels_donor" else pd.DataFrame({"control": []})
    rows = []
    for _, row in carried[carried.control_donor == primary].iterrows():
        if row.outcome in ("flips", "delta"):
            unit = "flips gained over control (share)" if row.outcome == "flips" else "logits"
            values = (row.difference, row.difference_lo, row.difference_hi)
            rows.append((primary_name(row.kind, row.outcome), unit, *values, row.kind, row.n, row.p))
    for _, found in until[until.control == "none"].iterrows():
        values = (found.crossing, found.crossing_lo, found.crossing_hi)
        rows.append((f"{found.kind} pairs: below half from", "layer l", *values, found.kind, found.n, np.nan))
    return pd.DataFrame(rows, columns=["what", "unit", "value", "lo", "hi", "kind", "n", "p"])


def summary(tables: dict[str, pd.DataFrame]) -> str:
    """Say in a few lines per kind of pair what came out."""
    if "release_layer" not in tables:
        said = [s for kind, facts in edit_facts(tables).items() for s in edit_statements(kind, facts)]
        return "\n".join(s.replace("**", "") for s in said)
    said = [s for kind, facts in patching_facts(tables).items() for s in patching_statements(kind, facts)]
    return "\n".join(s.replace("**", "") for s in [*said, CONSTRUCTION])
