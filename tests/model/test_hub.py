"""Both scripts with a hub id, against a server of the hub's protocol: commits, branches, no network, and every refusal."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from common.errors import InputError
from common.model.lm import wrap_model
from tests.helpers.hub import Repo, hub, scripts
from tests.tiny_models.own_code.remote import save_remote
from tests.tiny_models.own_code.remote_code import Own, OwnConfig
from tests.tiny_models.tiny import save_clips, save_tiny_model

OLD, NEW = "a" * 40, "b" * 40
CODE = "comes with code of its own"
REFUSED: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("me/gone", (), "no model folder or hub id that can be read (me/gone is not a local folder"),
    ("me/gated-401", (), "no model folder or hub id that can be read (it is gated: ask for access on its page"),
    ("me/gated-403", (), "no model folder or hub id that can be read (it is gated: ask for access on its page"),
    ("me/unsafe", (), "has no weights in safetensors, only pytorch_model.bin, which can run code as it is read"),
    ("me/huge", (), "1000000.0 GB are to be downloaded, and the disk of the cache "),
    ("me/tiny", ("--revision", "v9"), "no model folder or hub id that can be read (v9 is not a valid git identifier"),
    ("me/cut", (), "cannot be loaded (RemoteProtocolError: peer closed connection without sending complete message body"),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clips(tmp_path_factory.mktemp("few"), texts=1, speakers=("a",))


def line(script: str, model: str, data: Path, out: Path, *more: str) -> tuple[str, list[str]]:
    few = ["--limit", "2"] if script == "logit_lens" else ["--max-pairs", "1", "--kinds", "prosody"]
    return script, ["--model", model, "--data", str(data), "--out", str(out), "--device", "cpu", *few, *more]


def commit(out: Path) -> str:
    return str(json.loads((out / "run.json").read_text())["identity"]["commit"])


def test_hub_ids_and_code_of_a_models_own(tiny_folder: Path, clips: Path, tmp_path: Path) -> None:
    """The short form, in one process: what is asked for, what is refused, and code that runs only with --trust-remote-code."""
    own = save_remote(tmp_path / "own")
    repos = {"me/tiny": Repo({"main": (OLD, tiny_folder), OLD: (OLD, tiny_folder)})}
    repos["me/own"] = Repo({"main": (NEW, own), NEW: (NEW, own)})
    with (
        hub(repos) as (endpoint, asked),
        scripts(HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="0") as run,
    ):
        assert run(*line("logit_lens", "me/tiny", clips, tmp_path / "none", "--plan"))[0] == 0
        assert any("tokenizer.json" in a for a in asked) and not any("safetensors" in a for a in asked)
        for model, expected in (("me/gone", "no model folder or hub id that can be read"), ("me/own", CODE), (str(own), CODE)):
            code, said = run(*line("logit_lens", model, clips, tmp_path / "none"))
            assert (code, said.startswith(f"error: --model {model}: {expected}")) == (2, True), said
        for script, model, more, expected in (
            ("logit_lens", "me/tiny", ("--revision", OLD), OLD),
            ("activation_patching", "me/own", ("--trust-remote-code",), NEW),
        ):
            code, said = run(*line(script, model, clips, tmp_path / script, *more))
            assert (code, commit(tmp_path / script)) == (0, expected), said
    assert not (tmp_path / "none").exists()
    checked_by_splice(tmp_path / "activation_patching")


def checked_by_splice(out: Path) -> None:
    """Assert that a run of the model with code of its own was patched by splice, and that its audio matters."""
    record = json.loads((out / "run.json").read_text())
    assert (record["model_class"], record["blocks"], record["engine"]) == ("Own", 3, "splice")
    check = record["self_check"]
    assert check["splice - rerun"] < check["tolerance"] < check["A - B, for comparison"] / 10
    rows = pd.read_csv(out / "patches.csv")
    assert rows[rows.layer.between(1, 2)].delta_logit.abs().max() > 0.01


def refuses(run: Callable[[str, list[str]], tuple[int, str]], clips: Path, out: Path) -> None:
    """Assert that each of REFUSED is one line, and that nothing is left of it."""
    for model, more, expected in REFUSED:
        code, said = run(*line("logit_lens", model, clips, out, *more))
        assert (code, said.startswith(f"error: --model {model}: {expected}"), out.exists()) == (2, True, False), said


def served(revisions: dict[str, tuple[str, Path]], own: Path, unsafe: Path) -> dict[str, Repo]:
    """Return what the hub has: a model as it is, cut off, gated, unsafe, with code of its `own`, and said to be huge."""
    repos = {"me/tiny": Repo(revisions), "me/cut": Repo(revisions, cut={"model.safetensors": 5_000})}
    repos |= {f"me/gated-{status}": Repo(revisions, gated=status) for status in (401, 403)}
    repos |= {name: Repo({"main": (OLD, of), OLD: (OLD, of)}) for name, of in (("me/unsafe", unsafe), ("me/own", own))}
    return repos | {"me/huge": Repo(revisions, told={"model.safetensors": 10**15})}


@pytest.mark.slow
def test_hub_ids_online_and_then_offline(tiny_folder: Path, clips: Path, tmp_path: Path) -> None:
    newer = save_tiny_model(tmp_path / "newer", seed=1)
    revisions = {"main": (OLD, tiny_folder), "v2": (NEW, newer), OLD: (OLD, tiny_folder), NEW: (NEW, newer)}
    unsafe, own = tmp_path / "unsafe", save_remote(tmp_path / "code")
    shutil.copytree(tiny_folder, unsafe, ignore=shutil.ignore_patterns("*.safetensors"))
    (unsafe / "pytorch_model.bin").write_bytes(b"weights")
    repos = served(revisions, own, unsafe)
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    with hub(repos) as (endpoint, asked), scripts(HF_ENDPOINT=endpoint, **home) as run:
        for script in ("logit_lens", "activation_patching"):
            assert run(*line(script, "me/tiny", clips, tmp_path / "none", "--plan"))[0] == 0
        assert any("tokenizer.json" in a for a in asked) and not any("safetensors" in a for a in asked)
        assert run(*line("logit_lens", "me/tiny", clips, tmp_path / "main"))[0] == 0
        repos["me/tiny"] = Repo(revisions | {"main": (NEW, newer)})  # the branch moves on
        assert run(*line("activation_patching", "me/tiny", clips, tmp_path / "v2", "--revision", "v2"))[0] == 0
        assert run(*line("logit_lens", "me/tiny", clips, tmp_path / "old", "--revision", OLD))[0] == 0
        assert (commit(tmp_path / "main"), commit(tmp_path / "v2"), commit(tmp_path / "old")) == (OLD, NEW, OLD)
        rows = [(tmp_path / name / "lens.csv").read_bytes() for name in ("main", "old")]
        assert rows[0] == rows[1]
        code, said = run(*line("logit_lens", "me/tiny", clips, tmp_path / "main"))
        assert code == 0, said  # finished: drawn again, whatever the branch is now
        refuses(run, clips, tmp_path / "none")
        assert not any("GET" in a and ("huge" in a or "unsafe" in a) and ("tensors" in a or ".bin" in a) for a in asked)
        repos["me/cut"] = Repo(revisions)
        assert run(*line("logit_lens", "me/cut", clips, tmp_path / "resumed"))[0] == 0
        assert (tmp_path / "resumed" / "lens.csv").read_bytes() == rows[0]
        assert sum("GET /me/tiny/resolve" in a and "safetensors" in a for a in asked) == 2  # each commit's weights once
        for name, model in (("own", str(own)), ("own-hub", "me/own")):
            assert run(*line("logit_lens", model, clips, tmp_path / name, "--trust-remote-code"))[0] == 0
        assert (tmp_path / "own" / "lens.csv").read_bytes() == (tmp_path / "own-hub" / "lens.csv").read_bytes()
        server = asked[:]
    with scripts(HF_ENDPOINT=endpoint, **home | {"HF_HUB_OFFLINE": "1"}) as run:
        for script, folder, more in (("logit_lens", "lens", ()), ("activation_patching", "patching", ("--revision", "v2"))):
            code, said = run(*line(script, "me/tiny", clips, tmp_path / folder, *more))
            assert code == 0, said
        assert (commit(tmp_path / "lens"), commit(tmp_path / "patching")) == (OLD, NEW)
        assert (tmp_path / "lens" / "lens.csv").read_bytes() == rows[0]
        code, said = run(*line("logit_lens", "me/new", clips, tmp_path / "none"))
        assert (code, "me/new: no model folder or hub id that can be read (" in said) == (2, True), said
    assert asked == server


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
