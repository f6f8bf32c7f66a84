"""The style and the elements that all figures share."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import IO, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator
from PIL import Image

from common.files import claim

COLORS = {"semantic": "#0072B2", "prosody": "#D55E00", "other": "#7F7F7F"}  # Okabe & Ito: told apart by colour-blind readers
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # runs side by side
INK = "#222222"
ALARM = "#B00020"  # a mark above a figure
FAINT = "#8A8A8A"
WIDTH, HEIGHT = 8 / 2.54, 5.6 / 2.54  # of one panel, inches
SMALL = 7.2  # points: what is written inside a panel; nothing in a figure is smaller than 7
_STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "hatch.linewidth": 0.5,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType, embedded: type 3 fonts are refused by some publishers
    "text.parse_math": False,  # labels, paths and names are other people's: a $ in them is a $
}


@dataclass(frozen=True)
class FigureStyle:
    """What of a figure is not its data: the `words` that translate its texts, and the `formats` that it is written in.

    A text that the words lack is an error; None leaves the English that the figures are written in. A `mark` stands above the
    figure: what a reader must know before he believes it.
    """

    words: Mapping[str, str] | None = None
    formats: tuple[str, ...] = ("png",)
    mark: str = ""

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
def figure(path: Path, style: FigureStyle, *, rows: int = 1, columns: int = 1, height: float = 1.0) -> Iterator[list[Axes]]:
    """Give panels, row by row, to draw on; write them to `path` in each format. `height`: of a panel, in that of the usual one.

    A caption stands under a figure and not in it.
    """
    with drawing():
        sheet = Figure(figsize=(columns * WIDTH, rows * height * HEIGHT), layout="constrained")
        panels = list(sheet.subplots(rows, columns, squeeze=False).flat)
        yield panels
        if style.mark:
            sheet.suptitle(style.say(style.mark), color=ALARM)
        for axes in panels:
            if not isinstance(axes.xaxis.get_major_locator(), FixedLocator):
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        for kind in style.formats:
            save(sheet, path.with_suffix(f".{kind}"))


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


CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK JP", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "PingFang SC", "Heiti SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Arial Unicode MS"),
)


def save(sheet: Figure, path: Path | IO[bytes], **options: Any) -> None:
    """Write a figure; say once, in one line, if no font has some of its characters."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if isinstance(path, Path) and path.suffix == ".png":
            sheet.savefig(drawn := BytesIO(), **options)
            with Image.open(drawn) as picture:  # with 256 colours a third of the bytes
                flat = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
                flat.save(claim(path), optimize=True, dpi=picture.info["dpi"])
        else:
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


def curve(axes: Axes, table: pd.DataFrame, column: str, *, color: str, name: str = "", style: Any = "-") -> None:
    """Draw `column` over the layers with its 95 % interval; `name` it beside the curve once `name_curves` is called."""
    marker = "o" if style == "-" else ""
    axes.plot(table.layer, table[column], color=color, gid=name, linestyle=style, marker=marker, markersize=2)
    low, high = table[f"{column}_lo"], table[f"{column}_hi"]
    axes.fill_between(table.layer, low, high, color=color, alpha=0.2, linewidth=0)


def thin(axes: Axes, table: pd.DataFrame, column: str, *, color: str, name: str = "", style: Any = "-") -> None:
    """Draw `column` over the layers as a thin line to compare with."""
    axes.plot(table.layer, table[column], color=color, gid=name, linestyle=style, linewidth=0.8)


def level(axes: Axes, height: float, name: str = "") -> None:
    """Draw a dotted line of reference."""
    axes.axhline(height, color=INK, linestyle=":", linewidth=0.8, gid=name)


def mark_layers(axes: Axes, layers: pd.DataFrame, marked: pd.Series, text: str, *, hatch: str | None = None) -> None:
    """Shade the layers that are `marked`, or hatch them, and write what that means into the widest stretch of them."""
    at, spread = layers.layer[marked.to_numpy(dtype=bool)], layers.layer.max() - layers.layer.min()
    if not len(at):
        return
    places = pd.Series(np.flatnonzero(marked))
    stretches = [
        (layers.layer.iloc[s.iloc[0]] - 0.5, layers.layer.iloc[s.iloc[-1]] + 0.5)
        for _, s in places.groupby(places - range(len(places)))
    ]
    for first, last in stretches:
        style: Any = {"facecolor": "none", "edgecolor": "#C4C4C4", "hatch": hatch} if hatch else {"facecolor": "#EBEBEB"}
        axes.axvspan(first, last, linewidth=0, zorder=0, **style)
    first, last = max(stretches, key=lambda s: s[1] - s[0])
    turned = last - first < 0.45 * spread
    about: Any = {"rotation": 90, "va": "top"} if turned else {"va": "top"}
    words = axes.text((first + last) / 2, 0.97, text, transform=axes.get_xaxis_transform(), ha="center", fontsize=SMALL, **about)
    words.set(color="#555555", path_effects=[withStroke(linewidth=3, foreground="white")])


def name_curves(axes: Axes, *, at: float | None = None) -> None:
    """Write the name of each curve that has one (its gid) beside it in its colour, the names clear of each other.

    They stand at the right ends, outside; or inside, `at` that share of the layers, above the curves and below the lowest.
    """
    named = [line for line in axes.lines if line.get_gid()]
    scale, box = axes.transData, axes.transAxes.inverted()
    spots = [_point(line, 1.0 if at is None else at) for line in named]
    heights = [box.transform(scale.transform(spot))[1] for spot in spots]
    rows = [str(line.get_gid()).count("\n") + 1 for line in named]
    inches = axes.get_figure(root=True).get_size_inches()[1] * axes.get_position().height  # type: ignore[union-attr]
    line_height = 1.2 * SMALL / 72 / inches
    inside = at is not None
    if inside:
        heights = [h + (-1 if h == min(heights) else 1) * 0.8 * line_height for h in heights]
    for line, spot, height in zip(named, spots, _spread(heights, [line_height * n for n in rows])):
        axes.annotate(
            str(line.get_gid()),
            xy=(spot[0], height) if inside else (1.0, height),
            xycoords=axes.get_xaxis_transform() if inside else "axes fraction",
            xytext=(0 if inside else 4, 0),
            textcoords="offset points",
            color=line.get_color(),
            fontsize=SMALL,
            va="center",
            annotation_clip=False,
            linespacing=1.05,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _point(line: Line2D, at: float) -> tuple[float, float]:
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    known = np.flatnonzero(~np.isnan(y))
    place = known[round(at * (len(known) - 1))] if len(known) else 0
    return float(x[place]), float(np.nan_to_num(y[place]))


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


def over_layers(axes: Axes, layers: pd.Series, style: FigureStyle) -> None:
    """Make the x-axis that both experiments share, from l = 0 to l = L."""
    axes.set(xlim=(layers.min() - 0.5, layers.max() + 0.5), xlabel=style.say("layer l"))


def label_logits(axes: Axes, table: pd.DataFrame, style: FigureStyle) -> None:
    """Draw the mean logit of each label over the layers, from the rows of any clips or pairs."""
    means = table.groupby("layer", as_index=False).mean(numeric_only=True)
    for color, column in zip(cycle(PALETTE), (c for c in means if c.startswith("logit_"))):
        thin(axes, means, column, color=color, name=column.removeprefix("logit_"))
    axes.set_ylabel(style.say("logit"))
    over_layers(axes, means.layer, style)
    name_curves(axes)


def heatmap(axes: Axes, grid: pd.DataFrame, columns: Sequence[str], **look: Any) -> AxesImage:
    """Draw a grid [row, column], the first row lowest, with the names of its `columns` and of some rows; return the picture."""
    picture = axes.imshow(np.asarray(grid), aspect="auto", origin="lower", **look)
    axes.set_xticks(range(grid.shape[1]), columns)
    step = max(1, len(grid) // 15)
    axes.set_yticks(range(0, len(grid), step), [str(row) for row in grid.index[::step]])
    return picture


def colorbar(panels: Sequence[Axes], picture: AxesImage, label: str) -> None:
    """Write one scale of colours beside the panels."""
    panels[0].get_figure().colorbar(picture, ax=panels, label=label)  # type: ignore[union-attr]


def legend_above(axes: Axes) -> None:
    """Write the legend of the lines that have a label above the panel."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)


def legend_below(axes: Axes, *, columns: int = 2) -> None:
    """Write the legend of the lines that have a label, in a panel that has all of them, below the figure."""
    handles, names = axes.get_legend_handles_labels()
    axes.get_figure(root=True).legend(handles, names, loc="outside lower center", ncols=columns)  # type: ignore[union-attr]


def estimates(table: pd.DataFrame, path: Path, style: FigureStyle) -> None:
    """Draw a panel for each `unit` of the table: `value` with `lo` and `hi` of each `what` (colour by `kind`), by `prompt`."""
    colors = COLORS | {"other": INK}
    prompts, units = list(table.prompt.unique()), list(table.unit.unique())
    with figure(path, style, rows=len(units), height=0.8) as panels:
        for axes, unit in zip(panels, units):
            of_unit = table[table.unit == unit]
            for i, (what, rows) in enumerate(of_unit.groupby("what", sort=False)):
                place = [prompts.index(p) + 0.16 * (i - (of_unit.what.nunique() - 1) / 2) for p in rows.prompt]
                look: Any = {"color": colors[rows.kind.iloc[0]], "marker": "os^D"[i % 4]}
                points(axes, place, rows, name=fill(style.say(str(what)), 16), **look)
            axes.set_ylabel(fill(style.say(unit), 20))
            axes.set_xticks(range(len(prompts)), [p.replace("-", "\n") for p in prompts])
            axes.set_xlim(-0.5, len(prompts) - 0.5)
            if unit.startswith("share"):
                axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=unit.startswith("layer")))
            name_curves(axes)


def points(axes: Axes, places: Sequence[float], table: pd.DataFrame, *, name: str, **style: Any) -> None:
    """Draw `value` with `lo` and `hi`, named once: given to errorbar, the name would stand at both ends of the intervals too."""
    low, high = (table[end].fillna(table.value) for end in ("lo", "hi"))
    reach = [(table.value - low).clip(lower=0), (high - table.value).clip(lower=0)]
    axes.errorbar(places, table.value, yerr=reach, linestyle="none", markersize=4, capsize=2, **style).lines[0].set_gid(name)
