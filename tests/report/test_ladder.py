"""The report's ladder of audio, transcript, transcript and tone: its numbers by hand, and which runs may stand on it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import report.build
from report.runs import Study, Trouble, read_studies
from report.sections.ladder import ladder
from tests.helpers.study import LAYERS, Truth, build_report, change_record, save_study

TRUTHS = {"transcript": Truth(words=4, voice=0), "described": Truth(words=1, voice=4)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a model that hears words and voice alike, follows the words of a text, and a tone that is named."""
    folder = save_study(tmp_path_factory.mktemp("study"), Truth(words=3, voice=3), texts=3, pairs=20)
    for name, truth in TRUTHS.items():
        other = save_study(tmp_path_factory.mktemp(name), truth, texts=3, pairs=20)
        shutil.copytree(other / "lens", folder / "lens" / name)
        change_record(folder / "lens" / name, identity__input=name, identity__data=str(folder / "clips" / "manifest.csv"))
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "mine")
    return tmp_path / "mine"


def of(study: Path) -> tuple[Study, list[Trouble]]:
    (found,), troubles = read_studies([study / "lens"], [study / "patching"])
    return found, troubles


def last_rows(study: Path, place: str, without: list[str]) -> pd.DataFrame:
    rows = pd.read_csv(study / "lens" / place / "lens.csv", keep_default_na=False, na_values=[""])
    rows = rows[(rows.layer == LAYERS - 1) & (rows.semantic_label != rows.prosody_label) & ~rows.sample_id.isin(without)]
    return rows.set_index("sample_id").sort_index()


def test_shares_and_paired_differences_by_hand(study: Path) -> None:
    """On the clips that all rungs have: two of the transcript run are taken away."""
    file = study / "lens" / "transcript" / "lens.csv"
    table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    gone = list(table[table.semantic_label != table.prosody_label].sample_id.unique()[:2])
    table[~table.sample_id.isin(gone)].to_csv(file, index=False)
    found, troubles = of(study)
    rungs = ladder(found)
    assert rungs and {*found.beside} == {"transcript", "described"} and not troubles
    last = {name: last_rows(study, "" if name == "audio" else name, gone) for name in ("audio", "transcript", "described")}
    for name, rows in last.items():
        for outcome in ("semantic", "prosody", "other"):
            share = rungs.shares[name, outcome]
            assert share.n == len(rows) == 118 and share.value == pytest.approx((rows.outcome == outcome).mean())
            assert share.low - 1e-9 <= share.value <= share.high + 1e-9
    read, heard, named = last["transcript"], last["audio"], last["described"]
    expected = (heard.outcome == "semantic").mean() - (read.outcome == "semantic").mean()
    assert rungs.heard_minus_read.value == pytest.approx(expected)
    expected = (heard.outcome == "prosody").mean() - (named.outcome == "prosody").mean()
    assert rungs.heard_minus_named and rungs.heard_minus_named.value == pytest.approx(expected)
    of_label = [(read.semantic_label == x, read.winner == x) for x in read.semantic_label.unique()]
    expected = sum(said[has].sum() - has.sum() * said[~has].mean() for has, said in of_label) / len(read)
    assert rungs.reads.value == pytest.approx(expected)
    assert [e.side for e in (rungs.reads, rungs.heard_minus_read, rungs.heard_minus_named)] == [1, -1, -1]


def test_intervals_are_those_of_the_runs_where_all_have_the_same_clips(study: Path) -> None:
    rungs = ladder(of(study)[0])
    for name, place in (("audio", ""), ("transcript", "transcript")):
        row = pd.read_csv(study / "lens" / place / "layers.csv").iloc[-1]
        assert rungs and rungs.shares[name, "semantic"].low == pytest.approx(row.win_semantic_lo, abs=1e-6)


def test_the_report_shows_it_in_both_languages(study: Path, tmp_path: Path) -> None:
    english, chinese = build_report(study, tmp_path / "out")
    assert "Given as text, the words' emotion is the answer in 100\u00a0%" in english and "Heard, it comes less often." in english
    assert "以文本给出时，100% 的回答是语义情绪。以音频给出时更少。" in chinese
    assert "figures/ladder.png" in english and "figures/zh/ladder.png" in chinese and "[!CAUTION]" not in english


def test_a_model_that_makes_nothing_of_texts_is_said_to_measure_nothing(study: Path) -> None:
    file = study / "lens" / "transcript" / "lens.csv"
    table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    who = np.select([table.semantic_label == "sad", table.prosody_label == "sad"], ["semantic", "prosody"], "other")
    table.assign(winner="sad", outcome=who).to_csv(file, index=False)
    rungs = ladder(of(study)[0])
    assert rungs and rungs.reads.value == pytest.approx(0) and rungs.reads.side == 0


@pytest.mark.parametrize(
    "change, trouble",
    [
        ({"identity__prompt": "{audio}Why?"}, "mixed up"),
        ({"identity__model_files": "1"}, "mixed up"),
        ({"identity__data_files": "1"}, "mixed up"),
        ({"identity__input": "audio"}, "other input"),
        ({"identity__lens": "tuned"}, "other input"),
        ({"finished": False}, "partial"),
        ({"warnings": ["beware"]}, "warning"),
    ],
)
def test_a_run_of_something_else_does_not_stand_on_it(change: dict[str, object], trouble: str, study: Path) -> None:
    change_record(study / "lens" / "transcript", **change)
    found, (told,) = of(study)
    assert told.name == trouble and ("transcript" in found.beside) == (trouble == "warning") and "described" in found.beside


def test_a_run_of_texts_is_no_study_of_its_own(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(study / "lens" / "transcript", tmp_path / "alone")
    with pytest.raises(SystemExit, match="2"):
        report.build.main(["--lens", str(tmp_path / "alone"), "--patching", str(tmp_path / "no"), "--out", str(tmp_path / "out")])
    assert "its clips were given as transcript, not as audio" in capsys.readouterr().err
