"""The report's ladder of audio, transcript, transcript and tone: its numbers by hand, and which runs may stand on it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import report.build
from report.chapters import wording_of
from report.inputs import Outputs, Study, read_outputs
from report.ladder import ladder_facts, read_texts
from tests.study import LAYERS, Truth, change_record, save_study

TRUTHS = {"transcript": Truth(words=4, voice=0), "told": Truth(words=1, voice=4)}


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


def of(study: Path) -> Study:
    lens = read_outputs("lens", study / "lens")
    assert isinstance(lens, Outputs)
    return Study(lens, None)


def build(study: Path, out: Path) -> list[str]:
    report.build.main(["--lens", str(study / "lens"), "--patching", str(study / "patching"), "--out", str(out), "--no-audio"])
    return [(out / f"report{end}.md").read_text(encoding="utf-8") for end in ("", ".zh")]


def test_shares_and_paired_differences_by_hand(study: Path) -> None:
    """On the clips that all rungs have: two of the transcript run are taken away."""
    file = study / "lens" / "transcript" / "lens.csv"
    table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    conflict = table[table.semantic_label != table.prosody_label]
    gone = list(conflict.sample_id.unique()[:2])
    table[~table.sample_id.isin(gone)].to_csv(file, index=False)
    texts, troubles = read_texts(of(study))
    assert list(texts) == ["transcript", "told"] and not troubles
    facts = ladder_facts(of(study).lens, texts)  # type: ignore[arg-type]
    last = {}
    for name, place in (("audio", ""), ("transcript", "transcript"), ("told", "told")):
        rows = pd.read_csv(study / "lens" / place / "lens.csv", keep_default_na=False, na_values=[""])
        rows = rows[(rows.layer == LAYERS - 1) & (rows.semantic_label != rows.prosody_label) & ~rows.sample_id.isin(gone)]
        last[name] = rows.set_index("sample_id").sort_index()
    n = len(last["transcript"])
    assert n == len(last["audio"]) == 118
    for name, rows in last.items():
        for outcome in ("semantic", "prosody", "other"):
            fact = facts[f"{name}: {outcome}"]
            assert (
                fact.n == n
                and fact.value == pytest.approx((rows.outcome == outcome).mean())
                and fact.lo <= fact.value <= fact.hi + 1e-9
            )
    for name in ("transcript", "told"):
        for kind in ("semantic", "prosody"):
            found, a, b = facts[f"audio - {name}: {kind}"], last["audio"], last[name]
            assert found.value == pytest.approx(((a.outcome == kind).astype(int) - (b.outcome == kind).astype(int)).mean())
    change = (last["told"].outcome == "prosody").mean() - (last["transcript"].outcome == "prosody").mean()
    assert facts["told - transcript: prosody"].value == pytest.approx(change)
    read = last["transcript"]
    expected = 0.0
    for _, group in read.groupby("prosody_label"):  # of m answers x and k clips whose words are x, m k / n hit by chance
        expected += sum((group.winner == x).sum() * (group.semantic_label == x).sum() / len(group) for x in group.winner.unique())
    assert facts["transcript: excess"].value == pytest.approx((read.outcome == "semantic").mean() - expected / n)
    verdicts = [facts[f].verdict for f in ("transcript: excess", "audio - transcript: semantic", "audio - told: prosody")]
    assert verdicts == ["more", "less", "less"]


def test_intervals_are_those_of_the_runs_where_all_have_the_same_clips(study: Path) -> None:
    facts = ladder_facts(of(study).lens, read_texts(of(study))[0])  # type: ignore[arg-type]
    for name, place in (("audio", ""), ("transcript", "transcript")):
        row = pd.read_csv(study / "lens" / place / "layers.csv").iloc[-1]
        found = facts[f"{name}: semantic"]
        assert (found.lo, found.hi) == pytest.approx((row.win_semantic_lo, row.win_semantic_hi), abs=1e-6)
    assert facts["transcript: excess"].lo == pytest.approx(row.win_semantic_excess_lo, abs=1e-6)


def test_the_report_shows_it_in_both_languages_with_the_same_numbers(study: Path, tmp_path: Path) -> None:
    english, chinese = build(study, tmp_path / "out")
    parts = []
    for text, heading, names in (
        (english, "### Words alone", ("audio", "transcript", "transcript and tone")),
        (chinese, "### 只有文本", ("音频", "文本", "文本与语气")),
    ):
        part = re.split(r"^## ", text.split(heading)[1], flags=re.M)[0]
        assert all(re.search(rf"^\| {name} \| 120 \| ", part, re.M) for name in names) and part.count("\n- **") == 3
        assert "/ladder.png)" in part and "[!CAUTION]" not in text and "nan" not in part
        parts.append(sorted(re.findall(r"[+-]?\d+\.\d+", part)))
    assert parts[0] == parts[1] and len(parts[0]) > 40
    assert "reading brings the words' label more often than listening does" in english
    assert "a tone that is named is followed more often than one that is heard" in english
    for place in ("figures", "figures/zh"):
        assert (tmp_path / "out" / place / "ladder.png").stat().st_size > 10_000
    assert "Logit Lens (文本)" in chinese or "Logit Lens（文本）" in chinese


def test_a_model_that_makes_nothing_of_texts_is_said_to_measure_nothing(study: Path) -> None:
    file = study / "lens" / "transcript" / "lens.csv"
    table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    who = np.select([table.semantic_label == "sad", table.prosody_label == "sad"], ["semantic", "prosody"], "other")
    table.assign(winner="sad", outcome=who).to_csv(file, index=False)
    facts = ladder_facts(of(study).lens, read_texts(of(study))[0])  # type: ignore[arg-type]
    assert facts["transcript: excess"].verdict == "none"
    (english,), (chinese,) = (wording_of(language).ladder(facts) for language in ("en", "zh"))  # and no comparison with them
    assert "its answers to texts measure nothing" in english and "不能作为尺度" in chinese


@pytest.mark.parametrize(
    "change, trouble",
    [
        ({"identity__prompt": "{audio}Why?"}, "mixed up"),
        ({"identity__model_files": "1"}, "mixed up"),
        ({"identity__data_files": "1"}, "mixed up"),
        ({"identity__input": "audio"}, "other input"),
        ({"finished": False}, "partial"),
        ({"warnings": ["beware"]}, "warning"),
    ],
)
def test_a_run_of_something_else_does_not_stand_on_it(change: dict[str, object], trouble: str, study: Path) -> None:
    change_record(study / "lens" / "transcript", **change)
    texts, (found,) = read_texts(of(study))
    assert found.name == trouble and ("transcript" in texts) == (trouble == "warning") and "told" in texts


def test_a_run_of_texts_is_no_study_of_its_own(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(study / "lens" / "transcript", tmp_path / "alone")
    with pytest.raises(SystemExit, match="2"):
        report.build.main(["--lens", str(tmp_path / "alone"), "--patching", str(tmp_path / "no"), "--out", str(tmp_path / "out")])
    assert "its clips were given as transcript, not as audio" in capsys.readouterr().err
