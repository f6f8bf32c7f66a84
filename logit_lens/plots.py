"""Draw the lens figures from layers.csv."""

from pathlib import Path

import pandas as pd

from common.plotting import COLORS, NAMES, curve, figure, level
from common.samples import LABELS

FIGURES = ("margin_curve_conflict.png", "winrate_curve_conflict.png")


def plot_lens(out: Path, *, subtitle: str) -> None:
    """Write both figures into `out` from its layers.csv; `subtitle` names model and prompt."""
    layers = pd.read_csv(out / "layers.csv")
    counts = f"n = {layers.n[0]} conflict clips, {layers.n_texts[0]} texts; band: 95 % bootstrap over texts\n{subtitle}"
    with figure(out / FIGURES[0], ylabel="margin: voice − words (logits)", caption=counts) as axes:
        curve(axes, layers, "margin", color="#000000", label="mean margin")
        level(axes, 0, "above 0 voice leads, below 0 words")
    with figure(out / FIGURES[1], ylabel="answer follows (share of clips)", caption=counts, legend_columns=4) as axes:
        for outcome, color in COLORS.items():
            curve(axes, layers, f"win_{outcome}", color=color, label=NAMES[outcome], dashed=outcome == "other")
        level(axes, 1 / len(LABELS), "chance")
        axes.set_ylim(-0.03, 1.03)
