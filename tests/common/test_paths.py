"""Paths that people give: one path from the command line to every reader, whatever signs are in it."""

import argparse
import os
import unicodedata
from pathlib import Path

import pytest

import logit_lens.run
from common import files
from common.clips.manifest import COLUMNS, read_manifest
from common.errors import InputError
from common.paths import given_path, path_or_name, why_missing
from common.run.command_line import prompt_name
from tests.tiny_models.tiny import save_clips, save_tiny_model

STRANGE = ("a b", "100%", "$HOME", "#1", "情感", "[x]", "{audio}", "~x", "a'b\"c", "-x", "é", "e\u0301", "*")


@pytest.mark.parametrize("name", STRANGE)
def test_a_name_with_any_sign_is_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.wav").touch()
    (tmp_path / name / "m.csv").write_text(f"{','.join(COLUMNS)}\n1,a.wav,x,t,happy,sad,s,en,x\n")
    (sample,) = read_manifest(given_path(str(tmp_path / name / "m.csv")))
    assert sample.audio == tmp_path / name / "a.wav"
    monkeypatch.chdir(tmp_path / name)
    assert given_path("m.csv") == tmp_path / name / "m.csv" and path_or_name("org/model") == "org/model"


def test_a_home_is_expanded_once_and_an_unset_variable_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "q.txt").write_text("{audio}?")
    assert given_path("~/runs/x") == tmp_path / "runs" / "x"
    assert path_or_name("~/model") == str(tmp_path / "model") and prompt_name("~/q.txt") == str(tmp_path / "q.txt")
    for text in ("", "~nobody_of_this_name/x", "a\0b", "\udcff"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"must|no such home folder"):
            given_path(text)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_composed_or_not_and_backslashes_find_the_file(forms: tuple[str, str], tmp_path: Path) -> None:
    given, there = (unicodedata.normalize(form, "é über.wav") for form in forms)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / there).touch()
    assert given_path(str(tmp_path / "clips" / given)) == tmp_path / "clips" / there
    (tmp_path / "m.csv").write_text(f"{','.join(COLUMNS)}\n1,clips\\{given},x,t,happy,sad,s,en,x\n", encoding="utf-8")
    (sample,) = read_manifest(tmp_path / "m.csv")
    assert sample.audio.is_file()


def test_what_is_missing_is_told_from_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "Clip.wav").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert why_missing(tmp_path / "clip.wav") == f"; in {tmp_path} is 'Clip.wav', which is not 'clip.wav'"
    assert why_missing(tmp_path / "clip.wav ") == f"; in {tmp_path} is 'Clip.wav', which is not 'clip.wav '"
    assert why_missing(tmp_path / "link") == f"; it is a link to {tmp_path / 'gone'}, where there is none"
    assert why_missing(tmp_path / "sub" / "a.wav") == f"; there is no folder {tmp_path / 'sub'}"
    assert why_missing(tmp_path / "a.wav") == ""
    with pytest.raises(InputError, match="no folder can be made there; it is a link to"):
        files.check(tmp_path / "link")


def test_a_folder_named_by_its_home_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(logit_lens.run, "plot_lens", lambda *_: [])
    monkeypatch.setenv("HOME", str(tmp_path))
    save_tiny_model(tmp_path / "model")
    save_clips(tmp_path / "$clips #1", texts=1)
    shared = ["--model", "~/model", "--data", "~/$clips #1/manifest.csv", "--limit", "3"]
    logit_lens.run.main([*shared, "--out", str(tmp_path / "x")])
    with pytest.raises(InputError, match=rf"{tmp_path}/x holds a run with other settings: prompt"):
        logit_lens.run.main([*shared, "--prompt", "voice", "--out=~/x"])
    assert not os.path.exists("~") and f"{tmp_path / 'x'}:" in capsys.readouterr().out
