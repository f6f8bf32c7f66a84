"""Draw the heat map of a components run."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from common.clips.pairs import CUES
from common.plotting import FigureStyle, figure
from common.run.run_folder import read_table

FIGURE = "components_heatmap.png"
NAMES = {"attention": "all", "attention_tail": "all, tail", "mlp_tail": "MLP, tail", "mlp": "MLP"}
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
        sheet = panels[0].get_figure()
        sheet.colorbar(picture, ax=panels, label=style.say("rise of the donor's label (logits)"))  # type: ignore[union-attr]
    return [FIGURE]


def _heatmap(axes: Axes, effects: pd.DataFrame, most: float, style: FigureStyle) -> AxesImage:
    """Draw the effects of one kind of pair, [block, part], between -most and most; return the picture."""
    heads = [p for p in dict.fromkeys(effects.part) if p not in LAST]
    parts = [*heads, *(p for p in LAST if (effects.part == p).any())]
    grid = effects.pivot(index="layer", columns="part", values="effect_logit")[parts]
    picture = axes.imshow(np.asarray(grid), cmap="PRGn", vmin=-most, vmax=most, aspect="auto", origin="lower")
    axes.axvline(len(heads) - 0.5, color="black", linewidth=0.8)
    names = [style.say(NAMES[p]) if p in NAMES else p.removeprefix("head_") for p in parts]
    axes.set_xticks(range(len(parts)), names, rotation=90)
    step = max(1, len(grid) // 15)
    axes.set_yticks(range(0, len(grid), step), [str(block) for block in grid.index[::step]])
    axes.set_xlabel(style.say("head, all heads together, MLP"))
    return picture
