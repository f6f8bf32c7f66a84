"""Draw the lens figures from the run's tables."""

from pathlib import Path

import pandas as pd

from common.plotting import COLORS, NAMES, curve, faint, figure, landmark, level, panels, resampled

FIGURES = ("margin_curve_conflict.png", "winrate_curve_conflict.png", "congruent_curve.png", "lens_health.png")


def plot_lens(out: Path, *, subtitle: str) -> list[str]:
    """Write the figures into `out` from its tables; return their names. `subtitle` names model and prompt."""
    layers, congruent, decision = (pd.read_csv(out / f"{t}.csv") for t in ("layers", "congruent", "decision_layer"))
    first = layers.iloc[0]
    labels = pd.read_csv(out / "labels.csv")
    chance = 1 / sum(c.startswith("answers_") for c in labels)
    counts = f"n = {first.n} conflict clips, {first.n_texts} texts; {resampled(first.clusters)}\n{subtitle}"
    paths = [out / name for name in FIGURES]
    with figure(paths[0], ylabel="margin: voice − words (logits)", caption=counts) as axes:
        curve(axes, layers, "margin", color="#000000", label="mean margin")
        level(axes, 0, "above 0 voice leads, below 0 words")
        landmark(axes, decision.iloc[0], "crossing", "one cue leads from here, with interval")
    with figure(paths[1], ylabel="answer follows (share of clips)", caption=counts, legend_columns=2) as axes:
        for outcome, color in COLORS.items():
            curve(axes, layers, f"win_{outcome}", color=color, label=NAMES[outcome], style="--" if outcome == "other" else "-")
        faint(axes, layers, "win_prosody_null", color=COLORS["prosody"], label="voice, answers shuffled", style=":")
        level(axes, chance, "chance")
        axes.set_ylim(-0.03, 1.03)
    beside = (
        f"n = {len(congruent) and congruent.n[0]} congruent, {first.n} conflict clips; {resampled(first.clusters)}\n{subtitle}"
    )
    with figure(paths[2], ylabel="share of clips", caption=beside, legend_columns=2) as axes:
        if len(congruent):
            curve(axes, congruent, "accuracy", color="#000000", label="congruent clips: right")
        for kind in ("semantic", "prosody"):
            faint(axes, layers, f"win_{kind}", color=COLORS[kind], label=f"conflict clips: {NAMES[kind]}")
        level(axes, chance, "chance")
        axes.set_ylim(-0.03, 1.03)
    health = ["share of probability", "rank in vocabulary", "KL (nats)"]
    with panels(paths[3], health, caption=counts, legend_columns=2) as (mass, rank, kl):
        curve(mass, layers, "mass", color="#000000", label="mean of clips")
        mass.set_ylim(-0.03, 1.03)
        faint(rank, layers, "best_rank", color="#000000", label="median of clips", style="--")
        rank.set_yscale("log")
        rank.set_ylim(bottom=0.7)
        curve(kl, layers, "kl", color="#000000", label="mean of clips")
        level(kl, 0, "as the final distribution")
    return list(FIGURES)
