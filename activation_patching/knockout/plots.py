"""Draw the figure of a knockout run."""

from pathlib import Path

from common.clips.pairs import CUES
from common.plotting import COLORS, FAINT, FigureStyle, curve, figure, legend_below, level, name_curves, over_layers
from common.run.run_folder import read_table

FIGURE = "knockout_curve.png"
STYLES = {"from": "-", "up_to": "--"}  # kinds of windows that are drawn; those around l are in the table
WINDOWS = {"from": "in blocks from l on", "up_to": "in blocks before l"}
EDGES = {
    "audio_to_question": "audio hidden from the question",
    "audio_to_last": "audio hidden from the last token",
    "question_to_last": "question hidden from the last token",
    "audio_to_all": "audio hidden from both",
    "prefix_to_all": "control: prefix hidden from both",
}


def plot_run(run: Path, out: Path, style: FigureStyle) -> list[str]:
    """Write the figure into `out`: how far the answer depends on words and voice, an edge below the other, over the layers."""
    effects = read_table(run, "effects")
    edges, lines = list(dict.fromkeys(effects.edge)), {w: line for w, line in STYLES.items() if (effects.window == w).any()}
    with figure(out / FIGURE, style, rows=(len(edges) + 1) // 2, columns=2, height=0.85) as panels:
        for axes, edge in zip(panels, edges):
            for window, line in lines.items():
                for kind, cue in CUES.items():
                    chosen = effects[(effects.edge == edge) & (effects.window == window) & (effects.kind == kind)]
                    name = style.say(cue) if window == next(iter(lines)) else ""
                    curve(axes, chosen, "dependence", color=COLORS[kind], name=name, style=line)
            level(axes, 0)
            axes.set(ylim=(-0.13, 1.03), ylabel=style.say("dependence (share)"))
            axes.set_title(style.say(EDGES[edge]), loc="left")
            over_layers(axes, effects.layer, style)
            name_curves(axes)
        for axes in panels[len(edges) :]:
            axes.set_visible(False)
        for window, line in lines.items():
            panels[0].plot([], [], color=FAINT, linestyle=line, label=style.say(WINDOWS[window]))
        legend_below(panels[0])
    return [FIGURE]
