"""Chapters of knockout, components and scaling: they stand where the runs lie below the patching run, in both languages."""

from dataclasses import replace
from pathlib import Path

import pytest

from activation_patching.components import tables as component_tables
from activation_patching.knockout import tables as knockout_tables
from activation_patching.scale.curves import OWN
from activation_patching.scale.findings import ScaleEffect
from activation_patching.scale.tables import tables_of
from common.run.run_folder import write_tables
from common.stats.findings import Count, Estimate
from report.language import LANGUAGES
from report.render import environment
from tests.activation_patching.test_components import planted
from tests.activation_patching.test_knockout import answering
from tests.activation_patching.test_scale import only, simulated
from tests.helpers.study import build_report, change_record, save_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a knockout run, in which the direct route carries the words, and a components run with one strong head."""
    folder = save_study(tmp_path_factory.mktemp("study"))
    cut = {"audio_to_last": "angry", "audio_to_question": "words"}
    tables = {"knockout": knockout_tables.tables_of(answering(cut)), "components": component_tables.tables_of(planted())}
    for name, of_run in tables.items():
        out = folder / "patching" / name
        out.mkdir()
        write_tables(out, of_run)
        change_record(folder / "patching", out, identity__intervention=name)
    return folder


def test_the_chapters_say_what_was_found(study: Path, tmp_path: Path) -> None:
    english, chinese = build_report(study, tmp_path)
    assert "## Where words and voice go" in english and "## 语义与韵律走哪条通路" in chinese
    assert "| words | 1.00 [" in english and "| 语义 | 1.00 [" in chinese
    assert "The direct route alone carries the words; that the other one does is not shown." in english
    assert "单凭直接通路能传递语义；没有证据表明另一条也能。" in chinese
    assert "That one route alone carries the voice is not shown." in english
    assert "The strongest part for the voice is head 1 of block 2. It adds " in english
    for name in ("knockout_curve.png", "components_heatmap.png"):
        assert f"/{name})" in english and list(tmp_path.rglob(name))
    assert "[!CAUTION]" not in english and "nan" not in english


def test_runs_of_something_else_or_unfinished_are_left_out(study: Path, tmp_path: Path) -> None:
    change_record(study / "patching" / "knockout", finished=False)
    change_record(study / "patching" / "components", identity__prompt="another")
    english, _ = build_report(study, tmp_path)
    assert "Where words and voice go" not in english and "Which parts carry them" not in english


UP, NONE, DOWN = (Estimate(value, value - 0.05, value + 0.05, 300, (Count(50, "texts"),)) for value in (0.37, 0.01, -0.37))


@pytest.fixture(scope="module")
def found() -> ScaleEffect:
    return only(simulated({(OWN, 2, 8.0): "voice"}, {}))


def say(macro: str, finding: ScaleEffect) -> tuple[str, str]:
    english, chinese = (environment(x).get_template(f"sentences.{x}.jinja").module for x in LANGUAGES)
    said = tuple(" ".join(str(getattr(of, macro)(finding)).split()) for of in (english, chinese))
    assert "nan" not in "".join(said)
    return said[0], said[1]


def test_a_gain_a_readout_and_nothing_are_told_apart(found: ScaleEffect) -> None:
    english, chinese = say("scaled", found)
    assert "With its part made larger, the voice is the answer in 100 % of the conflict clips." in english
    assert "放大韵律部分之后" in chinese
    assert "Added behind the last block instead, the change gives 0 %." in english
    assert "最后一块之后" in chinese
    assert "output head" not in english and "输出头" not in chinese
    english, chinese = say("scaled", replace(found, minus_readout=DOWN))
    assert "for the head alone, gives 137 %." in english and "只供输出头读取，则为 137%。" in chinese
    english, chinese = say("scaled", replace(found, minus_direct=NONE))
    assert "This is a readout" in english and "只是读出" in chinese
    english, chinese = say("scaled", replace(found, minus_random=NONE))
    assert "No factor is shown" in english and "没有证据表明" in chinese and "made larger" not in english


def test_the_price_and_the_baselines_say_what_their_intervals_exclude(found: ScaleEffect) -> None:
    dear = replace(found, gain=UP, congruent=NONE, asked_other=DOWN)
    english, chinese = say("scale_price", dear)
    assert (
        "Asked for the words, 37 percentage points fewer answers are right." in english
        and "costs at least as much as it gives" in english
    )
    assert "代价不小于收益" in chinese and "No loss is shown where words and voice agree." in english
    assert "transcrib" not in english and "转写" not in chinese  # nobody was asked to
    heard = replace(dear, word_errors=UP, word_errors_before=NONE)
    english, chinese = say("scale_price", heard)
    assert "It transcribes 37 percentage points more of the words wrongly." in english and "词错误率上升 37 个百分点" in chinese
    assert ", or in transcribing 300 clips." in say("scale_price", replace(heard, word_errors=NONE))[0]
    assert "transcrib" not in say("scale_price", replace(heard, word_errors_before=replace(UP, value=0.6)))[0]  # it never could
    assert "costs" not in say("scale_price", replace(dear, asked_other=NONE))[0]
    english, chinese = say("scale_baselines", replace(found, minus_asked=DOWN))
    assert "in the prompt gives 37 percentage points more" in english and "比放大的做法高 37 个百分点" in chinese
    assert "in the prompt gives 37 percentage points less" in say("scale_baselines", replace(found, minus_asked=UP))[0]


def test_the_chapter_stands_in_both_reports(tmp_path: Path) -> None:
    folder = save_study(tmp_path)
    out = folder / "patching" / "scale"
    out.mkdir()
    write_tables(out, tables_of(simulated({(OWN, 2, 8.0): "voice"}, {})))
    change_record(folder / "patching", out, identity__intervention="scale", identity__at="last")
    english, chinese = build_report(folder, tmp_path / "out")
    assert "## One cue made larger" in english and "## 放大一种线索" in chinese
    assert "/scale_curve.png)" in english and list((tmp_path / "out").rglob("scale_curve.png"))
    assert "[!CAUTION]" not in english and "nan" not in english
