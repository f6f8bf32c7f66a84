"""Rows of patches.csv to the tables of a run, and what they say in words."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.clips.pairs import KINDS
from common.clips.samples import LABELS
from common.stats.landmarks import halving, landmark_table, where
from common.stats.resampling import estimate, holm, p_clustered, p_mcnemar
from common.stats.units import Metric, Units, by_group, label_codes, layer_table, mean_difference, pair_units, ratio

RANDOM_LABEL = 1 / 4  # directedness of an answer that moves to any of the four other labels alike


def controls(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return, for run.json, how far rows 0 are from the donors' own runs and rows L from the recipients', at most."""
    ends = rows.groupby("layer").own_run_difference.max()
    names = {"row 0 - donor, all pairs": ends.iloc[0], "row L - recipient, all pairs": ends.iloc[-1]}
    return {"controls": {name: float(largest) for name, largest in names.items() if largest == largest}}  # nan: not a control


def patch_tables(rows: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables that the figures and the report are made of, by the names of their files."""
    return {
        "layers": patch_layers(rows, seed=seed),
        "contrast": contrast_layers(rows, seed=seed),
        "release_layer": release_layer(rows, seed=seed),
    }


def patch_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per kind and layer over the pairs. Shares of pairs, unless said otherwise.

    - `flip_to_target`, `flip_from_base`; `flip_gain`: flip to target minus the recipient's saying it unpatched, and whether that
      is 0: `p_mcnemar` (exact, as if pairs were independent), `p_clustered`, `p_holm` (the larger one, corrected over layers).
    - `answer_donor`, `answer_recipient`: the patched answer is that clip's own. Read from the donor's side, row l is the donor's
      run whose tail is the recipient's from h_l on, and `answer_recipient` is how often that tail decides.
    - `*_eligible`: the same among the `n_eligible` pairs whose unpatched answers differ.
    - `directedness`: of the `n_directed` answers that left another label than the target, those that came to it
      (`RANDOM_LABEL` if the patch only disturbs).
    - `delta_logit`: target's logit, patched minus base (logits); `delta_over_mean`, `delta_over_base`: the same for the target
      minus the mean of the five, minus the label that the recipient answers unpatched.
    - `recovery`: mean of delta_over_base over its mean `donor_gain` for the donor itself, so 1 at l = 0 and 0 at l = L; nan
      where the interval of `donor_gain` holds 0. Row 0 is taken for the donor's own run, as in a splice.
    - `floor`, `ceiling`: the recipient, the donor answers the target unpatched. `kv_shared`: 1 where no patch reaches the answer.

    Ratios have no interval where fewer than five texts are in their denominator.
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
    gain = shares["flip_to_target"] - floor[:, None]
    among = np.broadcast_to(eligible[:, None], gain.shape)
    metrics = {name: Metric(values, share=True) for name, values in shares.items()}
    metrics |= {"flip_gain": Metric(gain)} | _logit_metrics(units)
    metrics |= {"directedness": ratio(shares["flip_to_target"] * directed, directed, share=True)}
    metrics |= {f"{name}_eligible": ratio(values * among, among, share=True) for name, values in shares.items()}
    table = layer_table(units, metrics, seed=seed)
    recovery, gains = ([c for c in table if c.startswith(name)] for name in ("recovery", "flip_gain"))
    table.loc[(table.donor_gain_lo <= 0) & (table.donor_gain_hi >= 0), recovery] = np.nan
    table[gains] = table[gains].clip(-1, 1)
    exact = p_mcnemar((gain > 0).sum(axis=0), (gain < 0).sum(axis=0))
    clustered = p_clustered(estimate(gain[:, None], units.factors))[0] if len(gain) else exact
    return table.assign(
        p_mcnemar=exact,
        p_clustered=clustered,
        p_holm=holm(np.maximum(exact, clustered)),
        n_eligible=eligible.sum(),
        n_directed=directed.sum(axis=0),
        floor=(base == target).mean(),
        ceiling=(donor == target).mean(),
        kv_shared=units.grid("kv_shared").max(axis=0) if "kv_shared" in units.rows and len(gain) else 0,
    )


def _logit_metrics(units: Units) -> dict[str, Metric]:
    logits = np.stack([units.grid(f"logit_{label}") for label in LABELS])  # [label, unit, layer]
    of_target, of_base = (_at(logits, units.firsts[c]) for c in ("target", "pred_base"))
    over_mean, over_base = of_target - logits.mean(axis=0), of_target - of_base
    moved, donor_gain = over_base - over_base[:, -1:], over_base[:, :1] - over_base[:, -1:]
    donor_gain = np.broadcast_to(donor_gain, moved.shape)
    return {
        "delta_logit": Metric(units.grid("delta_logit").astype(float)),
        "delta_over_mean": Metric(over_mean - over_mean[:, -1:]),
        "delta_over_base": Metric(moved),
        "donor_gain": Metric(donor_gain),
        "recovery": ratio(moved, donor_gain),
    }


def contrast_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per layer: semantic minus prosody pairs, in mean `flip_to_target` and `delta_logit`, with intervals.

    Both kinds are made of the same texts and speakers, so their difference has its own interval. No rows without both kinds.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = pair_units(rows if set(KINDS) <= set(rows.kind) else rows[:0])
        semantic = (units.firsts.kind == KINDS[0]).to_numpy()
        metrics = {c: Metric(mean_difference(units.grid(c).astype(float), semantic)) for c in ("flip_to_target", "delta_logit")}
        contrast = layer_table(units, metrics, seed=seed)
        flips = [c for c in contrast if c.startswith("flip_to_target")]
        contrast[flips] = contrast[flips].clip(-1, 1)
        return contrast

    return by_group(rows, ["control"], table)


def _at(logits: np.ndarray, labels: pd.Series) -> np.ndarray:
    """Return the logits [unit, layer] of each unit's label, of logits [label, unit, layer]."""
    return np.take_along_axis(logits, label_codes(labels)[None, :, None], axis=0)[0]


def release_layer(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return, per kind, the first layer from which mean `delta_logit` stays under half of its value at l = 0 up to L.

    From there on the audio span no longer controls the answer.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        return landmark_table(pair_units(rows), "delta_logit", "release_layer", lambda of: halving(of, seed=seed))

    return by_group(rows, ["control", "kind"], table)


def summary(layers: pd.DataFrame, release: pd.DataFrame) -> str:
    """Say in a few lines per kind what came out, from the per-layer table and that of the release layer."""
    lines = []
    for kind, table in layers[layers.control == "none"].groupby("kind", sort=False):
        first, middle = table.iloc[0], table.iloc[len(table) // 2]
        until = release[(release.control == "none") & (release.kind == kind)].iloc[0]
        alike = layers[(layers.control == "same_labels_donor") & (layers.kind == kind)]
        beside = f", of donors with the recipient's labels {alike.flip_to_target.iloc[0]:.3f}" if len(alike) else ""
        lines.append(
            f"{kind} pairs (n = {first.n:.0f}): flip to target {first.flip_to_target:.3f} at l = 0, "
            f"{middle.flip_to_target:.3f} at l = {middle.layer:.0f}, floor {first.floor:.3f}{beside}; "
            f"delta logit {first.delta_logit:+.2f} at l = 0, {middle.delta_logit:+.2f} at l = {middle.layer:.0f}\n"
            f"  {where(until, 'release_layer', 'the effect of the span is below half')}"
        )
    return "\n".join(lines)


def headline(out: Path) -> pd.DataFrame:
    """Return the main results of a finished run: `what`, its `unit`, `value`, `lo`, `hi`, and the `kind` it is about, `n`."""
    layers, until = (pd.read_csv(out / f"{name}.csv") for name in ("layers", "release_layer"))
    rows = []
    for _, first in layers[(layers.control == "none") & (layers.layer == 0)].iterrows():
        for column, unit in (("flip_to_target", "share of pairs"), ("delta_logit", "logits")):
            values = (first[column], first[f"{column}_lo"], first[f"{column}_hi"])
            rows.append((f"{first.kind} pairs: {column} at l = 0", unit, *values, first.kind))
    for _, found in until[until.control == "none"].iterrows():
        values = (found.release_layer, found.release_layer_lo, found.release_layer_hi)
        rows.append((f"{found.kind} pairs: release layer", "layer l", *values, found.kind))
    return pd.DataFrame(rows, columns=["what", "unit", "value", "lo", "hi", "kind"]).assign(n=until.n.max())
