"""The identities of record, of every way of patching and of what is kept of a clip, on a random model of a real class."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.clips.manifest import read_clips
from common.compute import memory, session
from common.compute.memory import PrefixCacheStore
from common.compute.session import open_session
from common.errors import CheckFailed, UnknownBlock
from common.model import ModelChoice
from common.model.encoding import EncodedClip, encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS, ask
from common.patching import ENGINES, engine_check
from common.patching import self_check as self_check_module
from common.patching.layer_batch import aligned, layer_batch, sweep
from common.patching.rerun import put, rerun
from common.patching.self_check import self_check
from common.patching.splice import splice
from common.tracing.hooks import hooks
from common.tracing.prefix_cache import PrefixCache, prefix_cache_of
from common.tracing.trace import Trace, lens, own_logits, record, states_at
from tests.tiny_models.tiny import LAYERS, save_tiny_model

PROMPT = PROMPTS["speaker"]
TOKENS = (7, 3, 260)


@pytest.fixture(scope="module")
def clips(lm: AudioLM, manifest: Path) -> dict[str, EncodedClip]:
    """a and b are equally long, c is longer."""
    names = {"a": "happy_0_sad_a", "b": "happy_0_angry_a", "c": "surprised_1_sad_b"}
    return {k: encode_clip(lm, manifest.parent / f"{name}.wav", PROMPT) for k, name in names.items()}


def span_length(clip: EncodedClip) -> int:
    return clip.span.stop - clip.span.start


def test_the_clips_are_what_the_tests_below_take_them_for(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    assert span_length(clips["a"]) == span_length(clips["b"]) < span_length(clips["c"])
    answers = torch.stack([own_logits(lm, clip) for clip in clips.values()])
    assert torch.pdist(answers, p=torch.inf).min() > 0.1  # else the identities would hold of anything


def test_lens_equals_norm_and_head_of_each_h_l(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    """In this family the way out is head(norm(h)); `hidden_states` of transformers give h_0..h_L-1 independently of our hooks."""
    _, lens = record(lm, clips["a"])
    with torch.inference_mode():
        hidden = lm.model(**clips["a"].inputs, output_hidden_states=True).hidden_states
        expected = [lm.model.lm_head(lm.model.model.language_model.norm(h[0, -1])) for h in hidden[:-1]]
    torch.testing.assert_close(lens, torch.stack([*expected, own_logits(lm, clips["a"])]), atol=1e-5, rtol=0)


def test_maps_change_every_layer_but_the_last(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    last = states_at(lm, clips["a"], slice(-1, None))[-1, :, 0]
    whole, of_tokens = lens(lm, clips["a"], TOKENS, maps=[lambda h: last] * LAYERS)
    own = own_logits(lm, clips["a"]).expand(LAYERS + 1, -1)
    torch.testing.assert_close(whole, own, atol=1e-5, rtol=0)
    torch.testing.assert_close(of_tokens, own[:, list(TOKENS)], atol=1e-5, rtol=0)


def test_trace_holds_the_tail_states_and_only_prefix_and_audio_of_the_cache(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    clip = clips["c"]
    trace, _ = record(lm, clip)
    torch.testing.assert_close(trace.tail, states_at(lm, clip, clip.tail), atol=1e-5, rtol=0)
    assert len(trace.cache) == trace.reach == LAYERS
    assert {t.shape[-2] for layer in trace.cache for t in (layer.keys, layer.values)} == {clip.span.stop} == {trace.span_stop}


def test_splice_equals_rerun_at_every_layer_on_an_equal_length_pair(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    a, b = clips["a"], clips["b"]
    patched = splice(lm, record(lm, b)[0], [record(lm, a)[0]])[0]
    donated = states_at(lm, b, b.span)
    slow = torch.stack([rerun(lm, a, layer, a.span, put(donated)) for layer in range(LAYERS + 1)])
    torch.testing.assert_close(patched, slow, atol=1e-4, rtol=0)
    assert (slow[1] - slow[0]).abs().max() > 1e-2  # the patch does something, and something else at each layer


def test_splice_is_the_patch_of_the_donors_tail_whatever_the_lengths(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    a, c = clips["a"], clips["c"]
    trace = record(lm, a)[0]
    patched = splice(lm, record(lm, c)[0], [trace])[0]
    slow = torch.stack([rerun(lm, c, layer, c.tail, put(trace.tail)) for layer in range(LAYERS + 1)])
    torch.testing.assert_close(patched, slow, atol=1e-4, rtol=0)


def test_row_0_is_the_donor_and_row_L_the_recipient_for_all_recipients_of_a_pass(
    lm: AudioLM, clips: dict[str, EncodedClip]
) -> None:
    recipients = [record(lm, clips[k])[0] for k in "abc"]
    patched = splice(lm, record(lm, clips["c"])[0], recipients)
    for row, name in zip(patched, "abc"):
        torch.testing.assert_close(row[0], own_logits(lm, clips["c"]), atol=1e-4, rtol=0)
        torch.testing.assert_close(row[-1], own_logits(lm, clips[name]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("moved", [0, 0.1])
def test_recipients_of_one_pass_do_not_touch_each_other(moved: float, lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    """Those whose tails enter with other states keep a row 0 each."""
    donor, a, b = (record(lm, clips[k])[0] for k in "cab")
    b = replace(b, tail=b.tail + moved)
    together = splice(lm, donor, [a, b])
    alone = torch.cat([splice(lm, donor, [a]), splice(lm, donor, [b])])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert not moved or (together[0, 0] - together[1, 0]).abs().max() > 1e-2


def test_the_head_computes_the_asked_tokens_alone_and_is_whole_again(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    donor, a, b = (record(lm, clips[k])[0] for k in "cab")
    head, seen = lm.model.get_output_embeddings(), []
    with hooks(head.register_forward_hook(lambda module, args, output: seen.append(output.shape[-1]))):
        own = own_logits(lm, clips["a"])
        some, everything = splice(lm, donor, [a, b], TOKENS), splice(lm, donor, [a, b])
    torch.testing.assert_close(some, everything[..., list(TOKENS)], atol=1e-5, rtol=0)
    assert seen == [len(own), 3, len(own)] and torch.equal(own_logits(lm, clips["a"]), own)
    with pytest.raises(IndexError):
        splice(lm, donor, [a], (10**6,))
    assert "forward" not in vars(head) and torch.equal(own_logits(lm, clips["a"]), own)
    whole, of_tokens = lens(lm, clips["a"], TOKENS)
    torch.testing.assert_close(of_tokens, whole[:, list(TOKENS)], atol=1e-5, rtol=0)


def test_a_clip_patched_with_itself_does_not_move(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    trace, lens = record(lm, clips["c"])
    patched = splice(lm, trace, [trace])[0]
    torch.testing.assert_close(patched, lens[-1].expand_as(patched), atol=1e-4, rtol=0)


def test_splice_leaves_its_traces_as_they_were(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    donor, recipient = record(lm, clips["b"])[0], record(lm, clips["a"])[0]

    def tensors() -> list[torch.Tensor]:
        return [*(t for layer in donor.cache for t in (layer.keys, layer.values)), recipient.tail]

    before = [t.clone() for t in tensors()]
    splice(lm, donor, [recipient])
    assert all(torch.equal(x, y) for x, y in zip(before, tensors(), strict=True))


def test_no_hook_is_left_behind(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    def hooked() -> list[int]:  # transformers may keep some of its own
        return [len(block._forward_hooks) + len(block._forward_pre_hooks) for block in lm.blocks]

    before, own = hooked(), own_logits(lm, clips["a"])
    splice(lm, record(lm, clips["b"])[0], [record(lm, clips["a"])[0]])
    rerun(lm, clips["a"], 1, clips["a"].span, put(states_at(lm, clips["b"], clips["b"].span)))
    assert hooked() == before and torch.equal(own_logits(lm, clips["a"]), own)


@pytest.mark.parametrize("block", range(LAYERS))
def test_a_planted_block_shows_as_a_step(block: int, clips: dict[str, EncodedClip], tmp_path: Path) -> None:
    """With everything happening in block k, rows up to k are one answer and rows above k another."""
    folder = str(save_tiny_model(tmp_path, only_block=block))
    planted = load_model(folder, device=torch.device("cpu"), dtype=torch.float32)
    (a, lens), (c, _) = record(planted, clips["a"]), record(planted, clips["c"])
    for rows in (lens, splice(planted, c, [a])[0]):
        torch.testing.assert_close(rows[: block + 1], rows[:1].expand(block + 1, -1), atol=1e-5, rtol=0)
        torch.testing.assert_close(rows[block + 1 :], rows[-1:].expand(LAYERS - block, -1), atol=1e-5, rtol=0)
        assert (rows[block] - rows[block + 1]).abs().max() > 0.05


def test_self_check_gives_its_figures(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    check = self_check(lm, clips["a"], [clips["b"], clips["c"]], tokens=TOKENS)
    assert check.patch.engine == "splice" and check.patch.reach == LAYERS and check.patch.overwritten == "span of A"
    assert check.audio_tokens == check.moved_by_audio == span_length(clips["a"])
    assert check.tolerance < 1e-3 < 0.1 < check.contrast
    patch = check.patch
    differences = (check.lens_last, check.in_float32, *patch.from_rerun.values(), patch.onto_itself, patch.row_0, patch.row_last)
    assert max(differences) < 1e-4
    figures = check.figures()
    assert max(v for k, v in figures.items() if " - " in k and not k.startswith("A - B")) < 1e-4
    assert self_check(lm, clips["a"], [clips["c"]], tokens=TOKENS).patch.overwritten == "tail of the donor"


def test_without_engines_nothing_is_patched(lm: AudioLM, clips: dict[str, EncodedClip], monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the lens, which must not fail on what only patching needs."""
    for name in ("splice", "sweep", "rerun", "record"):
        monkeypatch.setattr(engine_check, name, lambda *_: 1 / 0)
    check = self_check(lm, clips["a"], [clips["b"]], tokens=TOKENS, engines=())
    assert check.patch is None and check.lens_last < 1e-5 and "row L - recipient" not in check.figures()


@pytest.mark.parametrize("other", "bc")
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_what_a_rerun_gives(engine: str, other: str, lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    patch = self_check(lm, clips["a"], [clips[other]], tokens=TOKENS, engines=[engine]).patch
    assert patch.engine == engine and patch.from_rerun[engine] < 1e-4


def test_layer_batch_equals_rerun_at_every_layer_and_in_parts(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    a, c = clips["a"], clips["c"]
    donated = aligned(states_at(lm, c, c.span), a.span_length, "stretch")
    whole = layer_batch(lm, a, a.span, put(donated), range(LAYERS + 1))
    torch.testing.assert_close(whole, sweep(lm, "rerun", a, a.span, put(donated), range(LAYERS + 1)), atol=1e-4, rtol=0)
    parts = [
        sweep(lm, "layer_batch", a, a.span, put(donated), layers) for layers in (range(2), range(2, 4), range(4, LAYERS + 1))
    ]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-4, rtol=0)


def test_alignments() -> None:
    donated = torch.arange(2 * 1 * 4 * 3.0).view(2, 1, 4, 3)  # [layer, 1, pos, d_model]
    assert torch.equal(aligned(donated, 4, "stretch"), donated) and torch.equal(aligned(donated, 9, "crop"), donated)
    assert torch.equal(aligned(donated, 2, "crop"), donated[..., :2, :])
    stretched = aligned(donated, 7, "stretch")
    assert torch.equal(stretched[..., ::2, :], donated)
    assert torch.equal(stretched[..., 1, :], (donated[..., 0, :] + donated[..., 1, :]) / 2)


def test_a_splice_that_is_wrong_gives_way_to_the_layer_batch(
    lm: AudioLM, clips: dict[str, EncodedClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(lm: AudioLM, donor: Trace, recipients: list[Trace]) -> torch.Tensor:
        return splice(lm, donor, recipients).roll(1, dims=1)

    monkeypatch.setattr(engine_check, "splice", broken)
    patch = self_check(lm, clips["a"], [clips["b"]], tokens=TOKENS).patch
    assert patch.engine == "layer_batch" and patch.from_rerun["splice"] > 0.01 > 1e-4 > patch.from_rerun["layer_batch"]
    assert patch.row_0 < 1e-4  # of equal spans
    monkeypatch.setattr(engine_check, "splice", lambda *_: torch.zeros(2)[5])
    patch = self_check(lm, clips["a"], [clips["c"]], tokens=TOKENS).patch
    assert patch.engine == "layer_batch" and patch.figures()["splice - rerun"] == "does not run" and patch.row_0 is None


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("lens", lambda lm, clip, tokens: [logits + 1 for logits in lens(lm, clip, tokens)]),
        ("lens", lambda lm, clip, tokens: (lens(lm, clip, tokens)[0], lens(lm, clip, tokens)[1].roll(1, dims=-1))),
        ("sweep", lambda lm, engine, *given, **more: sweep(lm, engine, *given, **more) + (engine == "rerun")),
        ("audio_states", lambda lm, clip: span_length(clip) - 1),
        ("own_logits", lambda lm, clip: own_logits(lm, clip) * torch.nan),
    ],
)
def test_self_check_stops_a_run_whose_code_is_wrong(name, broken, lm, clips, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(engine_check if name == "sweep" else self_check_module, name, broken)
    with pytest.raises(CheckFailed, match="self-check"):
        self_check(lm, clips["a"], [clips["b"]], tokens=TOKENS)


def test_an_unknown_kind_of_block_output_raises(lm: AudioLM, clips: dict[str, EncodedClip]) -> None:
    handle = lm.blocks[-1].register_forward_hook(lambda module, args, output: {"states": output})
    with hooks(handle), pytest.raises(UnknownBlock, match="a block passes dict"):
        record(lm, clips["a"])


def test_a_hook_that_is_never_reached_raises(lm: AudioLM, clips: dict[str, EncodedClip], tiny_folder: Path) -> None:
    stranger = load_model(str(tiny_folder), device=torch.device("cpu"), dtype=torch.float32)
    mixed = replace(lm, blocks=stranger.blocks)
    with pytest.raises(RuntimeError, match="reached 0 times"):
        rerun(mixed, clips["a"], 1, clips["a"].span, lambda layer, h: h)
    with pytest.raises(RuntimeError, match="not reached once each"):
        states_at(mixed, clips["a"], clips["a"].span)


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
        monkeypatch.setattr(self_check_module, "prefix_cache_of", make)
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
