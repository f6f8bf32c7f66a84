"""Models in the shape of Kimi-Audio and of MiniCPM-o, with code of their own: no token of theirs stands for audio alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import activation_patching.run
import logit_lens.run
from common.clips.manifest import read_clips
from common.errors import InputError
from common.model.encoding import EncodedClip, encode_clip, encode_text
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS, ask
from common.patching.splice import splice
from common.patching.tail_pass import last_of, read_rows, tail_of
from common.tracing.trace import record
from tests.patching.test_own_loop import answer, states
from tests.tiny_models.own_code.remote import save_one_dict, save_two_streams
from tests.tiny_models.tiny import save_clips

BUILDS: dict[str, Callable[[Path], Path]] = {
    "streams": save_two_streams,
    "codes": lambda folder: save_two_streams(folder, features=False),
    "one dict": save_one_dict,
}
Case = tuple[AudioLM, dict[str, EncodedClip], Path]
NAMES = {"a": "neutral_0_sad_a", "like a": "neutral_0_happy_a", "long": "surprised_0_sad_a"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clips(tmp_path_factory.mktemp("clips"), texts=1, speakers=("a",))


@pytest.fixture(scope="module", params=BUILDS)
def case(request: pytest.FixtureRequest, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = BUILDS[request.param](tmp_path_factory.mktemp(request.param) / "model")
    lm = load_model(str(folder), device=torch.device("cpu"), dtype=torch.float64, trust_remote_code=True)
    return lm, {key: encode_clip(lm, clips.parent / f"{n}.wav", PROMPTS["voice"]) for key, n in NAMES.items()}, folder


def test_the_span_is_where_the_prompts_of_two_sounds_differ(case: Case) -> None:
    lm, heard, _ = case
    tokens = lm.processor.tokenizer
    for clip in heard.values():
        ids, span = clip.inputs["input_ids"][0].tolist(), clip.span
        marks = tokens.convert_ids_to_tokens([ids[span.start - 1], ids[span.stop]])
        assert marks in (["<|media|>", "<|/media|>"], ["<|audio_start|>", "<|audio_end|>"])
        assert "Which emotion is in the tone of voice?" in tokens.decode(clip.tail_ids)
        if "is_continuous_mask" in clip.inputs:
            assert clip.audio_token is None and clip.inputs["is_continuous_mask"][0, span].sum() == clip.span_length
        else:
            bounds = clip.inputs["audio_bounds"][0]
            assert (span.start, span.stop) == (
                bounds[0, 0],
                bounds[-1, 1],
            ) and clip.audio_token in clip.prefix_ids + clip.tail_ids
    assert heard["a"].span_length == heard["like a"].span_length < heard["long"].span_length


def test_lens_and_patches_equal_those_by_hand(case: Case) -> None:
    """In float64: norm and head on what enters each block, and one full forward for each layer, with one hook."""
    lm, heard, _ = case
    decoder = lm.model.model if hasattr(lm.model, "model") else lm.model.llm.model
    head = lm.model.lm_head if hasattr(lm.model, "lm_head") else lm.model.llm.lm_head
    traces = {key: record(lm, clip) for key, clip in heard.items()}
    with torch.inference_mode():
        for key, clip in heard.items():
            last = [states(lm, clip, layer, slice(-1, None))[0, 0] for layer in lm.layers]
            by_hand = torch.stack([head(decoder.norm(h)) for h in last])
            torch.testing.assert_close(traces[key][1], by_hand, atol=1e-9, rtol=0)
            own = tail_of(lm, clip)
            for reading in (own, last_of(lm, own)):
                torch.testing.assert_close(read_rows(lm, reading, {1: [0], 3: [0]})[2], by_hand[-1], atol=1e-9, rtol=0)
    a, like_a, longer = (heard[key] for key in NAMES)
    of_equal, of_longer = (splice(lm, traces[key][0], [traces["a"][0]])[0] for key in ("like a", "long"))
    for layer in lm.layers:
        loop = answer(lm, a, layer, a.span, states(lm, like_a, layer, like_a.span))
        torch.testing.assert_close(of_equal[layer], loop, atol=1e-9, rtol=0)
        loop = answer(lm, longer, layer, longer.tail, states(lm, a, layer, a.tail))
        torch.testing.assert_close(of_longer[layer], loop, atol=1e-9, rtol=0)
    assert of_equal.diff(dim=0).abs().amax(dim=1).min() > 1e-3  # the loop tells layers apart


def test_an_answer_goes_on_in_the_stream_of_the_text(case: Case, clips: Path) -> None:
    lm, heard, _ = case
    clip = heard["a"].continued([7, 8])
    assert clip.tail_ids[-2:] == [7, 8]
    if "text_input_ids" in clip.inputs:
        beside = lm.processor.tokenizer.convert_ids_to_tokens(clip.inputs["input_ids"][0, -3:].tolist())
        assert clip.text_stream == "text_input_ids" and beside == ["<|assistant|>", "<|blank|>", "<|blank|>"]
    text = encode_text(lm, ask("words"), read_clips(clips, None)[0][0])
    assert text.span_length == 0 and not lm.model(**text.continued([7]).inputs, use_cache=False).logits.isnan().any()


def test_both_scripts(case: Case, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logit_lens.run, "plot_lens", lambda *_: [])
    monkeypatch.setattr(activation_patching.run, "plot_run", lambda *_: [])
    asked = ["--model", str(case[2]), "--data", str(clips), "--device", "cpu", "--trust-remote-code"]
    if "codes" not in case[2].parent.name:  # seen by the lens as by the other script
        logit_lens.run.main([*asked, "--out", str(tmp_path / "lens"), "--limit", "2"])
    activation_patching.run.main([*asked, "--out", str(tmp_path / "patching"), "--max-pairs", "2"])
    record = json.loads((tmp_path / "patching" / "run.json").read_text())
    check = record["self_check"]
    assert (record["blocks"], record["engine"]) == (4, "splice")
    assert check["splice - rerun"] < check["tolerance"] < check["A - B, for comparison"] / 10
    rows = pd.read_csv(tmp_path / "patching" / "patches.csv")
    assert rows[rows.layer.between(1, 3)].delta_logit.abs().max() > 0.01


def test_where_audio_that_never_shows_stands_is_not_guessed(case: Case, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = case[0]
    template = type(lm.processor).apply_chat_template

    def deaf(self: object, messages: list[dict[str, object]], **options: object) -> object:
        texts = [{**m, "content": [p for p in m["content"] if p["type"] == "text"]} for m in messages]  # type: ignore[attr-defined]
        return template(self, texts, **options)

    monkeypatch.setattr(type(lm.processor), "apply_chat_template", deaf)
    with pytest.raises(InputError, match="makes the same tokens of every sound"):
        encode_clip(lm, clips.parent / f"{NAMES['a']}.wav", PROMPTS["words"])
