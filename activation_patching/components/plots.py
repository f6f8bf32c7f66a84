"""Draw the heat map of a components run."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from common.clips.pairs import CUES
from common.plotting import FigureStyle, colorbar, figure, heatmap
from common.run.run_folder import read_table

FIGURE = "components_heatmap.png"
NAMES = {"attention": "attention", "attention_tail": "attention, tail", "mlp_tail": "MLP, tail", "mlp": "MLP"}
LAST = ("attention", "attention_tail", "mlp_tail", "mlp")


def plot_run(run: Path, out: Path, style: FigureStyle) -> list[str]:
    """Write the figure into `out`: block x part, words and voice side by side, on one colour scale."""
    effects = read_table(run, "effects")
    kinds = [str(kind) for kind in dict.fromkeys(effects.kind)]
    largest = effects.effect_logit.abs().max()
    most = float(largest) if largest > 0 else 1.0
    with figure(out / FIGURE, style, columns=len(kinds), height=1.5) as panels:
        for axes, kind in zip(panels, kinds):
            picture = _heatmap(axes, effects[effects.kind == kind], most, style)
            axes.set_title(style.say(CUES[kind]))
        panels[0].set_ylabel(style.say("block"))
        colorbar(panels, picture, style.say("rise of the donor's label (logits)"))
    return [FIGURE]


def _heatmap(axes: Axes, effects: pd.DataFrame, most: float, style: FigureStyle) -> AxesImage:
    """Draw the effects of one kind of pair, [block, part], between -most and most; return the picture."""
    heads = [p for p in dict.fromkeys(effects.part) if p not in LAST]
    parts = [*heads, *(p for p in LAST if (effects.part == p).any())]
    grid = effects.pivot(index="layer", columns="part", values="effect_logit")[parts]
    names = [style.say(NAMES[p]) if p in NAMES else p.removeprefix("head_") for p in parts]
    picture = heatmap(axes, grid, names, cmap="PRGn", vmin=-most, vmax=most)
    axes.axvline(len(heads) - 0.5, color="black", linewidth=0.8)
    axes.tick_params(axis="x", labelrotation=90)
    axes.set_xlabel(style.say("head, attention, MLP"))
    return picture
