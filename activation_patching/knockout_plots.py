"""Draw the figure of a knockout run from its tables."""

from pathlib import Path

from common.plotting import COLORS, FAINT, Look, curve, figure, level, name_curves, over_layers
from common.running.output import read_table

FIGURE = "knockout_curve.png"
STYLES = {"from": "-", "up_to": "--"}  # kinds of windows that are drawn; those around l are in the table
WINDOWS = {"from": "in blocks from l on", "up_to": "in blocks up to l"}
CUES = {"semantic": "words", "prosody": "voice"}
EDGES = {
    "audio_to_question": "audio hidden from the question",
    "audio_to_last": "audio hidden from the last token",
    "question_to_last": "question hidden from the last token",
    "audio_to_all": "audio hidden from both",
    "prefix_to_all": "control: prefix hidden from both",
}


def plot_run(run: Path, out: Path, look: Look) -> list[str]:
    """Write the figure into `out`: how far the answer depends on words and voice, an edge below the other, over the layers."""
    effects = read_table(run, "effects")
    edges, styles = list(dict.fromkeys(effects.edge)), {w: style for w, style in STYLES.items() if (effects.window == w).any()}
    with figure(out / FIGURE, look, rows=(len(edges) + 1) // 2, columns=2, height=0.8) as panels:
        for axes, edge in zip(panels, edges):
            for window, style in styles.items():
                for kind, cue in CUES.items():
                    chosen = effects[(effects.edge == edge) & (effects.window == window) & (effects.kind == kind)]
                    name = look.say(cue) if window == next(iter(styles)) else ""
                    curve(axes, chosen, "dependence", color=COLORS[kind], name=name, style=style)
            level(axes, 0)
            axes.set(ylim=(-0.35, 1.05), ylabel=look.say("dependence"))
            axes.set_title(look.say(EDGES[edge]), loc="left")
            over_layers(axes, effects.layer, look)
            name_curves(axes)
        for axes in panels[len(edges) :]:
            axes.set_visible(False)
        for window, style in styles.items():
            panels[0].plot([], [], color=FAINT, linestyle=style, label=look.say(WINDOWS[window]))
        panels[0].legend(loc="lower left", ncols=2)
    return [FIGURE]
