"""What check_manifest.py says of manifests with known faults, and whether its confounds are told from chance."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.clips.manifest import COLUMNS, LABELS
from data.check_manifest import as_text, main, read_all
from data.confounds import confound
from data.manifest_checks import findings
from tests.tiny_models.tiny import save_clips, save_manifest


def said(manifest: Path, capsys: pytest.CaptureFixture, *more: str, code: int = 0) -> str:
    with pytest.raises(SystemExit, match=str(code)):
        main([str(manifest), "--permutations", "20", *more])
    return capsys.readouterr().out


def rows_of(manifest: Path) -> list[list[str]]:
    with open(manifest, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def test_a_good_manifest(manifest: Path, capsys: pytest.CaptureFixture) -> None:
    text = said(manifest, capsys)
    assert "100 of 100 rows can be used" in text and "80 conflict clips, 20 congruent" in text
    assert re.search(r"speakers +2 +a 50, b 50\n", text) and re.search(r"texts +10 +10\.00 clips each", text)
    assert re.search(r"kinds of file +1 +WAV PCM_16, 16000 Hz, 1 channel 100\n", text)
    pairs = {tuple(m) for m in re.findall(r"(conflict|all) +(\S.*?) {2,}(\d+|-) +(\d+)\n", text)}
    # 10 texts x 2 speakers x 4 conflict prosodies x 3 others; 2 speakers x 5 prosodies x (8 clips x 6 of another label)
    assert ("conflict", "--same-speaker --same-text", "-", "240") in pairs and (
        "conflict",
        "--same-speaker",
        "480",
        "480",
    ) in pairs
    assert ("all", "--same-speaker --same-text", "-", "400") in pairs and ("conflict", "any", "960", "960") in pairs
    # texts differ in length, prosodies of a text do not
    assert ("conflict", "--equal-length", "0", "480") in pairs
    assert text.rstrip().endswith("What is wrong\n  nothing") and "not be meant\n  nothing" in text
    # a text has one length and two texts have one label: length tells nothing of the voice
    assert not re.search(r"length +voice .*tells", text)


def test_every_fault_is_listed_with_its_row(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = rows_of(save_clips(tmp_path, texts=1, speakers=("a",)))
    rows[0][4] = "furious"
    rows[1][1] = "gone.wav"
    rows[2][0] = rows[3][0]
    (tmp_path / rows[4][1]).write_bytes((tmp_path / rows[4][1]).read_bytes()[:3000])
    soundfile.write(tmp_path / rows[5][1], np.zeros(8000), 16_000)
    text = said(save_manifest(tmp_path / "m.csv", [tuple(r) for r in rows]), capsys, code=1)
    assert "20 of 25 rows can be used" in text
    for line in (
        "row 2, column semantic_label: unknown label 'furious'; allowed: neutral",
        "row 3, column audio: no such file",
        "row 5, column sample_id: 'neutral_0_angry_a' is already in row 4",
        "row 6, column audio: .*truncated: its header claims",
        "row 7, column audio: .*silent",
    ):
        assert re.search(line, text), line
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "gone.csv")])
    assert "no such manifest" in capsys.readouterr().err
    nothing = save_manifest(tmp_path / "bad.csv", [tuple(rows[0])])
    assert "0 of 1 rows can be used" in said(nothing, capsys, code=1)


def test_labels_that_are_not_asked_for_are_left_out(manifest: Path, capsys: pytest.CaptureFixture) -> None:
    text = said(manifest, capsys, "--labels", "neutral", "sad")
    assert "16 of 100 rows can be used" in text and "8 conflict clips, 8 congruent" in text
    assert "left out: 28 labelled happy" in text  # 2 texts x 5 prosodies x 2 speakers, and 2 x 2 x 2 of the other two labels


def test_contradictions(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = rows_of(save_clips(tmp_path, texts=1, speakers=("a", "")))
    rows[0][2] = "another text"
    rows[1][3] = "another_id"
    rows[2][4] = "sad"
    rows[3][6] = "A "
    rows[5][1] = rows[4][1]
    (tmp_path / rows[7][1]).write_bytes((tmp_path / rows[6][1]).read_bytes())
    text = said(save_manifest(tmp_path / "m.csv", [tuple(r) for r in rows]), capsys)
    for line in (
        "1 text_id with several texts, such as 'neutral_0': 'another text', 'text neutral 0'",
        "1 texts with several text_id, such as 'text neutral 0': 'another_id', 'neutral_0'",
        "1 text_id with several semantic labels, such as 'neutral_0': 'neutral', 'sad'",
        "1 speakers with several spellings, such as 'a': 'A', 'a'",
        "1 audio files with several rows",
        "1 recordings with several files",
        "25 clips without a speaker",
        "1 of 6 texts with one prosody only",
    ):
        assert line in text, line


def test_the_page_holds_all_of_it_and_escapes_what_is_foreign(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = rows_of(save_clips(tmp_path, texts=1, speakers=("a",)))
    rows[0][4] = "<b>furious</b>"
    for row in rows:
        row[6] = "<script>alert(1)</script>"
    save_manifest(tmp_path / "m.csv", [tuple(r) for r in rows])
    said(tmp_path / "m.csv", capsys, "--html", str(tmp_path / "page.html"), code=1)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "<b>" not in page and "&lt;b&gt;furious" in page and "data:image/png;base64," in page
    manifest = read_all(tmp_path / "m.csv", LABELS, trim=False)
    for section in findings(manifest, permutations=2, seed=0):
        assert section.title.replace("\\", "") in page.replace("\\", "")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "m.csv"), "--permutations", "1", "--html", str(tmp_path / "gone" / "page.html")])


def test_chance_is_not_called_a_confound(subtests: pytest.Subtests) -> None:
    """Of cues that know nothing of the label about .05 lie beyond the null; where clips of a text are alike, too."""
    for name, rate in (("number", "f"), ("name", "U")):
        with subtests.test(name):
            ps = []
            for seed in range(60):
                rng = np.random.default_rng(seed)
                texts = np.repeat(np.arange(20), 10)
                labels = np.array(LABELS)[np.repeat(rng.integers(5, size=20), 10)]  # one label a text, as words have
                values = np.repeat(rng.normal(size=20), 10) + 0.1 * rng.normal(size=200)  # and one length, nearly
                values = values if rate == "f" else np.digitize(values, (-1, 0, 1)).astype(str)
                found = confound("cue", values, "words", list(labels), list(texts.astype(str)), permutations=60, seed=seed)
                assert found is not None
                ps.append(found.p)
            assert np.mean(np.array(ps) <= 0.05) <= 0.15 and 0.35 < np.mean(ps) < 0.65


def test_planted_confounds_are_found() -> None:
    rng = np.random.default_rng(0)
    texts, voices = np.repeat(np.arange(20), 10), np.tile(np.array(LABELS), 40)
    level = np.where(voices == "angry", 6.0, 0.0) + rng.normal(size=200)
    loud = confound("level", level, "voice", list(voices), list(texts.astype(str)), permutations=100, seed=0)
    assert loud is not None and loud.tells and loud.p < 0.02 and loud.chance == 0.2
    speakers = np.where(voices == "sad", "anna", np.array(["ben", "cleo"])[rng.integers(2, size=200)])
    who = confound("speaker", speakers, "voice", list(voices), list(texts.astype(str)), permutations=100, seed=0)
    assert who is not None and who.tells and 0.3 < who.recall < 0.55  # sad is certain, four others share two names
    assert confound("speaker", np.array(["a"] * 200), "voice", list(voices), list(texts.astype(str)), seed=0) is None
    assert confound("level", level, "voice", list(voices), ["one"] * 200, seed=0) is None


def test_a_cue_that_only_knows_the_text_tells_nothing_of_texts_left_out() -> None:
    texts = np.repeat(np.arange(10), 20)
    labels = np.array(LABELS)[texts % 5]
    found = confound("cue", texts.astype(float), "words", list(labels), list(texts.astype(str)), permutations=50, seed=0)
    assert found is not None and not found.tells


def test_chinese_throughout(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = rows_of(save_clips(tmp_path, texts=1, speakers=("张三",)))
    names = dict(zip(LABELS, ("中性", "高兴", "悲伤", "愤怒", "惊讶")))
    changed = [(f"片段{i}", *r[1:2], "我们赢了。", f"文本{r[3]}", names[r[4]], names[r[5]], *r[6:]) for i, r in enumerate(rows)]
    save_manifest(tmp_path / "清单.csv", changed)
    text = said(tmp_path / "清单.csv", capsys, "--labels", *names.values(), "--html", str(tmp_path / "页.html"))
    assert (
        "25 of 25 rows can be used" in text and "张三 25" in text and "愤怒" in (tmp_path / "页.html").read_text(encoding="utf-8")
    )
    assert as_text([]) == "" and len(COLUMNS) == 9
