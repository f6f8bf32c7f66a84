"""Draw the patching figures from the run's tables."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from common.plotting import COLORS, CONTROL_COLORS, NAMES, curve, faint, figure, landmark, level, resampled, shade

CONTROL_NAMES = {"same_labels_donor": "same labels", "random_donor": "random donor", "silence": "silence", "itself": "itself"}
XLABEL = "layer l (audio span of h_l is the donor's)"


def figure_names(kind: str) -> tuple[str, str, str]:
    return f"flip_rate_curve_{kind}.png", f"delta_logit_curve_{kind}.png", f"span_and_tail_curve_{kind}.png"


def paired_name(kind: str) -> str:
    return f"paired_curve_{kind}.png"


def plot_patching(out: Path, *, subtitle: str) -> list[str]:
    """Write the figures into `out` from its tables; return their names. `subtitle` names model and prompt."""
    tables = {name: pd.read_csv(out / f"{name}.csv") for name in ("layers", "contrast", "release_layer", "paired")}
    layers, contrast, until, paired = tables.values()
    written: list[str] = []
    for kind, of_kind in layers.groupby("kind", sort=False):
        real, of_controls = of_kind[of_kind.control == "none"], of_kind[of_kind.control != "none"]
        others = dict(list(of_controls.groupby("control", sort=False)))
        stop = until[(until.kind == kind) & (until.control == "none")].iloc[0]
        names = figure_names(kind)
        _plot_kind(kind, real, others, stop, [out / n for n in names], _caption(f"{kind} pairs", real, others, subtitle))
        written += names
        differences = paired[(paired.kind == kind) & (paired.outcome == "flips")]
        if len(differences):
            _plot_paired(kind, differences, out / paired_name(kind), subtitle)
            written.append(paired_name(kind))
    both = contrast[contrast.control == "none"]
    if len(both):
        with figure(
            out / "contrast_curve.png",
            xlabel=XLABEL,
            ylabel="semantic − prosody pairs (share)",
            caption=_caption("pairs of both kinds", both, {}, subtitle),
        ) as axes:
            curve(axes, both, "flip_to_target", color="#000000", label="flip to target, semantic − prosody pairs")
            level(axes, 0, "both cues carried alike")
        written.append("contrast_curve.png")
    return written


def _caption(what: str, real: pd.DataFrame, others: dict[str, pd.DataFrame], subtitle: str) -> str:
    first = real.iloc[0]
    sizes = sorted({int(table.n.iloc[0]) for table in others.values()})  # a donor of the same labels may be missing
    beside = f", {' to '.join(map(str, sizes[:1] + sizes[1:][-1:]))} of each control" if others else ""
    return f"n = {first.n} {what}{beside}, {first.n_texts} texts\n{resampled(first.clusters)}\n{subtitle}"


def _plot_kind(
    kind: str, real: pd.DataFrame, others: dict[str, pd.DataFrame], stop: pd.Series, paths: list[Path], caption: str
) -> None:
    color, first = COLORS[kind], real.iloc[0]
    with figure(paths[0], xlabel=XLABEL, ylabel="flip rate (share of pairs)", caption=caption, legend_columns=2) as axes:
        curve(axes, real, "flip_to_target", color=color, label=f"to target (donor's {NAMES[kind]})")
        curve(axes, real, "flip_from_base", color=COLORS["other"], label="from recipient's answer", style="--")
        _controls(axes, others, "flip_to_target")
        level(axes, first.floor, "floor: recipient unpatched")
        axes.set_ylim(-0.03, 1.03)
        _unreachable(axes, real)
    with figure(paths[1], xlabel=XLABEL, ylabel="Δ target logit (patched − base)", caption=caption, legend_columns=2) as axes:
        curve(axes, real, "delta_logit", color=color, label=f"logit of donor's {NAMES[kind]}")
        _controls(axes, others, "delta_logit")
        level(axes, 0, "no effect")
        landmark(axes, stop, "crossing", "under half from here, with interval")
        _unreachable(axes, real)
    with figure(
        paths[2], xlabel="layer l (span from the donor, tail from the recipient)", ylabel="share of pairs", caption=caption
    ) as axes:
        curve(axes, real, "answer_donor", color=color, label="donor's answer: the span decides")
        curve(axes, real, "answer_recipient", color="#000000", label="recipient's answer: the tail decides", style="--")
        axes.set_ylim(-0.03, 1.03)
        _unreachable(axes, real)


def _plot_paired(kind: str, differences: pd.DataFrame, path: Path, subtitle: str) -> None:
    """Draw flips to the target minus those of each control donor on the same pairs; the first control with interval and band."""
    first = differences.iloc[0]
    sizes = sorted({int(n) for n in differences.n})
    caption = f"n = {' to '.join(map(str, sizes[:1] + sizes[1:][-1:]))} {kind} pairs\n{resampled(first.clusters)}\n{subtitle}"
    with figure(path, xlabel=XLABEL, ylabel="flips to target, donor − control (share)", caption=caption) as axes:
        others = dict(list(differences.groupby("control_donor", sort=False)))
        name = next(iter(others))
        curve(axes, others.pop(name), "difference", color=COLORS[kind], label=f"minus {CONTROL_NAMES[name]}")
        _controls(axes, others, "difference", "minus")
        level(axes, 0, "no more than the control")


def _controls(axes: Axes, others: dict[str, pd.DataFrame], column: str, what: str = "control:") -> None:
    for style, (name, color) in zip(("-", "--", "-.", ":"), CONTROL_COLORS.items()):
        if name in others:
            faint(axes, others[name], column, color=color, label=f"{what} {CONTROL_NAMES[name]}", style=style)


def _unreachable(axes: Axes, layers: pd.DataFrame) -> None:
    """Shade the layers at which a patch cannot reach the answer, so that nobody reads a finding there."""
    shared = layers.layer[layers.kv_shared == 1]
    if len(shared):
        shade(axes, shared.min(), shared.max(), "reads earlier keys: no effect possible")
