"""Draw the figures of a scale run from its tables."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from activation_patching.scale.curves import OWN
from common.clips.pairs import CUES
from common.plotting import COLORS, FAINT, INK, FigureStyle, colorbar, curve, figure, heatmap, legend_below, name_curves
from common.run.run_folder import read_table

CURVE, HEATMAP = "scale_curve.png", "scale_heatmap.png"
SUBSPACES = {"prosody": "voice's subspace scaled", "semantic": "words' subspace scaled"}
ANSWERS = {"words": ("semantic", "words'"), "voice": ("prosody", "voice's"), "neither": ("other", "neither")}


def plot_run(run: Path, out: Path, style: FigureStyle) -> list[str]:
    """Write the figures into `out`; the curve only where layers could be chosen on one half of the texts for the other."""
    _plot_heatmap(read_table(run, "scale"), out / HEATMAP, style)
    if not len(curve := read_table(run, "curve")):
        return [HEATMAP]
    _plot_curve(curve, out / CURVE, style)
    return [CURVE, HEATMAP]


def _plot_curve(table: pd.DataFrame, path: Path, style: FigureStyle) -> None:
    """Draw over the factors whose label is the answer, and what it costs, at the layer that the other half of the texts chose."""
    with figure(path, style, columns=2, height=1.25) as panels:
        for axes, (kind, title) in zip(panels, SUBSPACES.items()):
            of_kind = table[table.kind == kind]
            own = of_kind[of_kind.control == OWN].sort_values("factor")
            places = np.arange(len(own))
            for column, (colour, name) in ANSWERS.items():
                curve(axes, own.assign(layer=places), column, color=COLORS[colour], name=style.say(name))
            random = of_kind[of_kind.control == "random_subspace"].set_index("factor").reindex(own.factor)
            axes.plot(places, random[CUES[kind]], color=COLORS[kind], linestyle=":", linewidth=0.9)
            axes.plot([], [], color=FAINT, linestyle=":", linewidth=0.9, label=style.say("random subspace"))
            costs = {
                "congruent": ("congruent clips right", "--"),
                "asked_other": ("asked for the other cue, right", "-."),
                "word_error_rate": ("words transcribed wrongly", "x-"),
            }
            for column, (name, line) in costs.items():
                if column in own and own[column].notna().any():
                    axes.plot(places, own[column], line, color=INK, markersize=3, linewidth=0.8, label=style.say(name))
            axes.set(ylim=(-0.03, 1.03), xlabel=style.say("factor a, of {n} conflict clips", n=int(own.n.max())))
            axes.set_xticks(places, [f"{a:g}".replace("-", "−") for a in own.factor])
            axes.set_title(style.say(title), loc="left")
            name_curves(axes)
        panels[0].set_ylabel(style.say("share of clips, or of words"))
        legend_below(panels[0])


def _plot_heatmap(scale: pd.DataFrame, path: Path, style: FigureStyle) -> None:
    """Draw the share of answers with the scaled cue's label, layer x factor, words and voice side by side on one scale."""
    with figure(path, style, columns=2, height=1.5) as panels:
        for axes, (kind, title) in zip(panels, SUBSPACES.items()):
            picture = _heatmap(axes, scale[(scale.kind == kind) & (scale.control == OWN)], CUES[kind], style)
            axes.set_title(style.say(title), loc="left")
        panels[0].set_ylabel(style.say("layer l"))
        colorbar(panels, picture, style.say("answers with this cue's label"))


def _heatmap(axes: Axes, table: pd.DataFrame, cue: str, style: FigureStyle) -> AxesImage:
    grid = table.pivot(index="layer", columns="factor", values=cue)
    picture = heatmap(axes, grid, [f"{a:g}" for a in grid.columns], cmap="viridis", vmin=0, vmax=1)
    axes.set_xlabel(style.say("factor a"))
    return picture
