"""Answers closer than a step of bfloat16: read in float32 they are no ties, and mostly those of the float32 run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from safetensors.torch import load_file, save_file
from torch import nn

from common.clips.manifest import LABELS
from common.compute import session
from common.model import head
from common.model.encoding import encode_clip
from common.model.head import unsplittable
from common.model.load import load_model
from common.model.prompts import PROMPTS
from common.tracing.trace import lens, own_logits
from tests.helpers.runs import rows_of, start
from tests.tiny_models.tiny import byte_tokenizer, save_tiny_model

CPU = torch.device("cpu")
LOGITS = [f"logit_{label}" for label in LABELS]


@pytest.fixture(scope="module")
def close_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose label rows differ by little, so that large logits do; its weights are exact in bfloat16."""
    folder = save_tiny_model(tmp_path_factory.mktemp("close"))
    tokenizer = byte_tokenizer(("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"))
    tokenizer.add_tokens(list(LABELS))
    rows = tokenizer.convert_tokens_to_ids(list(LABELS))
    weights = load_file(folder / "model.safetensors")
    draw = torch.Generator().manual_seed(0)
    name = next(n for n in weights if n.endswith("lm_head.weight"))
    width = weights[name].shape[1]
    weights[name][rows] = 4 * torch.randn(1, width, generator=draw) + 0.02 * torch.randn(len(rows), width, generator=draw)
    save_file({n: w.bfloat16().float() for n, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("name", ["logit_lens", pytest.param("activation_patching", marks=pytest.mark.slow)])
def test_close_calls_are_no_ties(
    name: str, close_calls: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype in ("float32", "bfloat16"):
        start(name, close_calls, manifest, tmp_path / dtype, "--dtype", dtype)
    for module in (head, session):
        monkeypatch.setattr(module, "unsplittable", lambda lm: "its head is not looked into")
    start(name, close_calls, manifest, tmp_path / "grid", "--dtype", "bfloat16")
    exact, read, grid = (rows_of(tmp_path / d, name) for d in ("float32", "bfloat16", "grid"))
    key = ["sample_id" if name == "logit_lens" else "pair_id", "layer"]
    assert (exact[key] == read[key]).all(axis=None)
    assert grid.tied.mean() > 0.05, "else this test could not fail"
    assert exact.tied.sum() == read.tied.sum() == 0

    winner = "winner" if name == "logit_lens" else "pred_patch"
    apart = [rows[LOGITS].sub(rows[LOGITS].mean(axis=1), axis=0).to_numpy() for rows in (exact, read)]
    noise = np.abs(apart[0] - apart[1])  # of what tells labels apart
    two = np.sort(apart[0], axis=1)[:, -2:]
    differ = exact[winner] != read[winner]
    assert 2 * differ.mean() < (exact[winner] != grid[winner]).mean() > 0.03
    assert (two[differ, 1] - two[differ, 0] < 2 * np.quantile(noise, 0.99)).all()

    counts = json.loads((tmp_path / "grid" / "run.json").read_text())
    assert counts["counts"]["tied answers"] == grid.tied.sum()
    assert f"{grid.tied.sum()} of {len(grid)} answers are ties" in counts["warnings"][-1]
    assert any("close calls tie, not in float32: its head is not looked into" in w for w in counts["warnings"])


def test_a_head_that_cannot_be_split_is_read_as_ever(tiny_folder: Path, manifest: Path) -> None:
    class Quantised(nn.Linear):
        """Of another class, as those of quantisation are."""

    lm = load_model(str(tiny_folder), device=CPU, dtype=torch.bfloat16)
    clip = encode_clip(lm, manifest.parent / "happy_0_sad_a.wav", PROMPTS["voice"])
    own, linear = own_logits(lm, clip), lm.model.get_output_embeddings()
    assert unsplittable(lm) == ""
    linear.__class__ = Quantised
    assert unsplittable(lm) == "its head is a Quantised"
    assert torch.equal(lens(lm, clip, (3, 1))[1][-1], own[[3, 1]].float())
    linear.__class__ = nn.Linear
    cpu_offload(linear, execution_device=CPU)
    assert unsplittable(lm) == "the weights of its head are offloaded"
    assert torch.equal(lens(lm, clip, (3, 1))[1][-1], own[[3, 1]].float())
