"""The look of every figure: the same colour for the same thing everywhere, legible at half the width of a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {"semantic": "#0072B2", "prosody": "#D55E00", "other": "#7F7F7F"}  # Okabe & Ito: told apart by colour-blind readers
NAMES = {"semantic": "words", "prosody": "voice", "other": "neither"}
_STYLE: Any = {
    "font.size": 14,
    "axes.labelsize": 15,
    "legend.fontsize": 13,
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
    with matplotlib.rc_context(_STYLE):
        sheet = Figure(figsize=(6.4, 5.0), layout="constrained")
        axes = sheet.subplots()
        yield axes
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.locator_params(axis="x", integer=True)
        axes.margins(x=0.02)
        sheet.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=legend_columns)
        sheet.supxlabel(caption, fontsize=10.5, color="#444444")
        sheet.savefig(path)


def curve(axes: Axes, table: pd.DataFrame, column: str, *, color: str, label: str, dashed: bool = False) -> None:
    """Draw `column` over the layers with its 95 % interval as a band."""
    axes.plot(table.layer, table[column], color=color, label=label, linestyle="--" if dashed else "-", marker="o", markersize=4)
    axes.fill_between(table.layer, table[f"{column}_lo"], table[f"{column}_hi"], color=color, alpha=0.18, linewidth=0)


def level(axes: Axes, height: float, label: str) -> None:
    """Draw a dotted line of reference (zero, chance, floor); the legend says what it is."""
    axes.axhline(height, color="#222222", linestyle=":", linewidth=1.6, label=label)


def shade(axes: Axes, first: int, last: int, label: str) -> None:
    """Shade the layers from `first` to `last`; the legend says why."""
    axes.axvspan(first - 0.5, last + 0.5, color="#000000", alpha=0.08, linewidth=0, label=label)
