"""Rows of lens.csv to the tables of a run, and what they say in words."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.clips.pairs import KINDS
from common.clips.samples import LABELS
from common.stats.landmarks import crossing, landmark_table, stated, where
from common.stats.units import Metric, Units, by_group, clip_units, label_codes, layer_table

OUTCOMES = (*KINDS, "other")


def lens_tables(rows: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables that the figures and the report are made of, by the names of their files; `labels` at the last layer."""
    return {
        "layers": lens_layers(rows, seed=seed),
        "congruent": congruent_layers(rows, seed=seed),
        "labels": label_table(rows, layer=rows.layer.max()),
        "decision_layer": decision_layer(rows, seed=seed),
    }


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


def decision_layer(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return the first layer from which the band of the margin stays on one side of 0 up to L, and which `side` that is."""

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        conflict = clip_units(rows[rows.semantic_label != rows.prosody_label])
        return landmark_table(conflict, "margin", "decision_layer", lambda of: crossing(of, seed=seed))

    found = by_group(rows, ["control"], table)
    return found.assign(side=found.side.map({1: "prosody", -1: "semantic", 0: "none"}))


def _permuted_wins(units: Units) -> np.ndarray:
    """Return values [unit, layer] whose mean is the voice's win rate with predictions permuted within semantic label, linearised.

    With a clips of a semantic label's n answered k and b of voice k, permuting leaves the sum over k of a b / n wins.
    """
    answers = label_codes(units.rows.winner).reshape(len(units.firsts), len(units.layers))
    semantic, voice = (label_codes(units.firsts[f"{kind}_label"]) for kind in KINDS)
    k = len(LABELS)
    voices = np.bincount(semantic * k + voice, minlength=k * k).reshape(k, k).astype(float)  # [semantic, voice]
    n = np.maximum(voices.sum(axis=1), 1)
    values = np.empty(answers.shape)
    for layer, answer in enumerate(answers.T):
        said = np.bincount(semantic * k + answer, minlength=k * k).reshape(k, k)  # [semantic, answer]
        both = (said * voices).sum(axis=1) / n**2
        values[:, layer] = voices[semantic, answer] / n[semantic] + said[semantic, voice] / n[semantic] - both[semantic]
    return values


def summary(layers: pd.DataFrame, decision: pd.DataFrame) -> str:
    """Say in a few lines what came out, from the per-layer table and that of the decision layer."""
    last, best, decided = layers.iloc[-1], layers.loc[layers.win_prosody.idxmax()], decision.iloc[0]
    side = {"prosody": "voice", "semantic": "words"}.get(decided.side, "")
    return (
        f"answer (l = {last.layer:.0f}, n = {last.n:.0f}): words {last.win_semantic:.3f}, voice {last.win_prosody:.3f} "
        f"({last.win_prosody_null:.3f} if it ignored the voice), neither {last.win_other:.3f}; "
        f"margin {stated(last, 'margin', '+.2f')}\n"
        f"voice wins most at l = {best.layer:.0f}: {stated(best, 'win_prosody', '.3f')}\n"
        f"{where(decided, 'decision_layer', f'decided for the {side}' if side else 'decided')}"
    )


def headline(out: Path) -> pd.DataFrame:
    """Return the main results of a finished run: `what`, its `unit`, `value`, `lo`, `hi`, and the `kind` it is about, `n`."""
    layers, decision = pd.read_csv(out / "layers.csv"), pd.read_csv(out / "decision_layer.csv")
    last, found = layers.iloc[-1], decision.iloc[0]
    rows = []
    for column, unit, kind in (
        ("win_semantic", "share of clips", "semantic"),
        ("win_prosody", "share of clips", "prosody"),
        ("margin", "logits", "other"),
    ):
        rows.append((f"{column} at l = L", unit, last[column], last[f"{column}_lo"], last[f"{column}_hi"], kind))
    rows.append(("decision layer", "layer l", found.decision_layer, found.decision_layer_lo, found.decision_layer_hi, "other"))
    return pd.DataFrame(rows, columns=["what", "unit", "value", "lo", "hi", "kind"]).assign(n=last.n)
