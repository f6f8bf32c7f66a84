"""Draw what can be decoded of words and voice from the log-mel spectrum to the decoder's last layer."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from common.plotting import COLORS, FAINT, FigureStyle, curve, figure, legend_above, level, name_curves
from common.run.run_folder import read_table
from logit_lens.plots import NAMES

CURVE = "encoder_curve.png"
CONTROLS = {"random_weights": ("random weights", "-"), "duration_and_level": ("duration and level", "-.")}


def plot_stages(run: Path, out: Path, style: FigureStyle) -> list[str]:
    """Write the figure from stages.csv of a `run`; return its name, none without that table."""
    stages = read_table(run, "stages") if (run / "stages.csv").exists() else pd.DataFrame()
    if not len(stages):
        return []
    labels = list(stages.label.unique())
    with figure(out / CURVE, style, rows=len(labels), height=0.95) as panels:
        for axes, label in zip(panels, labels):
            _draw(axes, stages[stages.label == label].rename(columns={"place": "layer"}), COLORS[label], style)
            axes.set(ylim=(-0.03, 1.03), ylabel=style.say(f"{NAMES[label]} (share of clips)"))
            name_curves(axes)
            axes.set_xlabel(style.say("stage") if axes is panels[-1] else "")
        legend_above(panels[0])
    return [CURVE]


def _draw(axes: Axes, found: pd.DataFrame, color: str, style: FigureStyle) -> None:
    states = found[found.probe == "states"]
    for name, (label, line) in CONTROLS.items():
        table = found[found.probe == name]
        if len(table):  # duration and level are the same at all stages
            accuracy = np.broadcast_to(table.accuracy, len(states))
            axes.plot(states.layer, accuracy, color=FAINT, linestyle=line, linewidth=0.8, zorder=1, label=style.say(label))
    curve(axes, states, "accuracy", color=color, name=style.say("probe"))
    level(axes, states.chance.iloc[0], style.say("chance"))
    decoder = states[states.stage.str.startswith("h_")]
    axes.axvline(decoder.layer.iloc[0] - 0.5, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_xlim(-0.5, len(states) - 0.5)
    ends = (states.iloc[0], decoder.iloc[0], decoder.iloc[-1])  # those of the encoder would not have room
    axes.set_xticks([row.layer for row in ends], ["mel", *(row.stage.replace("_", "") for row in ends[1:])])
