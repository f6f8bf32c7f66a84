"""The card of a replication: its sentences on studies whose truth is known, and the whole way of `make replicate`."""

import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

import activation_patching.run
import data.import_dataset
import logit_lens.run
import report.card
from common.run import record
from tests.helpers.prose import numbers, sentences
from tests.helpers.study import Truth, change_record, nothing_drawn, save_study
from tests.tiny_models.tiny import RATE

ROOT = Path(__file__).resolve().parents[2]
EMIS = ("neutral", "happy", "sad", "angry")
MAINS = {
    "data/import_dataset.py": data.import_dataset.main,
    "logit_lens/run.py": logit_lens.run.main,
    "activation_patching/run.py": activation_patching.run.main,
    "report/card.py": report.card.main,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_study(tmp_path_factory.mktemp("made"), Truth(words=0, voice=4), labels=EMIS, pairs=20)


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


def cards(study: Path, model: str, *sources: str) -> tuple[str, str]:
    """Return the cards of a study, in English and in Chinese, once its model and the sources of its clips have these names."""
    for run in ("lens", "patching"):
        change_record(study / run, identity__model=model, identity__commit="c0ffee")
    change_record(study / "lens", counts__sources=list(sources))
    written = report.card.write_cards(study / "lens", study / "patching", study / "card")
    return tuple(file.read_text(encoding="utf-8") for file in written)  # type: ignore[return-value]


def test_the_card_of_a_model_with_published_figures(study: Path) -> None:
    english, chinese = cards(study, "Qwen/Qwen2-Audio-7B-Instruct", "EMIS COSY", "EMIS STYLE")
    assert "# Words or voice? `Qwen/Qwen2-Audio-7B-Instruct` on EMIS\n" in english and "数据集 EMIS\n" in chinese
    for text in (english, chinese):
        assert "Qwen2-Audio | 936 | 0.658 | 0.135 | 0.207 |" in text and "SALMONN" not in text
        assert "commit `c0ffee`" in text and "torch 2.13.0" in text and "None" not in text and "nan" not in text
        assert "python data/import_dataset.py EMIS FOLDER --labels neutral happy sad angry --out " in text
    assert "**It answers with the voice.**" in english and "**模型按韵律回答。**" in chinese
    assert "published share of the words lies above" in english and "published share of the voice lies below" in english
    assert "语义占比高于本次运行的区间。" in chinese and "韵律占比低于本次运行的区间。" in chinese
    assert "other options" not in english and "We know of no" not in english
    said = [s for s in sentences(english) if "arXiv" not in s]
    assert max(len(s.split()) for s in said) <= 25, max(said, key=lambda s: len(s.split()))
    assert not [s for s in said if len(numbers(re.sub("95 % interval|layer [0-9.]+", "", s))) > 1]


def test_the_card_names_no_folder_of_this_machine(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "ROOT", study.parent)  # as where the outputs lie in the repository
    for text in cards(study, "mine"):
        assert "python report/card.py --lens study/lens --patching study/patching --out study/card\n" in text


def test_the_card_of_a_model_without_any(study: Path) -> None:
    english, chinese = cards(study, "DeSTA-ntu/DeSTA2.5-Audio-Llama-3.1-8B", "EMIS COSY")  # DeSTA2 is another
    assert "We know of no published figures of a model of this name on EMIS." in english and "936" not in english
    assert "未见过该名称的模型在 EMIS 上" in chinese and "| 本次运行 |" in chinese
    for run in ("lens", "patching"):
        change_record(study / run, identity__labels=[*EMIS, "surprised"])
    english, _ = cards(study, "DeSTA-ntu/DeSTA2-8B-beta", "EMIS COSY")
    assert "DeSTA2 | 936 |" in english and "They are for other options: neutral, happy, sad, angry." in english
    english, _ = cards(study, "mine", "RAVDESS")
    assert "We know of no published figures on these clips." in english and "import_dataset" not in english


def test_what_is_no_card(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--lens", str(study / "lens"), "--patching", str(study / "patching"), "--out", str(tmp_path / "card")]

    def refused(*more: str) -> str:
        with pytest.raises(SystemExit, match="2"):
            report.card.main([*options, *more])
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and not (tmp_path / "card").exists()
        return said

    assert "no finished run to make a card of" in refused("--lens", str(tmp_path / "gone"))
    assert "is of the other experiment" in refused("--lens", str(study / "patching"))
    change_record(study / "patching", identity__dtype="bfloat16")
    assert "they differ in dtype (float32, bfloat16)" in refused()


def test_a_failed_check_is_on_the_card(study: Path) -> None:
    change_record(study / "patching", self_check__tolerance=-1.0)
    english, chinese = cards(study, "mine")
    assert "**Check failed**" in english and "Not all self-checks" in english and "并非所有自检" in chinese


def emis_tree(folder: Path) -> Path:
    """Write clips named as in EMIS: two texts a label, each said in four voices."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for words, number, voice in itertools.product(EMIS, ("01", "02"), EMIS):
        wave = 0.3 * rng.standard_normal(RATE // 2)
        soundfile.write(folder / f"{number}_{words}_{voice}_0011_COSY.wav", wave, RATE)
    return folder


def replicate(*told: str) -> subprocess.CompletedProcess[str]:
    """Return what `make replicate` would run."""
    return subprocess.run(["make", "-n", "-C", str(ROOT), "replicate", *told], capture_output=True, text=True)


def test_make_replicate(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """The commands of the make target, one after the other, on a made EMIS tree with a tiny model."""
    told = [f"MODEL={tiny_folder}", f"EMIS={emis_tree(tmp_path / 'EMIS')}", f"REPLICATION={tmp_path / 'out'}", "PAIRS=6"]
    (tmp_path / "out").mkdir()
    asked = replicate(*told, "OPTIONS=--device cpu")
    lines = [shlex.split(line) for line in re.findall(r"^\S*python (.*\.py .*)$", asked.stdout, flags=re.M)]
    assert [line[0] for line in lines] == [*MAINS][:1] + [*MAINS][1:3] * 2 + [*MAINS][3:]
    with nothing_drawn():
        for script, *options in lines:
            MAINS[script](options)
    assert "32 clips of EMIS" in capsys.readouterr().out
    card = (tmp_path / "out" / "card" / "card.md").read_text(encoding="utf-8")
    assert (
        "| this run | 24 | " in card and "We know of no published figures" in card and "| words of another emotion | 6 | " in card
    )
    assert (tmp_path / "out" / "card" / "card.zh.md").exists() and "All 5 checks passed" in card


def test_make_replicate_says_what_it_needs() -> None:
    done = replicate("MODEL=x")
    assert done.returncode == 2 and "make replicate MODEL=hub-id EMIS=folder" in done.stderr
