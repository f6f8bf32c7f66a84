"""Chinese in figures: from a font that has it, or one clear line."""

import logging
import warnings
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from common import plotting

pytestmark = pytest.mark.draws


@pytest.fixture(autouse=True)
def fresh() -> None:
    plotting.families.cache_clear()
    plotting._say_missing.cache_clear()


def draw(path: Path, text: str) -> None:
    with plotting.figure(path, plotting.FigureStyle()) as (axes,):
        axes.plot([0, 1], [0, 1])
        axes.set(xlabel=text, ylabel=text)


def test_without_a_font_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plotting, "CHINESE_FONTS", ())
    with caplog.at_level(logging.WARNING):
        for i in range(3):
            draw(tmp_path / f"{i}.png", "高兴 margin")
    assert [r.getMessage() for r in caplog.records] == [
        "figures: no font here has 高; boxes stand in its place. Debian's fonts-noto-cjk has Chinese, Japanese and Korean"
    ]
    assert (tmp_path / "2.png").stat().st_size > 5000


def test_with_a_font_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if len(plotting.families()) == 1:
        pytest.skip("no Chinese font here")
    with caplog.at_level(logging.WARNING):
        draw(tmp_path / "x.png", "高兴、悲伤、愤怒 margin −1 Δ łżę")
    assert not caplog.records


def test_a_font_that_came_after_matplotlibs_list_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    if len(plotting.families()) == 1:
        pytest.skip("no Chinese font here")
    found = plotting.families()[1]
    plotting.families.cache_clear()
    files = {f.fname for f in font_manager.fontManager.ttflist if f.name in plotting.CHINESE_FONTS}
    without = [f for f in font_manager.fontManager.ttflist if f.fname not in files]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", without)
    assert plotting.families()[1:] == [found]


def test_other_warnings_come_through(tmp_path: Path) -> None:
    class Loud(Figure):
        def savefig(self, *_: object, **__: object) -> None:
            warnings.warn("something else", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="something else"):
        plotting.save(Loud(), tmp_path / "x.svg")


def test_points_with_intervals_are_named_once(tmp_path: Path) -> None:
    table = pd.DataFrame({"value": [0.2, 0.4], "lo": [0.1, float("nan")], "hi": [0.3, float("nan")]})
    with plotting.figure(tmp_path / "a.png", plotting.FigureStyle()) as (axes,):
        plotting.points(axes, [0, 1], table, name="words")
        plotting.name_curves(axes)
    assert [line.get_gid() for line in axes.lines if line.get_gid()] == ["words"] and len(axes.lines) > 1
    assert [text.get_text() for text in axes.texts] == ["words"]


def test_layers_are_marked_in_stretches_and_the_widest_says_why() -> None:
    layers = pd.DataFrame({"layer": range(10)})
    axes = Figure().subplots()
    plotting.mark_layers(axes, layers, layers.layer.isin([0, 4, 5, 6, 9]), "blind", hatch="//")
    assert [(p.get_x(), p.get_x() + p.get_width()) for p in axes.patches] == [(-0.5, 0.5), (3.5, 6.5), (8.5, 9.5)]
    (text,) = axes.texts
    assert text.get_position()[0] == 5 and text.get_rotation() == 90
    plotting.mark_layers(axes, layers, layers.layer > 20, "none")
    assert len(axes.texts) == 1


def test_ticks_have_a_minus_sign_and_vector_files_their_fonts(tmp_path: Path) -> None:
    with plotting.figure(tmp_path / "a.png", plotting.FigureStyle(formats=("png", "svg", "pdf"))) as (axes,):
        axes.plot([0, 1], [-2, 2])
    axes.figure.canvas.draw()
    assert "−2" in [label.get_text() for label in axes.get_yticklabels()]
    assert b"/FontFile2" in (tmp_path / "a.pdf").read_bytes() and "<path" in (tmp_path / "a.svg").read_text()


def test_other_peoples_text_is_text_and_their_settings_are_theirs(tmp_path: Path) -> None:
    """A $ would start a formula, and break off the figure where it is none; LaTeX may not be there."""
    text = r"costs $\frac{1$ and {100%} of #1 & <b> _x^ \\ $$"
    with matplotlib.rc_context({"text.usetex": True, "axes.titlesize": 99, "font.size": 3}):
        draw(tmp_path / "a.png", text)
        with plotting.figure(tmp_path / "b.png", plotting.FigureStyle(formats=("png", "svg"))) as (axes,):
            axes.plot([0, 1], [1, 1000], label=text)
            axes.set_xticks([0, 1], [text, text])
    assert (tmp_path / "b.svg").is_file()
