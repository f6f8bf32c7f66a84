"""The look of every figure: the same colour for the same thing everywhere, legible at half the width of a page."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import matplotlib
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

COLORS = {"semantic": "#0072B2", "prosody": "#D55E00", "other": "#7F7F7F"}  # Okabe & Ito: told apart by colour-blind readers
CONTROL_COLORS = {"same_labels_donor": "#CC79A7", "random_donor": "#56B4E9", "silence": "#E69F00", "itself": "#009E73"}
NAMES = {"semantic": "words", "prosody": "voice", "other": "neither"}
CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK JP", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "PingFang SC", "Heiti SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Arial Unicode MS"),
)
_STYLE: Any = {
    "font.size": 14,
    "axes.labelsize": 15,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2.2,
    "savefig.dpi": 150,
}


@contextmanager
def figure(
    path: Path, *, xlabel: str = "layer l (state entering block l)", ylabel: str, caption: str, legend_columns: int = 1
) -> Iterator[Axes]:
    """Give one panel to draw on; write it to `path` with the legend above, where no curve can be, and `caption` below."""
    with panels(path, [ylabel], xlabel=xlabel, caption=caption, legend_columns=legend_columns) as (axes,):
        yield axes


@contextmanager
def panels(
    path: Path, ylabels: list[str], *, xlabel: str = "layer l (state entering block l)", caption: str, legend_columns: int = 1
) -> Iterator[list[Axes]]:
    """Give panels over the same layers, one below the other, to draw on; written as `figure` does."""
    with matplotlib.rc_context(_STYLE | {"font.family": families()}):
        sheet = Figure(figsize=(6.4, 3.6 + 1.6 * len(ylabels)), layout="constrained")
        all_axes = list(sheet.subplots(len(ylabels), sharex=True, squeeze=False)[:, 0])
        yield all_axes
        for axes, ylabel in zip(all_axes, ylabels):
            axes.set_ylabel(ylabel)
            if not isinstance(axes.xaxis.get_major_locator(), FixedLocator):
                axes.locator_params(axis="x", integer=True)
            axes.margins(x=0.02)
        all_axes[-1].set_xlabel(xlabel)
        entries = {label: handle for axes in all_axes for handle, label in zip(*axes.get_legend_handles_labels())}
        sheet.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=legend_columns)
        sheet.supxlabel(caption, fontsize=10.5, color="#444444")
        save(sheet, path)


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
        sheet.savefig(path, **options)
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


def curve(axes: Axes, table: pd.DataFrame, column: str, *, color: str, label: str, style: str = "-") -> None:
    """Draw `column` over the layers with its 95 % interval, and fainter the band that holds all layers at once."""
    axes.plot(table.layer, table[column], color=color, label=label, linestyle=style, marker="o", markersize=4)
    for end, alpha in (("_band", 0.10), ("", 0.18)):
        if f"{column}{end}_lo" in table:
            axes.fill_between(
                table.layer, table[f"{column}{end}_lo"], table[f"{column}{end}_hi"], color=color, alpha=alpha, linewidth=0
            )


def faint(axes: Axes, table: pd.DataFrame, column: str, *, color: str, label: str, style: str = "-") -> None:
    """Draw `column` over the layers as a thin line to compare with."""
    axes.plot(table.layer, table[column], color=color, label=label, linestyle=style, linewidth=1.3, alpha=0.9)


def landmark(axes: Axes, found: pd.Series, name: str, label: str) -> None:
    """Mark a layer with its interval on the lower edge; nothing where there is none. `found` is a row of its table."""
    if pd.isna(found[name]):
        return
    low, high = (found[name] if pd.isna(found[f"{name}_{end}"]) else found[f"{name}_{end}"] for end in ("lo", "hi"))
    axes.plot([low, high], [0.015, 0.015], transform=axes.get_xaxis_transform(), color="#222222", linewidth=5, alpha=0.55)
    axes.axvline(found[name], color="#222222", linestyle="-.", linewidth=1.6, label=label)


def level(axes: Axes, height: float, label: str) -> None:
    """Draw a dotted line of reference (zero, chance, floor); the legend says what it is."""
    axes.axhline(height, color="#222222", linestyle=":", linewidth=1.6, label=label)


def shade(axes: Axes, first: int, last: int, label: str) -> None:
    """Shade the layers from `first` to `last`; the legend says why."""
    axes.axvspan(first - 0.5, last + 0.5, color="#000000", alpha=0.08, linewidth=0, label=label)


def estimates(table: pd.DataFrame, path: Path, *, colors: dict[str, str], caption: str) -> None:
    """Draw a panel for each `unit` of the table: `value` with `lo` and `hi` of each `what` (colour by `kind`), by `prompt`."""
    prompts, units = list(table.prompt.unique()), list(table.unit.unique())
    with panels(path, units, xlabel="prompt", caption=caption) as all_axes:
        for axes, unit in zip(all_axes, units):
            of_unit = table[table.unit == unit]
            for i, (what, rows) in enumerate(of_unit.groupby("what", sort=False)):
                place = [prompts.index(p) + 0.16 * (i - (of_unit.what.nunique() - 1) / 2) for p in rows.prompt]
                low, high = rows.value - rows.lo.fillna(rows.value), rows.hi.fillna(rows.value) - rows.value
                style: Any = {"color": colors[rows.kind.iloc[0]], "marker": "os^D"[i % 4], "label": what}
                axes.errorbar(place, rows.value, yerr=[low.clip(0), high.clip(0)], linestyle="none", capsize=3, **style)
            axes.set_xticks(range(len(prompts)), prompts, rotation=15, fontsize=11)
            if unit.startswith("share"):
                axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_locator(MaxNLocator(integer=unit.startswith("layer")))


def resampled(clusters: str) -> str:
    """Say what intervals are over, from a table's `clusters`."""
    return f"no intervals ({clusters})" if clusters.startswith("none") else f"95 % interval and band over {clusters}"
