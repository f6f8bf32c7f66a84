"""Draw the figures of a lens run."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from common.clips.pairs import CUES
from common.plotting import (
    COLORS,
    FAINT,
    INK,
    FigureStyle,
    curve,
    figure,
    legend_above,
    level,
    mark_layers,
    name_curves,
    over_layers,
    thin,
)
from common.run.run_folder import read_table

WINRATE, MARGIN, PROBE = "winrate_curve_conflict.png", "margin_curve_conflict.png", "probe_curve.png"
PROBE_CONTROLS = {  # (probe, position): name, style
    ("random_weights", "span"): ("random weights", "-"),
    ("random_weights", "last"): ("random weights, last token", "--"),
    ("duration_and_level", "clip"): ("duration and level", "-."),
    ("permuted", "span"): ("permuted labels", ":"),
}
NAMES = CUES | {"other": "neither"}


def plot_lens(run: Path, out: Path, style: FigureStyle) -> list[str]:
    """Write the figures into `out` from the tables of a `run`; return their names."""
    layers, congruent = read_table(run, "layers"), read_table(run, "congruent")
    with figure(out / WINRATE, style) as (axes,):
        draw_win_rates(axes, layers, congruent, style)
    with figure(out / MARGIN, style) as (axes,):
        draw_margin(axes, layers, style)
    return [WINRATE, MARGIN, *plot_probe(run, out, style)]


def draw_win_rates(axes: Axes, layers: pd.DataFrame, congruent: pd.DataFrame, style: FigureStyle) -> None:
    """Draw whose label the answer would be at each layer, and how often congruent clips are right."""
    for outcome, color in COLORS.items():
        name, line = style.say(NAMES[outcome]), "--" if outcome == "other" else "-"
        curve(axes, layers, f"win_{outcome}", color=color, name=name, style=line)
    if len(congruent):
        thin(axes, congruent, "accuracy", color=INK, name=style.say("congruent\nclips right"))
    axes.set(ylim=(-0.03, 1.03), ylabel=style.say("win rate (share of clips)"))
    over_layers(axes, layers.layer, style)
    name_curves(axes)
    _hatch_unreadable(axes, layers, style)


def draw_margin(axes: Axes, layers: pd.DataFrame, style: FigureStyle) -> None:
    """Draw the mean margin; above 0 the voice is ahead, below 0 the words."""
    curve(axes, layers, "margin", color=INK)
    low, high = layers.margin_lo.fillna(layers.margin).min(), layers.margin_hi.fillna(layers.margin).max()
    reach = 1.15 * max(abs(low), abs(high), 0.1)
    level(axes, 0)
    for side, kind, text, place in ((1, "prosody", "voice ahead", 0.83), (-1, "semantic", "words ahead", 0.05)):
        axes.axhspan(0, side * reach, color=COLORS[kind], alpha=0.07, linewidth=0, zorder=0)
        axes.text(0.02, place, style.say(text), transform=axes.transAxes, color=COLORS[kind], fontsize=8)
    axes.set(ylim=(-reach, reach), ylabel=style.say("margin (logits)"))
    over_layers(axes, layers.layer, style)
    _hatch_unreadable(axes, layers, style)


def _hatch_unreadable(axes: Axes, layers: pd.DataFrame, style: FigureStyle) -> None:
    mark_layers(axes, layers, layers.readable == 0, style.say("lens not informative"), hatch="////")


def plot_probe(run: Path, out: Path, style: FigureStyle) -> list[str]:
    """Write how well a probe decodes words and voice beside how often they are answered; return the name, none without probe."""
    found = read_table(run, "probe") if (run / "probe.csv").exists() else pd.DataFrame()
    if not len(found):
        return []
    labels = list(found.label.unique())
    with figure(out / PROBE, style, rows=len(labels), height=0.95) as panels:
        for axes, label in zip(panels, labels):
            of_label = {(str(probe), str(at)): t for (probe, at), t in found[found.label == label].groupby(["probe", "position"])}
            _draw_probe(axes, of_label, COLORS[label], style)
            axes.set(ylim=(-0.03, 1.03), ylabel=style.say(f"{NAMES[label]} (share of clips)"))
            over_layers(axes, found.layer.dropna(), style)
            name_curves(axes)
            axes.set_xlabel(style.say("layer l") if axes is panels[-1] else "")
        legend_above(panels[0])
    return [PROBE]


def _draw_probe(axes: Axes, tables: dict[tuple[str, str], pd.DataFrame], color: str, style: FigureStyle) -> None:
    span, last = tables["states", "span"], tables["states", "last"]
    for place, (name, line) in PROBE_CONTROLS.items():
        if place in tables:  # a probe without layers is the same at all of them
            accuracy = np.broadcast_to(tables[place].accuracy, len(last))
            axes.plot(last.layer, accuracy, color=FAINT, linestyle=line, linewidth=0.8, zorder=1, label=style.say(name))
    curve(axes, span, "accuracy", color=color, name=style.say("probe,\naudio span"))
    curve(axes, last, "accuracy", color=color, name=style.say("probe,\nlast token"), style="--")
    axes.axhline(last.answered.iloc[-1], color=INK, linewidth=0.8, gid=style.say("answered"))
    level(axes, span.chance.iloc[0], style.say("chance"))
