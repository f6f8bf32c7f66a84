"""Draw the patching figures from the run's tables."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from common.plotting import COLORS, FAINT, INK, Look, controls, curve, figure, landmark, level, panels, resampled, shade
from common.running.output import read_table

NAMES = {"semantic": "words", "prosody": "voice"}
EDIT_CONTROLS = {"random_subspace": ":", "whole": "--", "same_labels_donor": "-."}
EDIT_NAMES = {"random_subspace": "random subspace", "whole": "whole state", "same_labels_donor": "same labels"}
XLABEL = "layer l (audio span of h_l is the donor's)"


def figure_names(kind: str) -> tuple[str, str, str]:
    return f"flip_rate_curve_{kind}.png", f"delta_logit_curve_{kind}.png", f"span_and_tail_curve_{kind}.png"


def paired_name(kind: str) -> str:
    return f"paired_curve_{kind}.png"


def plot_run(run: Path, out: Path, look: Look) -> list[str]:
    """Write the figures of a run, whatever it did to the states."""
    return (plot_patching if (run / "release_layer.csv").exists() else plot_edits)(run, out, look)


def plot_patching(run: Path, out: Path, look: Look) -> list[str]:
    """Write the figures into `out` from the tables of a `run`; return their names."""
    layers, contrast, release, paired = (read_table(run, name) for name in ("layers", "contrast", "release_layer", "paired"))
    written: list[str] = []
    for kind, of_kind in layers.groupby("kind", sort=False):
        others = {str(name): t for name, t in of_kind[of_kind.control != "none"].groupby("control", sort=False)}
        real, names = of_kind[of_kind.control == "none"], figure_names(str(kind))
        stop = release[(release.kind == kind) & (release.control == "none")].iloc[0]
        _plot_kind(str(kind), real, others, stop, [out / n for n in names], look)
        written += names
        differences = paired[(paired.kind == kind) & (paired.outcome == "flips")]
        if len(differences):
            _plot_paired(str(kind), differences, out / paired_name(str(kind)), look)
            written.append(paired_name(str(kind)))
    both = contrast[contrast.control == "none"]
    if len(both):
        caption = _caption("n = {n} pairs of both kinds", both, {}, look)
        ylabel = look.say("semantic − prosody (share)")
        with figure(out / "contrast_curve.png", look, xlabel=look.say(XLABEL), ylabel=ylabel, caption=caption) as axes:
            curve(axes, both, "flip_to_target", color=INK, name=look.say("flips to\ntarget"))
            level(axes, 0, look.say("alike"))
        written.append("contrast_curve.png")
    return written


def edit_figure(layers: pd.DataFrame) -> str:
    return f"{layers.intervention.iloc[0]}_curve.png"


def plot_edits(run: Path, out: Path, look: Look) -> list[str]:
    """Write the figure of a run of edits: what they do, beside their controls, and what label the subspace tells."""
    layers = read_table(run, "layers")
    erased, real = layers.intervention.iloc[0] == "erase", layers[layers.control == "none"]
    outcome = "flip_from_base" if erased else "flip_to_target"
    shown = {
        outcome: look.say("answers that change\n(share)" if erased else "flips to target\n(share)"),
        "delta_logit": look.say("Δ label's logit\n(edited − base)"),
        "told": look.say("label told by\nthe subspace (share)"),
    }
    xlabel = look.say(f"layer l ({'last position' if real['at'].iloc[0] == 'last' else 'audio span'} of h_l is edited)")
    each = "{n} conflict clips" if erased else "{n} pairs of a kind"
    caption = "n = " + look.say(each, n=int(real.n.min())) + "; " + resampled(real.iloc[0], look)
    with panels(out / edit_figure(layers), look, list(shown.values()), xlabel=xlabel, caption=caption) as all_axes:
        for axes, column in zip(all_axes, shown):
            for kind, of_kind in _by(layers, "kind"):
                tables = dict(_by(of_kind, "control"))
                if column == "told":
                    tables = {name: t[t["rank"] > 0] for name, t in tables.items()}  # where nothing varies there is no subspace
                curve(axes, tables["none"], column, color=COLORS[kind], name=look.say(NAMES[kind]))
                for control, style in EDIT_CONTROLS.items():
                    if control in tables and column != "told":
                        axes.plot(
                            tables[control].layer, tables[control][column], color=COLORS[kind], linestyle=style, linewidth=1.3
                        )
            if column == "told":
                level(axes, real.chance.iloc[0], look.say("chance"))
            if column != "delta_logit":
                axes.set_ylim(-0.03, 1.03)
        for control, style in EDIT_CONTROLS.items():
            if (layers.control == control).any():
                all_axes[0].plot([], [], color=FAINT, linestyle=style, linewidth=1.3, label=look.say(EDIT_NAMES[control]))
    return [edit_figure(layers)]


def _by(table: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), rows) for name, rows in table.groupby(column, sort=False)]


def _caption(what: str, real: pd.DataFrame, others: dict[str, pd.DataFrame], look: Look) -> str:
    first = real.iloc[0]
    sizes = sorted({int(table.n.iloc[0]) for table in others.values()})  # a donor of the same labels may be missing
    beside = look.say(", {n} of each control", n="–".join(map(str, sizes[:1] + sizes[1:][-1:]))) if others else ""
    return look.say(what, n=int(first.n)) + beside + "; " + resampled(first, look)


def _plot_kind(
    kind: str, real: pd.DataFrame, others: dict[str, pd.DataFrame], stop: pd.Series, paths: list[Path], look: Look
) -> None:
    say, color, first = look.say, COLORS[kind], real.iloc[0]
    caption = _caption(f"n = {{n}} {kind} pairs", real, others, look)
    with figure(paths[0], look, xlabel=say(XLABEL), ylabel=say("flip rate (share of pairs)"), caption=caption) as axes:
        curve(axes, real, "flip_to_target", color=color, name=say("to target"))
        curve(axes, real, "flip_from_base", color=COLORS["other"], name=say("from base"), style="--")
        controls(axes, others, "flip_to_target", look)
        level(axes, first.floor, say("unpatched"))
        axes.set_ylim(-0.03, 1.03)
        _unreachable(axes, real, look)
    with figure(paths[1], look, xlabel=say(XLABEL), ylabel=say("Δ target logit (patched − base)"), caption=caption) as axes:
        curve(axes, real, "delta_logit", color=color, name=say(f"donor's\n{NAMES[kind]}"))
        controls(axes, others, "delta_logit", look)
        level(axes, 0, say("no effect"))
        ends = "" if pd.isna(stop.crossing) else f"{stop.crossing:.1f} [{stop.crossing_lo:.1f}, {stop.crossing_hi:.1f}]"
        landmark(axes, stop.crossing, stop.crossing_lo, stop.crossing_hi, say("below half from l = {ends}", ends=ends))
        _unreachable(axes, real, look)
    xlabel = say("layer l (span from the donor, tail from the recipient)")
    with figure(paths[2], look, xlabel=xlabel, ylabel=say("share of pairs"), caption=caption) as axes:
        curve(axes, real, "answer_donor", color=color, name=say("donor's\nanswer"))
        curve(axes, real, "answer_recipient", color=INK, name=say("recipient's\nanswer"), style="--")
        axes.set_ylim(-0.03, 1.03)
        _unreachable(axes, real, look)


def _plot_paired(kind: str, differences: pd.DataFrame, path: Path, look: Look) -> None:
    """Draw flips to the target minus those of each control donor on the same pairs; the first control with interval and band."""
    others = {str(name): t for name, t in differences.groupby("control_donor", sort=False)}
    name = next(iter(others))
    caption = _caption(f"n = {{n}} {kind} pairs", others[name], {}, look)
    ylabel = look.say("flips, donor − control (share)")
    with figure(path, look, xlabel=look.say(XLABEL), ylabel=ylabel, caption=caption) as axes:
        curve(
            axes,
            others.pop(name),
            "difference",
            color=COLORS[kind],
            name=look.say(f"minus\n{name.replace('_', ' ').removesuffix(' donor')}"),
        )
        controls(axes, others, "difference", look)
        level(axes, 0, look.say("no more"))


def _unreachable(axes: Axes, layers: pd.DataFrame, look: Look) -> None:
    """Shade the layers at which a patch cannot reach the answer, so that nobody reads a finding there."""
    shared = layers.layer[layers.kv_shared == 1]
    if len(shared):
        shade(axes, shared.min(), shared.max(), look.say("reads earlier keys: no effect possible"))
