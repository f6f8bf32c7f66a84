"""A model that is not in transformers, with code of its own in a folder or on the hub, through both scripts."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from common.errors import InputError
from common.model.lm import wrap_model
from tests.helpers.hub import Repo, hub, scripts
from tests.model.test_hub import checked_by_splice, commit, line
from tests.tiny_models.own_code.remote import save_remote
from tests.tiny_models.own_code.remote_code import Own, OwnConfig
from tests.tiny_models.tiny import save_clips


@pytest.mark.slow
def test_a_model_with_code_of_its_own(tmp_path: Path) -> None:
    """From a folder and from the hub: the same rows; without --trust-remote-code a line, and no code is run."""
    folder, clips = save_remote(tmp_path / "model"), save_clips(tmp_path / "clips", texts=1, speakers=("a",))
    newest = "c" * 40
    with (
        hub({"me/own": Repo({"main": (newest, folder), newest: (newest, folder)})}) as (endpoint, _),
        scripts(HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="0") as run,
    ):
        for model in (str(folder), "me/own"):
            code, said = run(*line("logit_lens", model, clips, tmp_path / "none"))
            assert code == 2 and said.startswith(f"error: --model {model}: comes with code of its own"), said
            assert said.endswith("--trust-remote-code runs it") and not (tmp_path / "none").exists()
        for script, name, model in (
            ("logit_lens", "lens", str(folder)),
            ("activation_patching", "patching", str(folder)),
            ("logit_lens", "lens-hub", "me/own"),
        ):
            code, said = run(*line(script, model, clips, tmp_path / name, "--trust-remote-code"))
            assert code == 0, said
    checked_by_splice(tmp_path / "patching")
    assert (tmp_path / "lens" / "lens.csv").read_bytes() == (tmp_path / "lens-hub" / "lens.csv").read_bytes()
    assert commit(tmp_path / "lens-hub") == newest
    rows = pd.read_csv(tmp_path / "patching" / "patches.csv")
    assert rows[rows.layer.between(1, 2)].delta_logit.abs().max() > 0.01


def test_the_blocks_are_the_largest_list_around_the_embeddings() -> None:
    model = Own(OwnConfig())
    model.config.audio_token_id = 7
    assert wrap_model(model, None, device=torch.device("cpu")).blocks is model.trunk.stages
    model.trunk.small = nn.ModuleList([nn.Linear(2, 2) for _ in range(9)])
    assert wrap_model(model, None, device=torch.device("cpu")).blocks is model.trunk.stages


@pytest.mark.parametrize("lack", ["audio token", "embeddings", "blocks"])
def test_what_a_checkpoint_lacks_is_said_with_what_it_needs(lack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Own(OwnConfig())
    if lack != "audio token":
        model.config.audio_token_id = 7
    if lack == "embeddings":
        monkeypatch.setattr(Own, "get_input_embeddings", lambda self: (_ for _ in ()).throw(NotImplementedError))
    if lack == "blocks":
        model.trunk.stages, model.hearing = nn.Sequential(*model.trunk.stages), nn.Sequential(*model.hearing)
    with pytest.raises(InputError, match=r"^Own is .*Needed: a config or processor with an audio token.*--trust-remote-code"):
        wrap_model(model, None, device=torch.device("cpu"))
