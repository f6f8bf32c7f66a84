"""A run that names no model: the small model where it can be had, else a test weight that is said to be one."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

import activation_patching.run
import logit_lens.run
from common import default_model
from common.errors import InputError
from common.model import ModelChoice


def assembled(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int, says: str = "") -> None:
    """Let the small model lie in `folder`, and putting it together end with a code."""
    monkeypatch.setattr(default_model, "SMALL", folder)
    monkeypatch.setattr(default_model, "_assemble", lambda: CompletedProcess([], code, stderr=says))


def test_the_small_model_is_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assembled(monkeypatch, tmp_path, 0)
    nothing, named = ModelChoice(""), ModelChoice("mine")
    assert default_model.settle(nothing, redraw=False) == (ModelChoice(str(tmp_path)), "")
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(default_model, "_assemble", lambda: pytest.fail("it is there already"))
    assert default_model.settle(nothing, redraw=False) == (ModelChoice(str(tmp_path)), "")
    assert default_model.settle(named, redraw=False) == (named, "") and default_model.settle(nothing, redraw=True) == (
        nothing,
        "",
    )


def test_a_start_beside_another_waits_until_that_has_put_it_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            (tmp_path / "model.safetensors").touch()

    monkeypatch.setattr(default_model, "SMALL", tmp_path)
    monkeypatch.setattr(default_model, "subprocess", SimpleNamespace(run=under_way, CompletedProcess=CompletedProcess))
    monkeypatch.setattr(default_model, "time", SimpleNamespace(sleep=sleep))
    assert default_model.default_model() == tmp_path and len(waited) == 3
    assert capsys.readouterr().out.count("this one waits for that") == 1


def under_way(command: list[str], **_: object) -> CompletedProcess:
    return CompletedProcess(command, default_model.UNDER_WAY)


def test_without_its_weights_a_test_weight_goes_on_in_a_folder_of_its_own(
    tmp_path: Path, tiny_folder: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assembled(monkeypatch, tmp_path / "none", default_model.NOT_DOWNLOADED)
    monkeypatch.setattr(default_model, "TEST_WEIGHT", tiny_folder.resolve())
    monkeypatch.setattr(logit_lens.run, "HERE", tmp_path / "logit_lens")
    logit_lens.run.main(["--data", str(manifest), "--limit", "4"])
    out = tmp_path / "logit_lens" / "outputs" / tiny_folder.name
    assert json.loads((out / "run.json").read_text())["test_weight"] is True
    printed = capsys.readouterr().out.strip()
    assert printed.startswith("its weights could not be downloaded") and printed.splitlines()[-1].endswith("any other model")


def test_any_other_failure_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assembled(monkeypatch, tmp_path, 2, "error: the SHA-256 is another one\n")
    with pytest.raises(InputError, match=r"could not be put together \(the SHA-256 is another one\); --model names another one"):
        default_model.settle(ModelChoice(""), redraw=False)


@pytest.mark.parametrize(
    ("script", "wrong", "says"),
    [
        (logit_lens.run, ["--words", "a", "b"], "--words a b: must be 5 different words"),
        (logit_lens.run, ["--data", "none.csv"], "none.csv: no such manifest"),
        (activation_patching.run, ["--rank", "2"], "--at and --rank say how"),
        (activation_patching.run, ["--pairs-file", "none.csv"], "--pairs-file .*none.csv: cannot be read"),
        (activation_patching.run, ["--intervention", "knockout", "--at", "last", "--plan"], "--at does not go with"),
    ],
)
def test_a_wrong_option_is_told_before_a_model_is_put_together(
    script: Any, wrong: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_model, "default_model", lambda: pytest.fail("a model was put together"))
    with pytest.raises(InputError, match=says):
        script.main(wrong)
