"""Rows to tables: what is measured per layer, each mean with its interval. Pure functions from tables to tables.

A mean X comes with `X_lo, X_hi`, its 95 % interval, and `X_band_lo, X_band_hi`, a band that holds all layers at once with 95 %
(`common/resampling.py`). `clusters` says which of texts and speakers they generalise over: one with fewer than five levels is
held fixed, as two speakers cannot tell about a third. Where nothing can be resampled they are nan and `clusters` says why.
Ratios are linearised: their rows become values of the same mean (Deville 1999, Surv. Methodol. 25). With a column `control`
("" for the real pairs), every table has its groups one below the other.
"""

import numpy as np
import pandas as pd

from common.layers import Metric, Units, by_group, clip_units, difference, layer_table, pair_units, ratio
from common.resampling import estimate, holm, p_clustered, p_mcnemar
from common.samples import KINDS, LABELS

OUTCOMES = (*KINDS, "other")
RANDOM_LABEL = 1 / 4  # directedness of an answer that moves to any of the four other labels alike


def lens_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per layer over the conflict clips: mean `margin` (logits) and win rates `win_*` (shares of clips).

    `win_prosody_null` is what the voice would win if the answer did not depend on it: predictions permuted within semantic
    label, in expectation over all permutations. `win_prosody_excess` is how much more it wins. If the rows have them: means of
    `mass`, `kl` (nats) and `margin_spread`, median of `best_rank`.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = clip_units(rows[rows.semantic_label != rows.prosody_label])
        metrics = {"margin": Metric(units.grid("margin"))}
        metrics |= {f"win_{o}": Metric((units.grid("outcome") == o).astype(float), share=True) for o in OUTCOMES}
        null = _permuted_wins(units)
        metrics |= {
            "win_prosody_null": Metric(null, share=True),
            "win_prosody_excess": Metric(metrics["win_prosody"].values - null),
        }
        metrics |= {c: Metric(units.grid(c), share=c == "mass") for c in ("mass", "kl", "margin_spread") if c in rows}
        medians = {c: np.median(units.grid(c), axis=0) for c in ("best_rank",) if c in rows and len(units.firsts)}
        return layer_table(units, metrics, seed=seed).assign(**medians)

    return by_group(rows, ["control"], table)


def congruent_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per layer over the clips whose words and voice agree: `accuracy`, the share answered with their label."""

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = clip_units(rows[rows.semantic_label == rows.prosody_label])
        right = (units.rows.winner == units.rows.semantic_label).astype(float)
        return layer_table(units, {"accuracy": Metric(units.grid(right), share=True)}, seed=seed)

    return by_group(rows, ["control"], table)


def label_table(rows: pd.DataFrame, *, layer: int) -> pd.DataFrame:
    """Return one row per semantic x prosody label at a layer: `n` clips, win rates, and how often each label is answered.

    Congruent clips stand on the diagonal; there a clip answered with its label counts as a win of both.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        at = rows[rows.layer == layer]
        right = {f"win_{kind}": at.winner == at[f"{kind}_label"] for kind in KINDS}
        right["win_other"] = ~(right["win_semantic"] | right["win_prosody"])
        answers = {f"answers_{label}": at.winner == label for label in LABELS}
        cells = at.assign(n=1, **right, **answers).groupby(["semantic_label", "prosody_label"])
        means, sums = cells[list(right)].mean(), cells[["n", *answers]].sum()
        return sums[["n"]].join(means).join(sums[list(answers)]).reset_index()

    return by_group(rows, ["control"], table)


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
    - `recovery`: mean of delta_over_base over its mean `span` for the donor itself, so 1 at l = 0 and 0 at l = L; nan where the
      interval of `span` holds 0. Row 0 is taken for the donor's own run, as in a splice.
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
    table.loc[(table.span_lo <= 0) & (table.span_hi >= 0), recovery] = np.nan
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
    moved, span = over_base - over_base[:, -1:], over_base[:, :1] - over_base[:, -1:]
    span = np.broadcast_to(span, moved.shape)
    return {
        "delta_logit": Metric(units.grid("delta_logit").astype(float)),
        "delta_over_mean": Metric(over_mean - over_mean[:, -1:]),
        "delta_over_base": Metric(moved),
        "span": Metric(span),
        "recovery": ratio(moved, span),
    }


def contrast_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per layer: semantic minus prosody pairs, in mean `flip_to_target` and `delta_logit`, with intervals.

    Both kinds are made of the same texts and speakers, so their difference has its own interval. No rows without both kinds.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = pair_units(rows if set(KINDS) <= set(rows.kind) else rows[:0])
        semantic = (units.firsts.kind == KINDS[0]).to_numpy()
        metrics = {c: Metric(difference(units.grid(c).astype(float), semantic)) for c in ("flip_to_target", "delta_logit")}
        contrast = layer_table(units, metrics, seed=seed)
        flips = [c for c in contrast if c.startswith("flip_to_target")]
        contrast[flips] = contrast[flips].clip(-1, 1)
        return contrast

    return by_group(rows, ["control"], table)


def _permuted_wins(units: Units) -> np.ndarray:
    """Return values [unit, layer] whose mean is the voice's win rate with predictions permuted within semantic label, linearised.

    With a clips of a semantic label's n answered k and b of voice k, permuting leaves the sum over k of a b / n wins.
    """
    answers = _codes(units.rows.winner).reshape(len(units.firsts), len(units.layers))
    semantic, voice = (_codes(units.firsts[f"{kind}_label"]) for kind in KINDS)
    k = len(LABELS)
    voices = np.bincount(semantic * k + voice, minlength=k * k).reshape(k, k).astype(float)  # [semantic, voice]
    n = np.maximum(voices.sum(axis=1), 1)
    values = np.empty(answers.shape)
    for layer, answer in enumerate(answers.T):
        said = np.bincount(semantic * k + answer, minlength=k * k).reshape(k, k)  # [semantic, answer]
        both = (said * voices).sum(axis=1) / n**2
        values[:, layer] = voices[semantic, answer] / n[semantic] + said[semantic, voice] / n[semantic] - both[semantic]
    return values


def _codes(labels: pd.Series) -> np.ndarray:
    """Return each label's place in LABELS."""
    codes = pd.Index(LABELS).get_indexer(labels)
    if (codes < 0).any():
        raise ValueError(f"column {labels.name}: unknown label {labels[codes < 0].iloc[0]!r}; allowed: {', '.join(LABELS)}")
    return codes


def _at(logits: np.ndarray, labels: pd.Series) -> np.ndarray:
    """Return the logits [unit, layer] of each unit's label, of logits [label, unit, layer]."""
    return np.take_along_axis(logits, _codes(labels)[None, :, None], axis=0)[0]
