"""Figures that are read at half a page's width: small legends, curves named where they end, names clear of each other."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from activation_patching.plots import plot_patching
from common import plotting
from common.plotting import Look
from logit_lens.plots import plot_lens
from report.wording.words import FIGURES
from tests.study import save_study

FILES = {"lens": 5, "patching": 9}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_study(tmp_path_factory.mktemp("figures"), texts=2, pairs=30)


def measure(name: str, sheet: Figure) -> int:
    """Check a figure's legend and the names of its curves, in the fonts that it is drawn with; return how many names."""
    whole, named, renderer = sheet.bbox, 0, FigureCanvasAgg(sheet).get_renderer()
    for legend in sheet.legends:
        box = legend.get_window_extent(renderer)
        assert box.height <= 0.1 * whole.height and box.x0 >= 0 and box.x1 <= whole.x1, name
    for axes in sheet.axes:
        curves = {line.get_gid() for line in axes.lines if line.get_gid()}
        boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text() in curves]
        assert len(boxes) == len(curves), name
        assert all(whole.x0 <= b.x0 and b.x1 <= whole.x1 + 1 and b.y0 >= 0 and b.y1 <= whole.y1 for b in boxes), name
        assert all(b.x0 >= axes.get_window_extent().x1 for b in boxes), name
        assert not [1 for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)], (name, curves)
        named += len(boxes)
    return named


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("experiment, plot", [("lens", plot_lens), ("patching", plot_patching)])
def test_legends_are_small_and_names_are_clear_of_each_other(
    experiment: str, plot: Any, language: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, found = plotting.save, {}

    def save(sheet: Figure, path: Path) -> None:
        real(sheet, path)
        found[path.name] = measure(path.name, sheet)

    monkeypatch.setattr(plotting, "save", save)
    names = plot(study / experiment, tmp_path, Look("model: m", FIGURES if language == "zh" else None, svg=language == "en"))
    assert [n for n in found if n.endswith(".png")] == names and len(names) == FILES[experiment]
    assert len(list(tmp_path.glob("*.svg"))) == (len(names) if language == "en" else 0)
    assert all(found.values())
    with Image.open(tmp_path / names[0]) as picture:
        assert picture.size[0] == 1400 and round(picture.info["dpi"][0]) == 200


def test_names_are_spread_apart_and_keep_their_order() -> None:
    moved = plotting._spread([0.5, 0.5, 0.52, 0.98], [0.1, 0.1, 0.1, 0.1])
    assert sorted(moved) == [moved[i] for i in sorted(range(4), key=lambda i: ([0.5, 0.5, 0.52, 0.98][i], i))]
    gaps = [b - a for a, b in zip(sorted(moved), sorted(moved)[1:])]
    assert min(gaps) >= 0.1 - 1e-3 and abs(max(moved) - 0.98) < 1e-6


def test_a_text_that_the_chinese_words_lack_is_an_error() -> None:
    with pytest.raises(KeyError):
        Look(words=FIGURES).say("a label that nobody translated")
