"""Draw the figures of span and exchange runs."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from common.clips.pairs import CUES, DISTURBANCES
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
from common.run.run_folder import read_record, read_table

DONORS = {"same_labels_donor": ("same labels", "-"), "silence": ("silence", ":")}
SUBSPACES = {"random_subspace": ("random subspace", ":"), "whole": ("whole state", "--")}
EXCHANGE = "exchange_curve.png"
PLATEAU = 0.2  # of the layers: where curves are named, before they fall
Tables = Mapping[str, pd.DataFrame]


def figure_names(kind: str) -> tuple[str, str]:
    return f"flip_rate_curve_{kind}.png", f"delta_logit_curve_{kind}.png"


def plot_run(run: Path, out: Path, style: FigureStyle) -> list[str]:
    """Write the figures of a run into `out`, whatever it did to the states; return their names."""
    if read_record(run)["identity"].get("intervention", "span") == "exchange":
        return plot_exchange(read_table(run, "layers"), out, style)
    tables = {name: read_table(run, name) for name in ("layers", "effects", "summary")}
    written: list[str] = []
    for kind in tables["effects"].kind.unique():
        for name, draw in zip(figure_names(kind), (draw_flips, draw_delta)):
            with figure(out / name, style) as (axes,):
                draw(axes, tables, str(kind), style)
            written.append(name)
    return written


def draw_flips(axes: Axes, tables: Tables, kind: str, style: FigureStyle) -> None:
    """Draw how many answers become the target, change at all, or become a label that neither clip names."""
    real, effects, donors = _of_kind(tables, kind)
    thin(axes, real, "flip_from_base", color=COLORS["other"], name=style.say("from base"), style="--")
    curve(axes, real, "flip_to_target", color=COLORS[kind], name=style.say("to target"))
    thin(axes, effects, "to_third", color=INK, name=style.say(_baseline(tables, kind)))
    _draw_donors(axes, donors, "flip_to_target", style)
    axes.set(ylim=(-0.13, 1.03), ylabel=style.say("flip rate (share of pairs)"))
    over_layers(axes, tables["layers"].layer, style)
    name_curves(axes, at=PLATEAU)
    _shade_unreachable(axes, real, style)


def draw_delta(axes: Axes, tables: Tables, kind: str, style: FigureStyle) -> None:
    """Draw what a patch adds to the logit of the target and of third labels; kinds of pairs on one scale."""
    real, effects, donors = _of_kind(tables, kind)
    level(axes, 0)
    curve(axes, real, "delta_logit", color=COLORS[kind], name=style.say("target"))
    thin(axes, effects, "logit_third", color=INK, name=style.say(_baseline(tables, kind)))
    _draw_donors(axes, donors, "delta_logit", style)
    axes.set(ylim=_delta_limits(tables), ylabel=style.say("Δ logit (patched − base)"))
    over_layers(axes, tables["layers"].layer, style)
    name_curves(axes, at=PLATEAU)
    _shade_unreachable(axes, real, style)


def _of_kind(tables: Tables, kind: str) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return the layers of the pairs, their effects, and the layers of each control donor, without l = L.

    There a patch changes nothing, by construction.
    """
    layers, effects = (t[(t.kind == kind) & (t.layer < t.layer.max())] for t in (tables["layers"], tables["effects"]))
    controls = {name: layers[layers.control == name] for name in DISTURBANCES}
    return layers[layers.control == "none"], effects, {name: t for name, t in controls.items() if len(t)}


def _baseline(tables: Tables, kind: str) -> str:
    found = tables["summary"]
    return "third labels" if not len(found) else str(found[found.kind == kind].baseline.iloc[0])


def _delta_limits(tables: Tables) -> tuple[float, float]:
    layers, thirds = tables["layers"], tables["effects"].logit_third
    values = pd.concat([layers.delta_logit, layers.delta_logit_lo, layers.delta_logit_hi, thirds, pd.Series([0.0])])
    margin = 0.12 * max(values.max() - values.min(), 0.1)
    return values.min() - margin, values.max() + margin


def _draw_donors(axes: Axes, donors: Mapping[str, pd.DataFrame], column: str, style: FigureStyle) -> None:
    for control, table in donors.items():
        name, line = DONORS[control]
        axes.plot(table.layer, table[column], color=FAINT, linestyle=line, linewidth=0.8, zorder=1, label=style.say(name))
    legend_above(axes)


def _shade_unreachable(axes: Axes, layers: pd.DataFrame, style: FigureStyle) -> None:
    """Shade the layers at which a patch cannot reach the answer, so that nobody reads a finding there."""
    mark_layers(axes, layers, layers.kv_shared == 1, style.say("earlier keys: no effect possible"))


def plot_exchange(layers: pd.DataFrame, out: Path, style: FigureStyle) -> list[str]:
    """Write the figure of a run that exchanged a subspace: flips to the target, and how well the subspace decodes."""
    with figure(out / EXCHANGE, style, rows=2, height=0.9) as (above, below):
        for kind, of_kind in layers[layers.layer < layers.layer.max()].groupby("kind", sort=False):
            _draw_subspace(above, below, {str(c): t for c, t in of_kind.groupby("control")}, str(kind), style)
        for control, (text, line) in ({"none": ("the label's subspace", "-")} | SUBSPACES).items():
            if (layers.control == control).any():
                above.plot([], [], color=FAINT, linestyle=line, label=style.say(text))
        level(below, layers.chance.iloc[0], style.say("chance"))
        above.set(ylim=(-0.03, 1.03), ylabel=style.say("flips to target (share)"))
        below.set(ylim=(-0.03, 1.03), ylabel=style.say("decoded (share)"))
        legend_above(above)
        for axes in (above, below):
            over_layers(axes, layers.layer, style)
            name_curves(axes)
        above.set_xlabel("")
    return [EXCHANGE]


def _draw_subspace(above: Axes, below: Axes, controls: Mapping[str, pd.DataFrame], kind: str, style: FigureStyle) -> None:
    color, name = COLORS[kind], style.say(CUES[kind])
    curve(above, controls["none"], "flip_to_target", color=color, name=name)
    for control, (_, line) in SUBSPACES.items():
        if control in controls:
            thin(above, controls[control], "flip_to_target", color=color, style=line)
    some = controls["none"]["rank"] > 0  # where nothing varies there is no subspace
    curve(below, controls["none"][some], "decoded", color=color, name=name)
