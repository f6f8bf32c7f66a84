"""Figures that are read at half a column's width: nothing too small, curves named beside them, names clear of each other."""

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from activation_patching.span.plots import plot_run
from common import plotting
from common.plotting import FigureStyle
from logit_lens.plots import plot_lens
from report.language import texts
from report.runs import read_studies
from report.sections.figures import plot_panel
from tests.helpers.study import save_exchange, save_study

pytestmark = pytest.mark.draws
LENS = ["winrate_curve_conflict.png", "margin_curve_conflict.png", "probe_curve.png"]
PATCHING = [f"{name}_curve_{kind}.png" for kind in ("semantic", "prosody") for name in ("flip_rate", "delta_logit")]
PLOTS: dict[str, tuple[Callable[..., list[str]], str, list[str]]] = {
    "lens": (plot_lens, "lens", LENS),
    "patching": (plot_run, "patching", PATCHING),
    "exchange": (plot_run, "patching/exchange", ["exchange_curve.png"]),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_study(tmp_path_factory.mktemp("figures"), texts=2, pairs=30, controls=True)
    save_exchange(folder)
    return folder


def measure(name: str, sheet: Figure) -> None:
    """Check that all is within the figure, at least 7 points large, and no name of a curve on another."""
    canvas = FigureCanvasAgg(sheet)
    canvas.draw()
    whole, renderer = sheet.bbox, canvas.get_renderer()
    for axes in sheet.axes:
        named = {line.get_gid() for line in axes.lines if line.get_gid()}
        written = [text for text in axes.texts if text.get_text() in named]
        legend = axes.get_legend()
        others = [axes.xaxis.label, axes.yaxis.label, *axes.texts, *(legend.get_texts() if legend else [])]
        sizes = [text.get_fontsize() for text in (*others, *axes.get_xticklabels(), *axes.get_yticklabels())]
        assert len(written) == len(named) and min(sizes) >= 7, name
        boxes = [text.get_window_extent(renderer) for text in others if text.get_text()]
        assert all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= whole.x1 + 1 and b.y1 <= whole.y1 + 1 for b in boxes), name
        names = [text.get_window_extent(renderer) for text in written]
        assert not [1 for i, a in enumerate(names) for b in names[:i] if a.overlaps(b)], (name, named)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("which", PLOTS)
def test_figures_are_whole_large_enough_and_clear(
    which: str, language: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, found = plotting.save, []

    def save(sheet: Figure, path: Path) -> None:
        real(sheet, path)
        measure(path.name, sheet)
        found.append(path.name)

    monkeypatch.setattr(plotting, "save", save)
    plot, folder, expected = PLOTS[which]
    formats = ("png", "svg") if which == "lens" and language == "en" else ("png",)
    names = plot(study / folder, tmp_path, FigureStyle(texts(language), formats))
    assert names == expected and found == [n.replace(".png", f".{kind}") for n in names for kind in formats]
    with Image.open(tmp_path / names[0]) as picture:
        assert picture.size[0] == pytest.approx(8 / 2.54 * picture.info["dpi"][0], abs=2)


def test_the_panel_has_one_scale_for_the_same_thing_and_nothing_at_the_last_layer(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Figure] = []
    monkeypatch.setattr(plotting, "save", lambda sheet, path: found.append(sheet))
    (both,), _ = read_studies([study / "lens"], [study / "patching"])
    plot_panel(both, tmp_path / "panel.png", FigureStyle())
    axes = found[0].axes
    assert [a.get_title(loc="left")[3:] for a in axes[::2]] == ["logit lens", "semantic pairs", "prosody pairs"]
    assert axes[2].get_ylim() == axes[4].get_ylim() and axes[3].get_ylim() == axes[5].get_ylim()
    assert len({a.get_xlim() for a in axes}) == 1
    drawn = [line.get_xdata().max() for a in axes[2:] for line in a.lines if len(line.get_xdata()) > 2]
    assert drawn and max(drawn) == 5 and axes[0].lines[0].get_xdata().max() == 6


def test_names_are_spread_apart_and_keep_their_order() -> None:
    moved = plotting._spread([0.5, 0.5, 0.52, 0.98], [0.1, 0.1, 0.1, 0.1])
    assert sorted(moved) == [moved[i] for i in sorted(range(4), key=lambda i: ([0.5, 0.5, 0.52, 0.98][i], i))]
    gaps = [b - a for a, b in zip(sorted(moved), sorted(moved)[1:])]
    assert min(gaps) >= 0.1 - 1e-3 and abs(max(moved) - 0.98) < 1e-6


def test_a_text_that_the_chinese_words_lack_is_an_error() -> None:
    with pytest.raises(KeyError):
        FigureStyle(texts("zh")).say("a label that nobody translated")
