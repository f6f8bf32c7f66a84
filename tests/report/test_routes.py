"""Chapters of knockout and components: they stand where the runs lie below the patching run, in both languages."""

import json
from pathlib import Path

import pytest

import report.build
from activation_patching.components import tables as component_tables
from activation_patching.knockout import tables as knockout_tables
from common.run.run_folder import write_record, write_tables
from tests.activation_patching.test_components import planted
from tests.activation_patching.test_knockout import answering
from tests.helpers.study import save_study


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
        record = json.loads((folder / "patching" / "run.json").read_text(encoding="utf-8"))
        record["identity"]["intervention"] = name
        write_record(out, record)
    return folder


def built(study: Path, out: Path) -> tuple[str, str]:
    report.build.main(["--lens", str(study / "lens"), "--patching", str(study / "patching"), "--out", str(out), "--no-audio"])
    english, chinese = ((out / f"report{end}.md").read_text(encoding="utf-8") for end in ("", ".zh"))
    return english, chinese


def test_the_chapters_say_what_was_found(study: Path, tmp_path: Path) -> None:
    english, chinese = built(study, tmp_path)
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
    for name, change in (("knockout", {"finished": False}), ("components", {})):
        path = study / "patching" / name / "run.json"
        record = json.loads(path.read_text(encoding="utf-8")) | change
        record["identity"]["prompt"] = record["identity"]["prompt"] if change else "another"
        path.write_text(json.dumps(record), encoding="utf-8")
    english, _ = built(study, tmp_path)
    assert "Where words and voice go" not in english and "Which parts carry them" not in english
