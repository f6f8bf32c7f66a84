"""Draw the lens figures from the run's tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.plotting import COLORS, FAINT, INK, Look, curve, faint, figure, landmark, level, panels, resampled
from common.running.output import read_table

FIGURES = ("margin_curve_conflict.png", "winrate_curve_conflict.png", "congruent_curve.png", "lens_health.png")
PROBE = "probe_curve.png"
PROBE_CONTROLS = {  # (probe, position): name, style
    ("random_weights", "span"): ("random weights, span", "-"),
    ("random_weights", "last"): ("end", "--"),
    ("duration_and_level", "clip"): ("duration, level", "-."),
    ("permuted", "span"): ("labels dealt anew", ":"),
}
NAMES = {"semantic": "words", "prosody": "voice", "other": "neither"}
XLABEL = "layer l (state entering block l)"


def plot_lens(run: Path, out: Path, look: Look) -> list[str]:
    """Write the figures into `out` from the tables of a `run`; return their names."""
    layers, congruent, decision, labels = (read_table(run, t) for t in ("layers", "congruent", "decision_layer", "labels"))
    say, x = look.say, look.say(XLABEL)
    first, chance = layers.iloc[0], 1 / sum(c.startswith("answers_") for c in labels)
    counts = say("n = {n} conflict clips; {over}", n=int(first.n), over=resampled(first, look))
    paths = [out / name for name in FIGURES]
    with figure(paths[0], look, xlabel=x, ylabel=say("margin: voice − words (logits)"), caption=counts) as axes:
        curve(axes, layers, "margin", color=INK, name=say("margin"))
        if "margin_prior" in layers:
            faint(axes, layers, "margin_prior", color=COLORS["other"], name=say("label\nprior"), style="--")
        level(axes, 0, say("no lead"))
    with figure(paths[1], look, xlabel=x, ylabel=say("answer follows (share of clips)"), caption=counts) as axes:
        for outcome, color in COLORS.items():
            curve(
                axes, layers, f"win_{outcome}", color=color, name=say(NAMES[outcome]), style="--" if outcome == "other" else "-"
            )
        if "win_prosody_null" in layers:
            faint(axes, layers, "win_prosody_null", color=COLORS["prosody"], name=say("voice,\nshuffled"), style=":")
        level(axes, chance, say("chance"))
        axes.set_ylim(-0.03, 1.03)
        for found in decision.itertuples():
            ends = (
                ""
                if found.crossing != found.crossing
                else f"{found.crossing:.1f} [{found.crossing_lo:.1f}, {found.crossing_hi:.1f}]"
            )
            landmark(axes, found.crossing, found.crossing_lo, found.crossing_hi, say("lead from l = {ends}", ends=ends))
    beside = say(
        "n = {m} congruent, {n} conflict clips; {over}",
        m=len(congruent) and int(congruent.n[0]),
        n=int(first.n),
        over=resampled(first, look),
    )
    with figure(paths[2], look, xlabel=x, ylabel=say("share of clips"), caption=beside) as axes:
        if len(congruent):
            curve(axes, congruent, "accuracy", color=INK, name=say("congruent:\nright"))
        for kind in ("semantic", "prosody"):
            faint(axes, layers, f"win_{kind}", color=COLORS[kind], name=say(NAMES[kind]))
        level(axes, chance, say("chance"))
        axes.set_ylim(-0.03, 1.03)
    ylabels = [say(text) for text in ("share of probability", "rank in vocabulary", "KL (nats)")]
    with panels(paths[3], look, ylabels, xlabel=x, caption=counts) as (mass, rank, kl):
        curve(mass, layers, "mass", color=INK, name=say("labels,\nmean"))
        mass.set_ylim(-0.03, 1.03)
        faint(rank, layers, "best_rank", color=INK, name=say("best label,\nmedian"), style="--")
        rank.set_yscale("log")
        rank.set_ylim(bottom=0.7)
        curve(kl, layers, "kl", color=INK, name=say("to the final,\nmean"))
        level(kl, 0, "0")
    return [*FIGURES, *plot_probe(run, out, look)]


def plot_probe(run: Path, out: Path, look: Look) -> list[str]:
    """Write how much of words and voice a probe tells beside how much is answered, where a `run` has it; return the name."""
    found = read_table(run, "probe") if (run / "probe.csv").exists() else pd.DataFrame()
    if not len(found):
        return []
    say, labels, first = look.say, list(found.label.unique()), found.iloc[0]
    counts = say("n = {n} conflict clips; {over}", n=int(first.n), over=resampled(first, look))
    ylabels = [say(f"{NAMES[label]} (share of clips)") for label in labels]
    with panels(out / PROBE, look, ylabels, xlabel=say(XLABEL), caption=counts) as all_axes:
        for axes, label in zip(all_axes, labels):
            tables = {place: t for place, t in found[found.label == label].groupby(["probe", "position"])}
            for (probe, position), (name, style) in PROBE_CONTROLS.items():
                if (probe, position) in tables:
                    axes.plot(*_flat(tables[probe, position], len(tables["states", "last"])), color=FAINT, linestyle=style)
                    axes.lines[-1].set(linewidth=1.3, zorder=1, label=say(name))
            curve(axes, tables["states", "span"], "accuracy", color=COLORS[label], name=say("probe,\nspan"))
            curve(axes, tables["states", "last"], "accuracy", color=COLORS[label], name=say("probe,\nend"), style="--")
            curve(axes, tables["states", "last"], "answered", color=INK, name=say("answer"))
            level(axes, tables["states", "span"].chance.iloc[0], say("chance"))
            axes.set_ylim(-0.03, 1.03)
    return [PROBE]


def _flat(table: pd.DataFrame, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the layers and accuracies of a probe; one without layers is the same at all of them."""
    return np.arange(layers), np.broadcast_to(table.accuracy, layers)
