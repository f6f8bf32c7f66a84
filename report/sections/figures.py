"""Draw the report's figures of several tables: panel, alignments, studies side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from activation_patching.span.plots import draw_delta, draw_flips
from activation_patching.span.tables import tables_of
from common.plotting import COLORS, INK, PALETTE, FigureStyle, curve, figure, legend_above, level, over_layers
from common.run.run_folder import finished_run
from logit_lens.plots import draw_margin, draw_win_rates
from report.runs import Outputs, Study

ALIGNMENTS = ("splice", "crop", "stretch")
TITLES = {"lens": "logit lens", "semantic": "semantic pairs", "prosody": "prosody pairs"}


def plot_panel(study: Study, path: Path, style: FigureStyle) -> None:
    """Draw the two figures of the lens and of each kind of pair, a row each; what was not run has no row."""
    tables = study.patching.tables if study.patching else {}
    kinds = [str(kind) for kind in ("semantic", "prosody") if study.patching and (tables["effects"].kind == kind).any()]
    rows = [*(["lens"] if study.lens else []), *kinds]
    with figure(path, style, rows=len(rows), columns=2) as panels:
        for row, left, right in zip(rows, panels[::2], panels[1::2]):
            if row == "lens" and study.lens:
                draw_win_rates(left, study.lens.tables["layers"], study.lens.tables["congruent"], style)
                draw_margin(right, study.lens.tables["layers"], style)
            else:
                draw_flips(left, tables, row, style)
                draw_delta(right, tables, row, style)
        for axes, letter in zip(panels, "abcdef"):
            axes.set_title(f"{letter}  {style.say(TITLES[rows['abcdef'.index(letter) // 2]])}", loc="left", weight="bold")


def plot_alignments(run: Outputs, path: Path, style: FigureStyle) -> tuple[str, int, float] | None:
    """Draw the three alignments on the pairs that all of them have; None where the run's folder has not their runs in align/.

    Return the kind of the pairs, their number, and the largest difference of the flips to those of splice.
    """
    folders = {name: run.folder / "align" / name for name in ALIGNMENTS}
    if not all((place / "run.json").is_file() for place in folders.values()):
        return None
    rows = {name: finished_run(place, "patches.csv")[1] for name, place in folders.items()}
    shared = set.intersection(*(set(r.pair_id[r.control == "none"]) for r in rows.values()))
    tables = {name: tables_of(r[r.pair_id.isin(shared)])["layers"] for name, r in rows.items()}
    first = tables["splice"]
    with figure(path, style) as (axes,):
        for (name, layers), line, color in zip(tables.items(), ("-", "--", ":"), (COLORS[first.kind.iloc[0]], INK, PALETTE[4])):
            curve(axes, layers, "flip_to_target", color=color, style=line)
            axes.lines[-1].set_label(name)
        axes.set(ylim=(-0.03, 1.03), ylabel=style.say("flip rate (share of pairs)"))
        over_layers(axes, first.layer, style)
        legend_above(axes)
    largest = max(float((t.flip_to_target - first.flip_to_target).abs().max()) for t in tables.values())
    return str(first.kind.iloc[0]), int(first.n.iloc[0]), largest


def plot_side_by_side(studies: Mapping[str, Study], path: Path, style: FigureStyle) -> None:
    """Draw the curves of several studies over l / L: the voice's lead, and the flips to the target of each kind."""
    lens = {name: s.lens.tables["layers"] for name, s in studies.items() if s.lens}
    layers = {name: s.patching.tables["layers"] for name, s in studies.items() if s.patching}
    shown: dict[str, tuple[str, dict[str, pd.DataFrame]]] = {"voice − words (share of clips)": ("voice_lead", lens)}
    for kind in ("semantic", "prosody"):
        real = {name: t[(t.kind == kind) & (t.control == "none")] for name, t in layers.items()}
        shown[f"{kind} flips (share of pairs)"] = ("flip_to_target", {name: t for name, t in real.items() if len(t)})
    shown = {ylabel: what for ylabel, what in shown.items() if what[1]}
    with figure(path, style, rows=len(shown), height=0.8) as panels:
        for axes, (ylabel, (column, tables)) in zip(panels, shown.items()):
            _draw_relative(axes, tables, column, dict(zip(studies, PALETTE * len(studies))))
            axes.set_ylabel(style.say(ylabel))
        panels[-1].set_xlabel(style.say("relative depth l / L"))
        legend_above(panels[0])


def _draw_relative(axes: Axes, tables: Mapping[str, pd.DataFrame], column: str, colors: Mapping[str, str]) -> None:
    for name, layers in tables.items():
        depth = layers.assign(layer=layers.layer / max(1, layers.layer.max()))
        curve(axes, depth, column, color=colors[name])
        axes.lines[-1].set_label(name)
    level(axes, 0)
    ticks: Any = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks)
