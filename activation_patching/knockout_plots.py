"""Draw the figure of a knockout run from its tables."""

from pathlib import Path

from common.plotting import COLORS, FAINT, Look, curve, level, panels, resampled
from common.running.output import read_table

FIGURE = "knockout_curve.png"
STYLES = {"from": "-", "up_to": "--"}  # kinds of windows that are drawn; those around l are in the table
WINDOWS = {"from": "from l on", "up_to": "up to l"}
CUES = {"semantic": "words", "prosody": "voice"}
EDGES = {
    "audio_to_question": "audio hidden\nfrom question",
    "audio_to_last": "audio hidden\nfrom last token",
    "question_to_last": "question hidden\nfrom last token",
    "audio_to_all": "audio hidden\nfrom both",
    "prefix_to_all": "prefix hidden\nfrom both",
}


def plot_run(run: Path, out: Path, look: Look) -> list[str]:
    """Write the figure into `out`: how far the answer depends on words and voice, an edge below the other, over the layers."""
    effects, summary = read_table(run, "effects"), read_table(run, "summary")
    edges = list(dict.fromkeys(effects.edge))
    first = summary.iloc[0] if len(summary) else None
    caption = look.say("dependence of the answer (share); n = {n} conflict clips", n=int(effects.n.iloc[0]))
    caption += "; " + resampled(first, look) if first is not None else ""
    xlabel = look.say("layer l (blocks in which attention is cut)")
    with panels(out / FIGURE, look, [look.say(EDGES[e]) for e in edges], xlabel=xlabel, caption=caption) as all_axes:
        for axes, edge in zip(all_axes, edges):
            for window, style in STYLES.items():
                for kind, cue in CUES.items():
                    chosen = effects[(effects.edge == edge) & (effects.window == window) & (effects.kind == kind)]
                    name = look.say(cue) if window == "from" else ""
                    curve(axes, chosen, "dependence", color=COLORS[kind], name=name, style=style)
            level(axes, 0, "")
        for window, style in STYLES.items():
            all_axes[0].plot([], [], color=FAINT, linestyle=style, linewidth=1.3, label=look.say(WINDOWS[window]))
    return [FIGURE]
