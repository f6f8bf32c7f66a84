"""`from common import ...`: the README's lines run as they stand, and mistakes are as clear as the scripts'."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import activation_patching.run
import logit_lens.run
from common import lens, load_model, pairs, patch, read_clips
from common.compute.session import Session
from common.errors import InputError
from tests.helpers.prose import ROOT
from tests.tiny_models.tiny import LAYERS

LINES = [
    re.findall(r"^```python\n(.*?)^```", (ROOT / f).read_text("utf-8"), flags=re.S | re.M) for f in ("README.md", "README.zh.md")
]


@pytest.fixture(scope="module")
def model(tiny_folder: Path, manifest: Path) -> Session:
    return load_model(tiny_folder, device="cpu", clips=read_clips(manifest)[:1])


@pytest.mark.draws
def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((english,), chinese) = LINES
    assert len(english.splitlines()) <= 10 and chinese == [english]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    names: dict = {}
    exec(english, names)
    answers, patched = names["answers"], names["patched"]
    assert answers.layer.tolist() == patched.layer.tolist() == list(range(13))
    assert answers.winner.iloc[-1] == names["clips"][0].semantic_label  # asked for the words
    assert patched.pred_patch.iloc[0] == patched.target.iloc[0] and patched.flip_from_base.iloc[-1] == 0
    assert (tmp_path / "patched.png").read_bytes().startswith(b"\x89PNG")


def test_rows_are_those_of_the_scripts(model: Session, tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    """Of a run of more clips too, whose session was opened on others."""
    options = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu"]
    logit_lens.run.main([*options, "--limit", "3", "--out", str(tmp_path / "lens")])
    activation_patching.run.main([*options, "--kinds", "semantic", "--max-pairs", "3", "--out", str(tmp_path / "patching")])
    clips = read_clips(manifest, limit=3)
    drawn = pairs(read_clips(manifest), "semantic", limit=3)
    for rows, table in ((lens(model, *clips), "lens/lens.csv"), (patch(model, *drawn), "patching/patches.csv")):
        written = pd.read_csv(tmp_path / table)
        key = next(c for c in ("pair_id", "sample_id") if c in rows)
        written, rows = (t[t[key].isin(rows[key])].sort_values([key, "layer"], ignore_index=True) for t in (written, rows))
        assert len(rows) == 3 * (LAYERS + 1)
        pd.testing.assert_frame_equal(rows[written.columns], written, atol=2e-5, check_dtype=False)


def test_mistakes_are_one_clear_line(model: Session, manifest: Path, tmp_path: Path) -> None:
    clip = read_clips(manifest)[0]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    for call, message in (
        (lambda: read_clips(tmp_path / "none.csv"), r"none\.csv: no such manifest"),
        (lambda: pairs([clip], "words"), "kind 'words'; allowed: semantic, prosody"),
        (lambda: pairs([clip]), "no semantic pairs among 1 clips"),
        (lambda: load_model("x", prompt="x"), "--prompt x: neither a readable text file nor one of speaker"),
        (lambda: lens(model, replace(clip, audio=broken)), r"broken\.wav"),
        (
            lambda: lens(model, replace(clip, prosody_label="bored")),
            "labelled bored; the model was asked for neutral, happy, sad",
        ),
    ):
        with pytest.raises(InputError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_draw_is_of_all_labels() -> None:
    assert {clip.semantic_label for clip in read_clips(limit=60)} == {"neutral", "happy", "sad", "angry", "surprised"}
    assert len(read_clips(conflict=False)) == 500


def test_common_imports_nothing_until_it_is_asked() -> None:
    heavy = "import common, sys; sys.exit(bool({'torch', 'pandas', 'matplotlib', 'numpy'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", heavy], cwd=ROOT).returncode == 0
