"""Both scripts on a saved checkpoint of each family: what a user does with it, on random weights.

`make test` has six that are built unlike, in float32; `make families` runs the slow ones too: all, in every dtype, attention and
way of patching.
"""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import activation_patching.run
import logit_lens.run
from common.errors import InputError
from common.model.encoding import EncodedClip, encode_clip, encode_wave
from common.model.head import head_of, unsplittable
from common.model.load import load_model
from common.model.prompts import PROMPTS
from common.patching import engine_check
from common.patching.self_check import self_check
from common.tracing.encoder import encoder_blocks, encoder_means
from common.tracing.hooks import hooks
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.trace import lens, states_at
from tests.tiny_models.families import template, without_vision_tower
from tests.tiny_models.newer_families import ALL_FAMILIES, NEEDS, save_glm_asr, save_vibevoice_asr
from tests.tiny_models.tiny import save_manifest

# LoRA; several streams and shared keys; recurrent blocks; experts; text among the audio; and the plain build.
UNLIKE = ("granite_speech", "gemma3n", "nemotron_h_omni", "qwen3_omni", "moss_transcribe", "qwen2_audio")
TRIED = [*UNLIKE, *(pytest.param(name, marks=pytest.mark.slow) for name in ALL_FAMILIES if name not in UNLIKE)]
BLOCKS = dict.fromkeys(("gemma3n", "gemma4_e2b", "gemma4_e4b", "gemma4_unified", "nemotron_h_omni"), 5)
SHARED_KEYS = ("gemma3n", "gemma4_e2b", "gemma4_e4b")  # the last 2 of 5 blocks read those of others; patched by layer batch
OUT_OF_REACH = {family: {3, 4} for family in SHARED_KEYS} | {"nemotron_h_omni": {4}}  # whose last block keeps nothing
ADAPTERS = {"granite_speech": ["default"], "phi4_multimodal": ["speech"]}
CLIPS = {"angry_0_happy_a": 0.4, "angry_0_sad_a": 0.47, "happy_1_sad_a": 0.61, "sad_0_happy_a": 0.75}  # seconds
MORE = [("float32", "eager", None), ("bfloat16", None, None), ("float32", None, "crop"), ("float32", None, "stretch")]
KINDS = [("float32", None, None), *(pytest.param(*kind, marks=pytest.mark.slow) for kind in MORE)]


@pytest.fixture(autouse=True)
def _vision_and_figures_left_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logit_lens.run, "plot_lens", lambda *_: [])  # half of the time, and the same for every family
    monkeypatch.setattr(activation_patching.run, "plot_run", lambda *_: [])
    with without_vision_tower():
        yield


@pytest.fixture(scope="session")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in NEEDS.get(request.param, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{request.param} needs {module}")
    return ALL_FAMILIES[request.param](tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture(scope="session")
def four_clips(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    for name, seconds in CLIPS.items():
        wave, rate = soundfile.read(manifest.parent / f"{name}.wav")
        soundfile.write(folder / f"{name}.wav", np.resize(wave, int(seconds * rate)), rate)
    rows = pd.read_csv(manifest, dtype=str)
    return save_manifest(folder / "manifest.csv", [tuple(r) for r in rows[rows.sample_id.isin(CLIPS)].itertuples(index=False)])


def run_script(run: Callable[[list[str]], None], model: Path, data: Path, out: Path, *more: str) -> dict[str, Any]:
    run(["--model", str(model), "--data", str(data), "--device", "cpu", "--out", str(out), *more])
    return json.loads((out / "run.json").read_text())


@pytest.mark.parametrize(("dtype", "attention", "align"), KINDS)
@pytest.mark.parametrize("checkpoint", TRIED, indirect=True, scope="session")
def test_both_scripts(
    checkpoint: Path, dtype: str, attention: str | None, align: str | None, four_clips: Path, tmp_path: Path
) -> None:
    family = checkpoint.name
    unequal = family in SHARED_KEYS and family != "gemma3n"  # whose spans all have the same length
    if align == "stretch" and family == "moss_transcribe":
        pytest.skip("has text among the audio, which is not stretched: a test of its own")
    more = ["--dtype", dtype, *(["--attention", attention] if attention else [])]
    if align is None:  # the lens does not patch
        assert run_script(logit_lens.run.main, checkpoint, four_clips, tmp_path / "lens", *more)["engine"] is None
    align = align or ("crop" if unequal else None)
    more += ["--align", align] if align else []
    record = run_script(activation_patching.run.main, checkpoint, four_clips, tmp_path / "patching", *more)
    check, blocks = record["self_check"], BLOCKS.get(family, 4)
    assert record["engine"] == ("layer_batch" if align or family in SHARED_KEYS else "splice")
    assert record["blocks"] == blocks and record["adapters"] == ADAPTERS.get(family, [])
    assert not any("row 0" in warning for warning in record["warnings"])
    rows = pd.read_csv(tmp_path / "patching" / "patches.csv")
    assert rows.groupby("pair_id").size().eq(blocks + 1).all() and rows.recipient_id.nunique() == 4
    assert set(rows[rows.kv_shared == 1].layer) == OUT_OF_REACH.get(family, set())
    if dtype == "float32":
        assert check["A - B, for comparison"] > 10 * check["tolerance"], "the identities would hold of anything"
        logits = rows.filter(like="logit_")
        moved = (logits - logits.groupby(rows.pair_id).transform("last")).abs().max(axis=1)
        assert not moved[rows.kv_shared == 1].gt(1e-5).any()
        reached = rows[(rows.kv_shared == 0) & (rows.layer < blocks)]
        assert moved[reached.index].groupby(reached.layer).max().gt(1e-5).all()


@pytest.mark.parametrize(
    "checkpoint",
    [name if name in ("qwen2_audio", "gemma3n") else pytest.param(name, marks=pytest.mark.slow) for name in ALL_FAMILIES],
    indirect=True,
    scope="session",
)
def test_a_plan_needs_no_weights(checkpoint: Path, four_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(checkpoint, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    align = ["--align", "crop"] if checkpoint.name in SHARED_KEYS else []
    for run, more in ((logit_lens.run.main, []), (activation_patching.run.main, align)):
        out = ["--model", str(tmp_path / "model"), "--data", str(four_clips), "--device", "cpu", "--out", str(tmp_path / "out")]
        run([*out, "--plan", *more])
        told = capsys.readouterr().out
        assert "How does the speaker feel?" in told and "  'word': '" in told
        assert re.search(r"time on cpu, one process: \d+\.\d+ hours", told) and "memory at the peak: " in told
    assert not (tmp_path / "out").exists()


def capped(logits: torch.Tensor, cap: float) -> torch.Tensor:
    return cap * torch.tanh(logits / cap)


# What is done to head(norm(h)). Granite's scaling of logits is in its text model's own head alone, which its speech class lacks.
SCALES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gemma3n": lambda logits: capped(logits, 30),
    "gemma4_e2b": lambda logits: capped(logits, 30),
    "gemma4_e4b": lambda logits: capped(logits, 30),
    "gemma4_unified": lambda logits: capped(logits, 30),
    "muse_spark": lambda logits: capped(logits * 0.1767766952966369, 20),
}


def one_stream(model: Any, h: torch.Tensor) -> torch.Tensor:
    """Merge Gemma 3n's streams [stream, d_model]: the others, projected and scaled to the size of the first, and their mean."""
    size = h[0].pow(2).mean().sqrt()
    streams = [h[0]]
    for stream, project in zip(h[1:], model.model.language_model.altup_unembed_projections):
        projected = project(stream)
        streams.append(projected * size / projected.pow(2).mean().clamp(min=1e-5).sqrt())
    return torch.stack(streams).mean(dim=0)


@pytest.mark.parametrize("checkpoint", TRIED, indirect=True, scope="session")
def test_lens_equals_each_familys_norm_and_head_by_hand(checkpoint: Path, four_clips: Path) -> None:
    """What enters each block, caught by a hook of the test's own, goes through the two modules and the scaling written above."""
    family = checkpoint.name
    lm = load_model(str(checkpoint), device=torch.device("cpu"), dtype=torch.float32)
    clip = encode_clip(lm, four_clips.parent / "happy_1_sad_a.wav", PROMPTS["speaker"])
    entering: list[torch.Tensor] = []

    def catch(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering.append(args[0] if args else kwargs["hidden_states"])

    with hooks(*(block.register_forward_pre_hook(catch, with_kwargs=True) for block in lm.blocks)), torch.inference_mode():
        answer = lm.model(**clip.inputs).logits[0, -1]
    logits, _ = lens(lm, clip, [0])
    decoder = next(m for m in lm.model.modules() if getattr(m, "layers", None) is lm.blocks)
    norm = next(getattr(decoder, name) for name in ("norm", "norm_f") if hasattr(decoder, name))
    head = next(m for name, m in lm.model.named_modules() if name.endswith("lm_head"))
    assert unsplittable(lm) == "" and head_of(lm) is head
    with torch.inference_mode():
        last = [h[..., 0, -1, :] for h in entering]
        last = [one_stream(lm.model, h) for h in last] if family == "gemma3n" else last
        expected = torch.stack([SCALES.get(family, lambda x: x)(head(norm(h))) for h in last])
    assert len(expected) == BLOCKS.get(family, 4)
    torch.testing.assert_close(logits[:-1], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[-1], answer, atol=1e-5, rtol=0)
    assert torch.pdist(logits, p=torch.inf).min() > 1e-3  # of different layers
    continue_from = lens(lm, clip, [0], prefix_cache=prefix_cache_of(lm, clip))[0]  # as with --prompts all
    torch.testing.assert_close(continue_from, logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpoint", TRIED, indirect=True, scope="session")
def test_the_encoder_is_found(checkpoint: Path, four_clips: Path) -> None:
    """In one family audio enters the decoder without any block before."""
    lm = load_model(str(checkpoint), device=torch.device("cpu"), dtype=torch.float32)
    clip = encode_clip(lm, four_clips.parent / "happy_1_sad_a.wav", PROMPTS["speaker"])
    blocks = encoder_blocks(lm, clip)
    with encoder_means(blocks, 1.0) as means, torch.inference_mode():
        lm.model(**clip.inputs, use_cache=False)
    assert (len(blocks) > 0) == (checkpoint.name != "gemma4_unified")
    assert len(means) == len(blocks) + (len(blocks) > 0) and all(mean.isfinite().all() for mean in means)


@pytest.mark.parametrize("checkpoint", ["gemma4_e4b", "moss_transcribe"], indirect=True, scope="session")
def test_spans_that_do_not_fit_are_refused_before_the_run(checkpoint: Path, four_clips: Path, tmp_path: Path) -> None:
    align, reason = ([], "spans of unequal length.*--align crop")
    if checkpoint.name == "moss_transcribe":
        align, reason = (["--align", "stretch"], "text among the audio")
    with pytest.raises(InputError, match=reason):
        run_script(activation_patching.run.main, checkpoint, four_clips, tmp_path / "out", *align)
    assert not (tmp_path / "out" / "patches.csv").exists()


def test_a_template_that_tells_the_length_of_a_clip_is_refused_before_the_run(four_clips: Path, tmp_path: Path) -> None:
    model = save_vibevoice_asr(tmp_path / "model", duration=" of <|AUDIO_DURATION|> seconds ")
    for run in (logit_lens.run.main, activation_patching.run.main):
        with pytest.raises(InputError, match=r"differs.* of 0\.\d\d seconds .* of 0\.\d\d seconds "):
            run_script(run, model, four_clips, tmp_path / "out")


def test_a_template_that_leaves_the_question_out_is_refused_before_the_run(four_clips: Path, tmp_path: Path) -> None:
    """As a transcriber's may: it would answer, and nobody would have asked."""
    model = save_glm_asr(tmp_path / "model")
    (model / "chat_template.jinja").write_text(template("<|pad|>").replace("{{ c['text'] }}", "Transcribe."))
    with pytest.raises(InputError, match="leaves out 'How does the speaker feel"):
        run_script(logit_lens.run.main, model, four_clips, tmp_path / "out")


@pytest.mark.parametrize("checkpoint", ["vibevoice_asr"], indirect=True, scope="session")
def test_noise_of_the_models_own_is_the_same_in_every_run_and_told(
    checkpoint: Path, four_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_script(logit_lens.run.main, checkpoint, four_clips, tmp_path / "lens")
    assert record["self_check"]["A - A with other noise"] > 0.01 and any("adds noise" in w for w in record["warnings"])
    monkeypatch.setattr("common.model.lm._draw_alike", lambda module, args: None)
    with pytest.raises(Exception, match="two runs of one clip"):
        run_script(logit_lens.run.main, checkpoint, four_clips, tmp_path / "unseeded")


@pytest.mark.parametrize("checkpoint", ["gemma4_e4b"], indirect=True, scope="session")
def test_what_is_given_beside_the_states_is_patched_with_them(
    checkpoint: Path, four_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else some of the recipient's audio would stay, and row 0 would not be the donor's answer."""
    lm = load_model(str(checkpoint), device=torch.device("cpu"), dtype=torch.float32)
    names = ("angry_0_happy_a", "angry_0_sad_a")
    waves = [soundfile.read(four_clips.parent / f"{name}.wav", dtype="float32")[0][: int(0.4 * lm.rate)] for name in names]
    inputs = [encode_wave(lm, wave, PROMPTS["speaker"]) for wave in waves]
    heard = (inputs[0]["input_ids"][0] == lm.audio_token_id).nonzero().flatten().tolist()
    a, b = (EncodedClip(i, slice(heard[0], heard[-1] + 1)) for i in inputs)
    check = self_check(lm, a, [b], tokens=[0])
    assert check.patch and check.patch.row_0 is not None and check.patch.row_0 < 1e-6 < 0.05 < check.contrast
    monkeypatch.setattr(engine_check, "given_at", lambda *where: (states_at(*where), ()))
    without = self_check(lm, a, [b], tokens=[0]).patch
    assert without and without.row_0 and without.row_0 > 0.01
