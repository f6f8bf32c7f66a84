"""The look of every figure: the same colour for the same thing everywhere, curves named where they end."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import IO, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from common.files import claim

COLORS = {"semantic": "#0072B2", "prosody": "#D55E00", "other": "#7F7F7F"}  # Okabe & Ito: told apart by colour-blind readers
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # runs side by side
INK = "#222222"
FAINT = "#8A8A8A"  # controls: all alike, told apart by their dashes
CONTROL_STYLES: dict[str, Any] = {
    "same_labels_donor": "-",
    "random_donor": "--",
    "silence": ":",
    "itself": (0, (5, 1, 1, 1, 1, 1)),
}
CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK JP", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "PingFang SC", "Heiti SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Arial Unicode MS"),
)
_NAMED = 12  # font size of a curve's name
_STYLE: Any = {
    "font.size": 14,
    "axes.labelsize": 14,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "legend.handlelength": 2.0,
    "legend.columnspacing": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "lines.linewidth": 2.2,
    "savefig.dpi": 200,
    "text.parse_math": False,  # labels, paths and names are other people's: a $ in them is a $
}


@dataclass(frozen=True)
class Look:
    """What of a figure is not its data: the line that says what was asked of which model, the `words`, whether SVG beside PNG.

    `words` translate the English that the figures are written in; a text that they lack is an error, empty words leave it be.
    """

    subtitle: str = ""
    words: Mapping[str, str] | None = None
    svg: bool = False

    def say(self, text: str, **values: object) -> str:
        """Return a text in the language of the figure, with its `values` filled in."""
        return (self.words[text] if self.words else text).format(**values)


@contextmanager
def drawing(**changes: Any) -> Iterator[None]:
    """Draw in this look, whatever the user's own settings of matplotlib are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"font.family": families()} | changes)
        yield


@contextmanager
def figure(path: Path, look: Look, *, xlabel: str, ylabel: str, caption: str) -> Iterator[Axes]:
    """Give one panel to draw on; write it to `path`, curves named at their ends, and `caption` below."""
    with panels(path, look, [ylabel], xlabel=xlabel, caption=caption) as (axes,):
        yield axes


@contextmanager
def panels(path: Path, look: Look, ylabels: list[str], *, xlabel: str, caption: str) -> Iterator[list[Axes]]:
    """Give panels over the same layers, one below the other, to draw on; written as `figure` does."""
    with drawing():
        sheet = Figure(figsize=(7.0, 3.2 + 1.7 * len(ylabels)), layout="constrained")
        all_axes = list(sheet.subplots(len(ylabels), sharex=True, squeeze=False)[:, 0])
        yield all_axes
        for axes, ylabel in zip(all_axes, ylabels):
            axes.set_ylabel(ylabel)
            if not isinstance(axes.xaxis.get_major_locator(), FixedLocator):
                axes.locator_params(axis="x", integer=True)
            axes.margins(x=0.02)
            if axes.get_yscale() == "log":  # its usual numbers are written as formulas
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            _name_curves(axes)
        all_axes[-1].set_xlabel(xlabel)
        entries = {label: handle for axes in all_axes for handle, label in zip(*axes.get_legend_handles_labels())}
        if entries:
            sheet.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=len(entries))
        sheet.supxlabel("\n".join(filter(None, [caption, look.subtitle])), fontsize=10, color="#555555")
        for file in (path, *([path.with_suffix(".svg")] if look.svg else [])):
            save(sheet, file)


@cache
def families() -> list[str]:
    """Return the fonts of a figure: what the first has not is taken from the next, one with Chinese where the system has one."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    if not known & set(CHINESE_FONTS):  # one may have come since matplotlib made its list
        listed = {font.fname for font in font_manager.fontManager.ttflist}
        for file in font_manager.findSystemFonts():
            if file not in listed:
                with suppress(OSError, RuntimeError):
                    font_manager.fontManager.addfont(file)
        known = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *[name for name in CHINESE_FONTS if name in known][:1]]


def save(sheet: Figure, path: Path | IO[bytes], **options: Any) -> None:
    """Write a figure; say once, in one line, if no font has some of its characters."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sheet.savefig(claim(path) if isinstance(path, Path) else path, **options)
    missing = [found[1] for w in caught if (found := re.match(r"Glyph (\d+) .*missing from", str(w.message)))]
    if missing:
        _say_missing(chr(int(missing[0])))
    for warning in caught:
        if "missing from" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@cache
def _say_missing(character: str) -> None:
    logging.getLogger(__name__).warning(
        "figures: no font here has %s; boxes stand in its place. Debian's fonts-noto-cjk has Chinese, Japanese and Korean",
        character,
    )


def _name_curves(axes: Axes) -> None:
    """Write the name of each curve that has one (its gid) at its right end, in its colour, the names clear of each other."""
    named = [line for line in axes.lines if line.get_gid()]
    if not named:
        return
    scale, box = axes.transData, axes.transAxes.inverted()
    ends = [box.transform(scale.transform((_end(line, 0), _end(line, 1))))[1] for line in named]
    rows = [str(line.get_gid()).count("\n") + 1 for line in named]
    inches = axes.get_figure(root=True).get_size_inches()[1] * axes.get_position().height  # type: ignore[union-attr]
    for line, place in zip(named, _spread(ends, [1.25 * n * _NAMED / 72 / inches for n in rows])):
        axes.annotate(
            str(line.get_gid()),
            xy=(1.0, place),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=line.get_color(),
            fontsize=_NAMED,
            va="center",
            annotation_clip=False,
            linespacing=1.05,
        )


def _end(line: Line2D, axis: int) -> float:
    values = np.asarray(line.get_data()[axis], dtype=float)
    return float(values[~np.isnan(values)][-1]) if (~np.isnan(values)).any() else 0.0


def _spread(places: list[float], heights: list[float]) -> list[float]:
    """Return the places moved apart, so that texts of these heights around them do not meet, within 0 and 1 where they can."""
    order = np.argsort(places)
    moved = np.clip(np.array(places)[order], 0, 1)
    half = np.array(heights)[order] / 2
    for _ in range(200):
        gaps = moved[1:] - moved[:-1] - half[1:] - half[:-1]
        if (gaps >= -1e-6).all():
            break
        push = np.minimum(gaps, 0) / 2
        moved[:-1] += push
        moved[1:] -= push
        moved = np.clip(moved, 0, 1) if half.sum() < 0.5 else moved
    return [float(moved[list(order).index(i)]) for i in range(len(places))]


def curve(axes: Axes, table: pd.DataFrame, column: str, *, color: str, name: str, style: str = "-") -> None:
    """Draw `column` over the layers with its 95 % interval, and fainter the band that holds all layers at once."""
    axes.plot(table.layer, table[column], color=color, gid=name, linestyle=style, marker="o", markersize=4)
    for end, alpha in (("_band", 0.10), ("", 0.18)):
        if f"{column}{end}_lo" in table:
            axes.fill_between(
                table.layer, table[f"{column}{end}_lo"], table[f"{column}{end}_hi"], color=color, alpha=alpha, linewidth=0
            )


def faint(axes: Axes, table: pd.DataFrame, column: str, *, color: str, name: str, style: Any = "-") -> None:
    """Draw `column` over the layers as a thin line to compare with, named at its end."""
    axes.plot(table.layer, table[column], color=color, gid=name, linestyle=style, linewidth=1.3, alpha=0.9)


def controls(axes: Axes, tables: Mapping[str, pd.DataFrame], column: str, look: Look) -> None:
    """Draw `column` of the control donors: thin and grey, the dashes tell them apart, in one row of the legend."""
    if tables:
        axes.plot([], [], linestyle="none", label=look.say("controls:"))
    for control, style in CONTROL_STYLES.items():
        if control in tables:
            table = tables[control]
            label = look.say(control.replace("_", " ").removesuffix(" donor"))
            axes.plot(table.layer, table[column], color=FAINT, linestyle=style, linewidth=1.2, label=label, zorder=1)


def landmark(axes: Axes, place: float, low: float, high: float, text: str) -> None:
    """Mark a place between layers with its interval on the lower edge, `text` above the panel; nothing where it is nan."""
    if pd.isna(place):
        return
    low, high = (place if pd.isna(end) else end for end in (low, high))
    axes.plot([low, high], [0.015, 0.015], transform=axes.get_xaxis_transform(), color=INK, linewidth=5, alpha=0.55)
    axes.axvline(place, color=INK, linestyle="-.", linewidth=1.4)
    left = place <= sum(axes.get_xlim()) / 2
    axes.annotate(
        text,
        xy=(place, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom",
        fontsize=11,
        color=INK,
        annotation_clip=False,
    )


def level(axes: Axes, height: float, name: str) -> None:
    """Draw a dotted line of reference (zero, chance, floor), named at its end."""
    axes.axhline(height, color=INK, linestyle=":", linewidth=1.3, gid=name)


def shade(axes: Axes, first: int, last: int, label: str) -> None:
    """Shade the layers from `first` to `last`; the legend says why."""
    axes.axvspan(first - 0.5, last + 0.5, color="#000000", alpha=0.08, linewidth=0, label=label)


def estimates(table: pd.DataFrame, path: Path, *, colors: dict[str, str], caption: str) -> None:
    """Draw a panel for each `unit` of the table: `value` with `lo` and `hi` of each `what` (colour by `kind`), by `prompt`."""
    prompts, units = list(table.prompt.unique()), list(table.unit.unique())
    with panels(path, Look(), [fill(unit, 18) for unit in units], xlabel="prompt", caption=caption) as all_axes:
        for axes, unit in zip(all_axes, units):
            of_unit = table[table.unit == unit]
            for i, (what, rows) in enumerate(of_unit.groupby("what", sort=False)):
                place = [prompts.index(p) + 0.16 * (i - (of_unit.what.nunique() - 1) / 2) for p in rows.prompt]
                low, high = rows.value - rows.lo.fillna(rows.value), rows.hi.fillna(rows.value) - rows.value
                style: Any = {"color": colors[rows.kind.iloc[0]], "marker": "os^D"[i % 4]}
                name, reach = fill(str(what), 22), [low.clip(0), high.clip(0)]
                points(axes, place, rows.value, reach, name=name, linestyle="none", capsize=3, **style)
            axes.set_xticks(range(len(prompts)), [p.replace("-", "\n") for p in prompts], fontsize=11)
            axes.set_xlim(-0.5, len(prompts) - 0.5)
            if unit.startswith("share"):
                axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_locator(MaxNLocator(integer=unit.startswith("layer")))


def points(axes: Axes, places: Any, values: Any, reaches: Any, *, name: str, **style: Any) -> None:
    """Draw values with their intervals, named once: given to errorbar, the name would stand at both ends of the intervals too."""
    axes.errorbar(places, values, yerr=reaches, **style).lines[0].set_gid(name)


def resampled(row: pd.Series, look: Look) -> str:
    """Say what the intervals of a table's row are over."""
    if str(row.clusters).startswith("none"):
        return look.say("no intervals: too few texts and speakers")
    over = look.say(" and ").join(look.say(f"{{n}} {name}", n=int(row[f"n_{name}"])) for name in row.clusters.split(" and "))
    return look.say("95 % interval and (paler) band over {over}", over=over)
