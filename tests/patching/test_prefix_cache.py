"""A clip's front, what is kept of it up to the end of its audio: every prompt's run reads its question behind the same one."""

from pathlib import Path

import pytest
import torch

from common.clips.manifest import read_clips
from common.compute import memory, session
from common.compute.memory import PrefixCacheStore
from common.compute.session import open_session
from common.model import ModelChoice
from common.model.encoding import EncodedClip, encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS, ask
from common.patching import self_check
from common.patching.splice import splice
from common.tracing.prefix_cache import PrefixCache, prefix_cache_of
from common.tracing.trace import lens, own_logits, record
from tests.tiny_models.tiny import save_tiny_model

MODEL = "read behind the kept audio - model"


@pytest.fixture(scope="module")
def spoken(manifest: Path) -> list[Path]:
    return [sample.audio for sample in read_clips(manifest, None)[0][:3]]


@pytest.mark.parametrize("window", [None, 20, 70, 400])  # shorter than the clips, within their range, longer
def test_a_question_behind_a_front_is_answered_as_behind_audio(window: int | None, spoken: list[Path], tmp_path: Path) -> None:
    lm = load_model(str(save_tiny_model(tmp_path, window=window)), device=torch.device("cpu"), dtype=torch.float32)
    kept = [prefix_cache_of(lm, encode_clip(lm, path, PROMPTS["speaker"])) for path in spoken]
    for prompt in ("voice-2", "words"):  # others than the prefix caches were made with
        clips = [encode_clip(lm, path, PROMPTS[prompt]) for path in spoken]
        for clip, prefix_cache in zip(clips, kept):
            assert (lens(lm, clip, [5], prefix_cache=prefix_cache)[0] - lens(lm, clip, [5])[0]).abs().max() < 1e-4
        assert (own_logits(lm, clips[0]) - own_logits(lm, clips[1])).abs().max() > 1e-2  # what another's audio would do
        continue_from = [record(lm, clip, prefix_cache=prefix_cache)[0] for clip, prefix_cache in zip(clips, kept)]
        whole = [record(lm, clip)[0] for clip in clips]
        assert (splice(lm, continue_from[0], continue_from[1:]) - splice(lm, whole[0], whole[1:])).abs().max() < 1e-4


def test_prefix_caches_are_not_used_where_they_do_not_give_the_models_own_answer(
    tiny_folder: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, question, model = read_clips(manifest, None)[0][:4], ask("speaker"), ModelChoice(str(tiny_folder), device="cpu")

    def opened(make: object) -> session.Session:
        monkeypatch.setattr(self_check, "prefix_cache_of", make)
        return open_session(model, question, samples, engines=(), shared=PrefixCacheStore(1))

    def raises(lm: AudioLM, clip: EncodedClip) -> PrefixCache:
        raise RuntimeError("no decoder for this")

    def of_silence(lm: AudioLM, clip: EncodedClip) -> PrefixCache:
        quiet = {k: torch.zeros_like(t) if t.is_floating_point() else t for k, t in clip.inputs.items()}
        return prefix_cache_of(lm, EncodedClip(quiet, clip.span))

    assert opened(prefix_cache_of).shared is not None
    for wrong in (raises, of_silence):
        refused = opened(wrong)
        assert refused.shared is None and refused.prefix_cache(samples[0], refused.first) is None
        found = refused.check.figures()[MODEL]
        assert found == "does not run" if wrong is raises else found > 1e-2


def test_what_is_shared_ends_with_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cache_bytes", lambda _: 10)
    shared, made = PrefixCacheStore(None), []

    def of(key: str) -> str:
        return shared.of(key, lambda: (made.append(key) or key * 2, 2))  # type: ignore[func-returns-value]

    assert [of(k) for k in "abca"] == ["aa", "bb", "cc", "aa"] and made == list("abc")
    assert of("d") == "dd" and of("c") == "cc" and of("d") == "dd" and made == list("abcdcd")
