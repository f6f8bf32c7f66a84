"""Draw the lens figures from layers.csv."""

from pathlib import Path

import pandas as pd

from common.plotting import COLORS, NAMES, curve, figure, level

FIGURES = ("margin_curve_conflict.png", "winrate_curve_conflict.png")


def plot_lens(out: Path, *, subtitle: str) -> None:
    """Write both figures into `out` from its layers.csv; `subtitle` names model and prompt."""
    layers = pd.read_csv(out / "layers.csv")
    counts = f"n = {layers.n[0]} conflict clips, {layers.n_texts[0]} texts; band: 95 % bootstrap over texts\n{subtitle}"
    with figure(out / FIGURES[0], ylabel="margin: voice − words (logits)", caption=counts) as axes:
        level(axes, 0, "above: voice, below: words")
        curve(axes, layers, "margin", color="#000000", label="margin")
    with figure(out / FIGURES[1], ylabel="win rate (share of clips)", caption=counts) as axes:
        level(axes, 0.2, "one label by chance")
        for outcome, color in COLORS.items():
            curve(axes, layers, f"win_{outcome}", color=color, label=NAMES[outcome], dashed=outcome == "other")
        axes.set_ylim(-0.03, 1.03)
        axes.legend(title="answer follows", ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.24))
