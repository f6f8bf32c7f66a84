"""Chapters of knockout and components: they stand where the runs lie below the patching run, in both languages."""

from pathlib import Path

import pytest

from activation_patching.components import tables as component_tables
from activation_patching.knockout import tables as knockout_tables
from common.run.run_folder import write_tables
from tests.activation_patching.test_components import planted
from tests.activation_patching.test_knockout import answering
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
    assert "## Where words and voice go" in english and "## 语义与韵律经由何处" in chinese
    assert "| words | 1.00 [" in english and "| 语义 | 1.00 [" in chinese
    assert "The words reach the answer by the direct route alone; through the question alone, this is not shown." in english
    assert "单凭直接通路，语义能到达回答；单凭经由问题的通路，则没有证据。" in chinese
    assert "That the voice reaches the answer by one route alone is not shown." in english
    assert "The strongest part for the voice is head 1 of block 2. It adds " in english
    for name in ("knockout_curve.png", "components_heatmap.png"):
        assert f"/{name})" in english and list(tmp_path.rglob(name))
    assert "[!CAUTION]" not in english and "nan" not in english


def test_runs_of_something_else_or_unfinished_are_left_out(study: Path, tmp_path: Path) -> None:
    change_record(study / "patching" / "knockout", finished=False)
    change_record(study / "patching" / "components", identity__prompt="another")
    english, _ = build_report(study, tmp_path)
    assert "Where words and voice go" not in english and "Which parts carry them" not in english
