"""Draw the patching figures from layers.csv."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from common.plotting import COLORS, NAMES, curve, figure, level, shade


def figure_names(kind: str) -> tuple[str, str]:
    return f"flip_rate_curve_{kind}.png", f"delta_logit_curve_{kind}.png"


def plot_patching(out: Path, *, subtitle: str) -> list[str]:
    """Write two figures per kind of pair into `out` from its layers.csv; return their names.

    `subtitle` names model and prompt.
    """
    written: list[str] = []
    for kind, layers in pd.read_csv(out / "layers.csv").groupby("kind", sort=False):
        first = layers.iloc[0]
        counts = f"n = {first.n} {kind} pairs, {first.n_texts} texts; band: 95 % bootstrap over texts\n{subtitle}"
        names = figure_names(kind)
        written += names
        flips, deltas = (out / name for name in names)
        xlabel = "layer l (audio span of h_l is the donor's)"
        with figure(flips, xlabel=xlabel, ylabel="flip rate (share of pairs)", caption=counts) as axes:
            curve(axes, layers, "flip_to_target", color=COLORS[kind], label=f"to target (donor's {NAMES[kind]})")
            curve(axes, layers, "flip_from_base", color=COLORS["other"], label="from recipient's own answer", dashed=True)
            level(axes, first.floor, "floor: recipient says target unpatched")
            axes.set_ylim(-0.03, 1.03)
            unreachable(axes, layers)
        with figure(deltas, xlabel=xlabel, ylabel="Δ target logit (patched − base)", caption=counts) as axes:
            curve(axes, layers, "delta_logit", color=COLORS[kind], label=f"logit of the donor's {NAMES[kind]}")
            level(axes, 0, "no effect")
            unreachable(axes, layers)
    return written


def unreachable(axes: Axes, layers: pd.DataFrame) -> None:
    """Shade the layers at which a patch cannot reach the answer, so that nobody reads a finding there."""
    shared = layers.layer[layers.kv_shared == 1]
    if len(shared):
        shade(axes, shared.min(), shared.max(), "blocks read earlier keys: no effect by construction")
