"""Draw the figure of a components run from its tables."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from common.plotting import Look, families, save
from common.running.output import read_table

FIGURE = "components_heatmap.png"
CUES = {"semantic": "words", "prosody": "voice"}
NAMES = {"attention": "all", "attention_tail": "all, tail", "mlp_tail": "MLP, tail", "mlp": "MLP"}
LAST = ("attention", "attention_tail", "mlp_tail", "mlp")


def plot_run(run: Path, out: Path, look: Look) -> list[str]:
    """Write the figure into `out`: block x part, words and voice side by side, on one colour scale."""
    effects = read_table(run, "effects")
    kinds = list(dict.fromkeys(effects.kind))
    most = float(np.nanmax(effects.effect_logit.abs())) or 1.0
    with matplotlib.rc_context({"font.family": families(), "font.size": 11, "savefig.dpi": 200}):
        sheet = Figure(figsize=(4.6 * len(kinds) + 0.8, 7.0), layout="constrained")
        all_axes = sheet.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(all_axes, kinds):
            picture = _heatmap(axes, effects[effects.kind == kind], most, look)
            axes.set_title(look.say(CUES[kind]))
        all_axes[0].set_ylabel(look.say("block"))
        sheet.colorbar(picture, ax=list(all_axes), label=look.say("rise of the donor's label beyond third labels (logits)"))
        sheet.supxlabel(
            f"{look.say('n = {n} pairs of a kind', n=int(effects.n.min()))}\n{look.subtitle}", fontsize=9, color="#555555"
        )
        for file in (out / FIGURE, *([(out / FIGURE).with_suffix(".svg")] if look.svg else [])):
            save(sheet, file)
    return [FIGURE]


def _heatmap(axes: Axes, effects: pd.DataFrame, most: float, look: Look) -> AxesImage:
    """Draw the effects of one kind of pair, [block, part], between -most and most; return the picture."""
    parts = [*(p for p in dict.fromkeys(effects.part) if p not in LAST), *LAST]
    grid = effects.pivot(index="layer", columns="part", values="effect_logit")[parts]
    picture = axes.imshow(grid, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", origin="lower", interpolation="nearest")
    heads = len(parts) - len(LAST)
    axes.axvline(heads - 0.5, color="black", linewidth=0.8)
    axes.set_xticks(
        range(len(parts)), [look.say(NAMES[p]) if p in NAMES else p.removeprefix("head_") for p in parts], rotation=90
    )
    axes.set_yticks(range(0, len(grid), max(1, len(grid) // 15)), grid.index[:: max(1, len(grid) // 15)])
    axes.set_xlabel(look.say("head, all heads of the attention, MLP"))
    return picture
