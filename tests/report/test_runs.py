"""What does not belong together, is missing or partial, is one line or stands in red before any number."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import report.build
from report.language import LANGUAGES
from report.render import environment
from report.runs import Outputs, Study, Trouble, names_of, read_outputs, read_studies
from tests.helpers.study import build_report, change_record, save_study

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_study(tmp_path_factory.mktemp("study"), texts=2, pairs=30)


@pytest.fixture
def mine(study: Path, tmp_path: Path) -> Path:
    shutil.copytree(study, tmp_path / "mine")
    return tmp_path / "mine"


def troubles_of(folder: Path) -> tuple[list[Study], list[Trouble]]:
    return read_studies([folder / "lens"], [folder / "patching"])


def test_runs_of_the_same_thing_are_one_study_without_trouble(mine: Path) -> None:
    studies, troubles = troubles_of(mine)
    assert len(studies) == 1 and studies[0].lens and studies[0].patching and not troubles and names_of(studies) == [""]


@pytest.mark.parametrize(
    "field, value",
    [("model", "other"), ("prompt", "{audio}Why?"), ("data_files", "1"), ("labels", ["sad", "happy"]), ("dtype", "bfloat16")],
)
def test_runs_of_other_things_are_never_joined(field: str, value: object, mine: Path) -> None:
    change_record(mine / "patching", **{f"identity__{field}": value})
    studies, (trouble,) = troubles_of(mine)
    assert len(studies) == 2 and all(len(s.runs) == 1 for s in studies) and len(set(names_of(studies))) == 2
    assert trouble.name == "mixed up" and field in trouble.values["differs"] and "mine/lens" in trouble.values["other"]


def test_a_missing_or_partial_run_is_marked_and_none_of_its_numbers_shown(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    change_record(mine / "patching", finished=False)
    build_report(mine, tmp_path / "out")
    for end, partial, none in (("", "**Partial**", "no run of activation patching"), (".zh", "**未完成**", "没有激活修补的结果")):
        text, tables = ((tmp_path / "out" / f"{name}{end}.md").read_text(encoding="utf-8") for name in ("report", "tables"))
        assert text.index("[!CAUTION]") < text.index(partial) < text.index("\n## ") and none in text
        assert "summary.csv" not in text + tables and "effect of the donor's" not in text and "供体语义的效应" not in text
        page = (tmp_path / "out" / f"report{end}.html").read_text(encoding="utf-8")
        assert "box caution" in page and '"pairs":null' in page
    shutil.rmtree(mine / "patching")
    _, (trouble,) = troubles_of(mine)
    assert trouble.name == "missing" and "run the experiment first" in trouble.values["why"]
    shutil.rmtree(mine / "lens")
    with pytest.raises(SystemExit, match="2"):
        build_report(mine, tmp_path / "gone")
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and not (tmp_path / "gone").exists()


def test_folders_of_the_other_experiment_and_broken_files_are_named(mine: Path, capsys: pytest.CaptureFixture) -> None:
    _, troubles = read_studies([mine / "patching", mine / "lens"], [mine / "patching"])
    assert [t.name for t in troubles] == ["other experiment"]
    (mine / "patching" / "summary.csv").unlink()
    studies, (trouble,) = troubles_of(mine)
    assert trouble.name == "tables" and "--redraw" in trouble.values["why"] and studies[0].patching is None
    with pytest.raises(SystemExit, match="2"):
        report.build.main(["--lens", str(mine / "patching"), "--patching", str(mine / "lens")])
    assert "other experiment" in capsys.readouterr().err


def test_failed_and_missing_checks_and_warnings_are_told(mine: Path) -> None:
    change_record(mine / "lens", **{"self_check__lens row L - model": 0.5}, warnings=["beware"])
    change_record(mine / "patching", self_check={"tolerance": 0.001}, warnings=["beware"])
    _, troubles = troubles_of(mine)
    failed = [t for t in troubles if t.name == "check failed"]
    assert [t.values["check"] for t in failed] == ["lens row L - model"] and failed[0].values["value"] == "5.0e-01"
    assert [t.values["check"] for t in troubles if t.name == "check missing"] == [
        *("lens row L - model", "splice - rerun", "A patched with A - A", "row L - recipient")
    ]
    (warning,) = [t for t in troubles if t.name == "warning"]
    assert warning.values["folder"].count("mine") == 2 and warning.values["text"] == "beware"


def test_a_manifest_that_is_gone_or_of_other_clips_leaves_the_numbers_and_says_so(mine: Path, tmp_path: Path) -> None:
    manifest = mine / "clips" / "manifest.csv"
    for experiment in ("lens", "patching"):
        change_record(mine / experiment, identity__data=str(manifest))
    table = pd.read_csv(manifest)
    table.assign(prosody_label="sad").to_csv(manifest, index=False)
    text, _ = build_report(mine, tmp_path / "out", "--lang", "en")
    assert "**Other clips**" in text and "80 of its clips" in text
    manifest.unlink()
    assert "**Clips not found**" in build_report(mine, tmp_path / "out", "--lang", "en")[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_trouble_has_words(language: str) -> None:
    source = (ROOT / "report" / "runs.py").read_text() + (ROOT / "report" / "page" / "clips.py").read_text()
    names = set(re.findall(r'Trouble\("([^"]+)"', source))
    sentences = environment(language).get_template(f"sentences.{language}.jinja").module
    values = dict.fromkeys(
        ("folder", "why", "script", "other", "differs", "check", "value", "tolerance", "text", "n", "manifest"), "x"
    )
    said = [str(sentences.trouble(Trouble(name, values))).strip() for name in names]  # type: ignore[attr-defined]
    assert len(names) == 11 and all(text.startswith("**") for text in said) and len(set(said)) == 11


def test_texts_of_patched_pairs_are_no_table_of_the_report(mine: Path) -> None:
    """The lens has a table of that name; of patching its file has the texts themselves."""
    folder = mine / "patching"
    (folder / "generated.csv").write_text("pair_id,layer,generated,said,answer_kind,whole_word\na,0,sad,sad,label,sad\n")
    found = read_outputs("patching", folder)
    assert isinstance(found, Outputs) and "generated" not in found.tables
