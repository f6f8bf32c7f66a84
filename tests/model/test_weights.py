"""Weights before and while they are read: their form, their precision, and what a user sees of it."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.clips.manifest import read_clips
from common.compute import session
from common.compute.session import open_session
from common.errors import InputError
from common.model import ModelChoice
from common.model.device import quantised, quantization_config, read_quantization
from common.model.load import load_model
from common.model.prompts import ask
from common.run.command_line import argument_parser, settings
from common.run.record import identify

CPU = torch.device("cpu")


@pytest.mark.parametrize("other", ["pytorch_model.bin", None])
def test_a_folder_without_safetensors_is_refused(other: str | None, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    if other:
        (tmp_path / "model" / other).write_bytes(b"weights")
    with pytest.raises(InputError, match=f"no weights in safetensors, {'only ' + other if other else 'no weights at all'}"):
        load_model(str(tmp_path / "model"), device=CPU, dtype=torch.float32)


def test_a_disk_that_fills_up_meanwhile_is_told(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("cannot find the file") from error

    monkeypatch.setattr("common.model.load.spread_over", full)
    with pytest.raises(InputError, match=r"cannot be loaded \(the disk is full: .*No space left on device"):
        load_model(str(tiny_folder), device=CPU, dtype=torch.float32)


def test_the_progress_of_loading_reaches_the_user(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_model(str(tiny_folder), device=CPU, dtype=torch.float32)
    assert "Loading weights: 100%" in capsys.readouterr().err


def test_quantisation_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_quantization(None, CPU, torch.float32) is None
    for found, device, expected in (
        (None, "cuda", "--quantization 4bit: needs bitsandbytes, which is not installed"),
        (SimpleNamespace(), "cpu", "--quantization 4bit: needs a CUDA GPU, and this run is on cpu"),
    ):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        with pytest.raises(InputError, match=f"^{expected}"):
            read_quantization("4bit", torch.device(device), torch.float32)
    settings = read_quantization("4bit", torch.device("cuda"), torch.bfloat16)
    assert settings and settings.load_in_4bit and settings.bnb_4bit_compute_dtype == torch.bfloat16


def test_quantised_weights_are_told_and_make_another_run(
    tiny_folder: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, question = read_clips(manifest, None)[0][:2], ask("speaker")
    for given in ([], ["--quantization", "4bit"], ["--quantization", "8bit"]):
        args = argument_parser("").parse_args(["--model", str(tiny_folder), "--data", str(manifest), *given])
        choice = settings(args, "").model
        known = identify("logit_lens", model=choice, question=question, data=manifest, clips=samples, options={})
        assert known["quantization"] == choice.quantization == (given[-1] if given else None)
    lm = load_model(str(tiny_folder), device=CPU, dtype=torch.float32)
    assert quantised(lm.model) == ""
    for kind in ("8bit", "4bit"):
        lm.model.config.quantization_config = quantization_config(kind, torch.float32)
        assert quantised(lm.model) == f"bitsandbytes, {kind[0]} bits"
    monkeypatch.setattr(session, "load", lambda model: lm)
    opened = open_session(ModelChoice(str(tiny_folder)), question, samples, engines=())
    assert opened.facts()["quantised"] == "bitsandbytes, 4 bits"
    assert any(w.startswith("the weights are quantised (bitsandbytes, 4 bits)") for w in opened.warnings)
