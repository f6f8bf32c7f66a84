"""Encode a clip and a prompt as model inputs; check that the audio is whole."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from jinja2 import TemplateError

from common.clips.audio import BadClip, load_audio
from common.clips.manifest import Sample
from common.errors import InputError, first_line
from common.model.lm import AudioLM
from common.model.prompts import Question, written

_SILENCE = 1e-5  # of full scale
_PART = "{'type':'text'"  # how a chat template that knows text alone prints a message in parts
_UNFIT = (ValueError, TypeError, KeyError, AttributeError, IndexError, ImportError, TemplateError)  # what processors raise


@dataclass(frozen=True)
class EncodedClip:
    """One clip in its prompt, prefix | audio span | tail: the model's `inputs` (batch of 1) and where the span lies.

    The span goes from the first audio token to the last, with the text that a processor writes among them (the seconds).
    A clip that is given as text has no audio span: its span is empty, at the start, and all of its prompt is tail.
    `audio_token` stands for audio in the span; none where tokens of the clip's own do. Of a model that adds up several streams
    of token ids, `text_stream` names the one that holds the text.
    """

    inputs: dict[str, Any]
    span: slice
    audio_token: int | None = None
    text_stream: str = "input_ids"

    @property
    def ids(self) -> torch.Tensor:
        return self.inputs[self.text_stream]  # [1, pos]

    @property
    def prefix_ids(self) -> list[int]:
        return self.ids[0, : self.span.start].tolist()

    @property
    def tail_ids(self) -> list[int]:
        return self.ids[0, self.span.stop :].tolist()

    @property
    def tail(self) -> slice:
        return slice(self.span.stop, self.ids.shape[1])

    @property
    def span_length(self) -> int:
        return self.span.stop - self.span.start

    def text_inputs(self, positions: slice) -> dict[str, Any]:
        """Return the model's inputs for the text at `positions` alone: its token ids, and what says that there are no images."""
        tokens = {name: self.inputs[name][:, positions] for name in _streams(self.inputs)}
        return tokens | {
            name: value for name, value in self.inputs.items() if isinstance(value, list) and not any(map(len, value))
        }

    def continued(self, tokens: Sequence[int]) -> "EncodedClip":
        """Return the clip with `tokens` at the end of its tail; other inputs go on with the value that they have most in it."""
        if not tokens:
            return self

        def longer(name: str, value: Any) -> Any:
            if not per_token(value, self.ids):
                return value
            usual = value[:, self.tail].mode(dim=1, keepdim=True).values.expand(-1, len(tokens))
            more = torch.tensor([list(tokens)]).to(value) if name == self.text_stream else usual
            return torch.cat([value, more], dim=1)

        return replace(self, inputs={name: longer(name, value) for name, value in self.inputs.items()})


def on_device(inputs: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Return inputs of a model with their tensors on a device."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def per_token(value: Any, ids: torch.Tensor) -> bool:
    """Tell whether an input has a value for each token of `ids` [1, pos]."""
    return isinstance(value, torch.Tensor) and value.shape == ids.shape


def _streams(inputs: dict[str, Any]) -> list[str]:
    """Return the inputs that are token ids: in Kimi-Audio those of the text stand beside those of the audio."""
    return [name for name, value in inputs.items() if name.endswith("input_ids") and per_token(value, inputs["input_ids"])]


def _clip_of(inputs: dict[str, Any], span: slice, audio_token: int | None = None) -> EncodedClip:
    """Return the clip with the stream of tokens that differ most outside of its span as its text."""

    def different(name: str) -> int:
        ids = inputs[name][0].tolist()
        return len({*ids[: span.start], *ids[span.stop :]})

    return EncodedClip(inputs, span, audio_token, max(_streams(inputs), key=different))


def encoded(lm: AudioLM, question: Question, sample: Sample, *, silent: bool = False) -> EncodedClip:
    """Encode a clip in the form in which the question gives it. Raises InputError as encode_clip and encode_text do."""
    if question.input != "audio":
        return encode_text(lm, question, sample)
    return encode_clip(lm, sample.audio, question.prompt, silent=silent, system=question.system)


def load_clip(lm: AudioLM, path: Path) -> np.ndarray:
    """Return the samples of a clip at the rate of the model's extractor. Raises InputError as load_audio does."""
    return load_audio(path, lm.rate, trim=lm.trim, level=lm.level)


def encode_clip(lm: AudioLM, path: Path, prompt: str, *, silent: bool = False, system: str | None = None) -> EncodedClip:
    """Put one clip where `{audio}` stands in `prompt`, behind the `system` prompt, with the model's own template and processor.

    `silent` takes silence of the clip's length instead: noise at -100 dBFS, as exact zeros are no sound some extractors can
    normalise. One clip at a time: padding to a longer one changes the shorter one's states. Where no token stands for audio
    alone, the span is found by comparing prompts. Raises InputError as load_audio does, and where the prompt has no audio.
    """
    wave = load_clip(lm, path)
    if silent:
        wave = np.random.default_rng(0).uniform(-_SILENCE, _SILENCE, len(wave)).astype(np.float32)
    inputs = encode_wave(lm, wave, prompt, system=system)
    ids = inputs["input_ids"][0].tolist()
    if positions := [i for i, token in enumerate(ids) if token == lm.audio_token_id]:
        return _clip_of(inputs, slice(positions[0], positions[-1] + 1), lm.audio_token_id)
    before, behind, same_token = _around_audio(lm, prompt, system)
    if before + behind >= len(ids):
        raise InputError(f"{path}: its prompt has no audio token")
    return _clip_of(inputs, slice(before, len(ids) - behind), ids[before] if same_token else None)


def _around_audio(lm: AudioLM, prompt: str, system: str | None) -> tuple[int, int, bool]:
    """Return how many positions stand before and behind any clip, and whether one token stands for all of its audio.

    Two sounds, noise and near silence, are put into the prompt: where their prompts differ is the audio. Tokens of the clip's own
    differ from its first position to its last. Of a token that is repeated the longer sound has more: those of the short one then
    seem to belong to what is before as well as to what is behind. The sounds are short, so that a processor that parts the audio
    makes one part of each. Raises InputError where the prompts do not differ.
    """
    if (key := (prompt, system, lm.thinking)) not in lm.around_audio:
        short = _by_position(encode_wave(lm, np.full(lm.rate // 10, _SILENCE, np.float32), prompt, system=system))
        for seconds in (0.25, 0.9):
            noise = np.random.default_rng(0).uniform(-0.3, 0.3, int(seconds * lm.rate)).astype(np.float32)
            long = _by_position(encode_wave(lm, noise, prompt, system=system))
            if not torch.equal(long, short):
                break
        else:
            raise InputError(
                f"{type(lm.processor).__name__} makes the same tokens of every sound: where the audio stands is unknown"
            )
        same_before, same_behind = _equal_rows(long, short), _equal_rows(long.flip(0), short.flip(0))
        shortest = min(len(long), len(short))
        before, behind = min(same_before, shortest - same_behind), min(same_behind, shortest - same_before)
        lm.around_audio[key] = before, behind, same_before + same_behind > shortest
    return lm.around_audio[key]


def _by_position(inputs: dict[str, Any]) -> torch.Tensor:
    """Return [pos, input] of all inputs that have a value for each token."""
    return torch.stack([v[0].long() for v in inputs.values() if per_token(v, inputs["input_ids"])], dim=1)


def _equal_rows(one: torch.Tensor, other: torch.Tensor) -> int:
    """Return how many rows at the start of both are the same."""
    shared = min(len(one), len(other))
    return int((one[:shared] == other[:shared]).all(dim=1).long().cumprod(dim=0).sum())


def encode_text(lm: AudioLM, question: Question, sample: Sample) -> EncodedClip:
    """Put a clip's text where `{audio}` stands in the prompt, with the model's own template and tokenizer; no audio is read.

    Chat templates take the message in parts, as with audio, or know text alone; that they leave nothing of it out is checked
    on the tokens. Raises InputError where they do, and where the text holds one of the model's special tokens: it would end
    the question early, or stand for a clip.
    """
    tokenizer, content = lm.processor.tokenizer, written(question, sample)
    special = {lm.audio_token_id, *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    if strange := special.intersection(tokenizer.encode(sample.text, add_special_tokens=False)):
        raise InputError(f"{sample.sample_id}: its text holds {tokenizer.decode([min(strange)])}, a special token of the model")
    wanted = _unspaced(tokenizer.decode(tokenizer.encode(content, add_special_tokens=False)))
    reason = "its chat template leaves the text out"
    for owner, form in ((lm.processor, lambda text: [{"type": "text", "text": text}]), (tokenizer, str)):
        turns = [*_system_turn(question.system, form(question.system)), {"role": "user", "content": form(content)}]
        try:
            batch = _templated(owner, lm, turns)
        except _UNFIT as error:
            reason = first_line(error)
            continue
        clip = _clip_of(dict(batch.to(lm.device)), slice(0, 0))
        found = _unspaced(tokenizer.decode(clip.ids[0]))
        if wanted in found and _PART not in found.replace(wanted, ""):
            return clip
    raise InputError(f"{type(lm.processor).__name__} cannot put a text into a question ({reason})")


def before_last(clip: EncodedClip) -> EncodedClip:
    """Return the clip with all but its last position as its span: its tail is then the position that is edited."""
    return replace(clip, span=slice(clip.span.start, clip.ids.shape[1] - 1))


def end_span(clip: EncodedClip, tail: int) -> EncodedClip:
    """Return the clip with its span up to the last `tail` tokens: what a processor writes right behind the audio is in it."""
    return replace(clip, span=slice(clip.span.start, max(clip.span.stop, clip.ids.shape[1] - tail)))


@contextmanager
def _same_noise() -> Iterator[None]:
    """Let an extractor that adds noise (dither) add the same each time, and leave the draws of others as they are."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        np.random.set_state(before)


@_same_noise()
def encode_wave(lm: AudioLM, wave: np.ndarray, prompt: str, *, system: str | None = None) -> dict[str, Any]:
    """Return the model's inputs for a wave [sample] at its rate.

    Chat templates take a message in parts, with the samples or a file in base64 as one of them; some know text alone, in
    which the audio token stands for the clip. Raises InputError where the processor does neither.
    """
    file = io.BytesIO()
    soundfile.write(file, wave, lm.rate, format="WAV", subtype="FLOAT")
    audio = {"type": "audio", "audio": wave, "base64": base64.b64encode(file.getvalue()).decode()}
    before, after = ({"type": "text", "text": text} for text in prompt.split("{audio}"))
    parts: list[dict[str, Any]] = [part for part in (before, audio, after) if part.get("text") != ""]
    try:
        turns = [*_system_turn(system, [{"type": "text", "text": system}]), {"role": "user", "content": parts}]
        batch = _templated(lm.processor, lm, turns)
    except _UNFIT as error:
        batch, reason = None, first_line(error)
    else:
        reason = "its chat template leaves the audio out"
    named = lm.audio_token_id is not None and hasattr(lm.processor, "audio_token")
    if batch is None or (named and not (batch["input_ids"] == lm.audio_token_id).any()):
        batch = _encode_as_text(lm, wave, prompt, system, reason)
    return dict(batch.to(lm.device, lm.dtype))


def _encode_as_text(lm: AudioLM, wave: np.ndarray, prompt: str, system: str | None, reason: str) -> Any:
    """Encode a clip for a chat template that takes text alone; `reason` says why parts did not do."""
    try:
        content = prompt.replace("{audio}", lm.processor.audio_token)
        template = _chat_template(lm.processor)
        turns = [*_system_turn(system, system), {"role": "user", "content": content}]
        text = lm.processor.tokenizer.apply_chat_template(
            turns, chat_template=template, add_generation_prompt=True, tokenize=False, **_thinking(lm)
        )
        bos = lm.processor.tokenizer.bos_token  # the processor would put another before that of the template
        once = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        return lm.processor(text=text, audio=wave, return_tensors="pt", **once)
    except _UNFIT:
        raise InputError(f"{type(lm.processor).__name__} cannot put a clip into a question ({reason})") from None


def _templated(owner: Any, lm: AudioLM, turns: list[dict[str, Any]]) -> Any:
    """Return the tensors of `turns` in the model's chat template, as its processor or its tokenizer, the `owner`, makes them."""
    return owner.apply_chat_template(
        turns,
        chat_template=_chat_template(lm.processor),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **_thinking(lm),
    )


def knows_thinking(processor: Any) -> bool:
    """Tell whether the chat template of a processor can be told that no thought is wanted."""
    return "enable_thinking" in str(_chat_template(processor))


def _thinking(lm: AudioLM) -> dict[str, bool]:
    return {} if lm.thinking or not knows_thinking(lm.processor) else {"enable_thinking": False}


def _system_turn(system: str | None, content: Any) -> list[dict[str, Any]]:
    return [] if system is None else [{"role": "system", "content": content}]


def check_system(lm: AudioLM, with_it: EncodedClip, without: EncodedClip) -> None:
    """Raise InputError where the chat template leaves the system prompt out, as some do without a word."""
    if torch.equal(with_it.ids, without.ids):
        raise InputError(f"--system: the chat template of {type(lm.processor).__name__} leaves a system prompt out")


def check_question(lm: AudioLM, clip: EncodedClip, prompt: str) -> None:
    """Raise InputError where the chat template leaves the question out, as those of transcribers may without a word."""
    tokenizer = lm.processor.tokenizer
    around = _unspaced("".join(tokenizer.decode(ids) for ids in (clip.prefix_ids, clip.tail_ids) if ids))
    for part in filter(str.strip, prompt.split("{audio}")):
        if _unspaced(tokenizer.decode(tokenizer.encode(part, add_special_tokens=False))) not in around:
            raise InputError(
                f"--prompt: the chat template of {type(lm.processor).__name__} leaves out {part!r}: the model would not be asked"
            )


def _unspaced(text: str) -> str:
    """Return a text without its spaces, of which tokenizers make more or fewer."""
    return "".join(text.split())


def _chat_template(processor: Any) -> str | None:
    """Return the chat template where a processor keeps it, of several the default, or leave it to the processor.

    Its tokenizer may need none.
    """
    kept = next((t for t in (getattr(p, "chat_template", None) for p in (processor, processor.tokenizer)) if t), None)
    return kept.get("default") if isinstance(kept, dict) else kept


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two inputs are the same: tensors, or lists of them."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return len(one) == len(other) and all(map(_equal, one, other))


def check_window(lm: AudioLM, paths: Sequence[Path], lengths: Sequence[int], prompt: str) -> None:
    """Raise BadClip, an InputError, where the model would not hear the end of one of `paths` ([sample] `lengths`)."""
    for bad in beyond_window(lm, paths, lengths, prompt):
        raise bad


def beyond_window(lm: AudioLM, paths: Sequence[Path], lengths: Sequence[int], prompt: str) -> list[BadClip]:
    """Return the clips whose end the model would not hear: its processor would cut it without a word.

    Asked of the processor itself: noise in place of the end of the longest of `paths` ([sample] `lengths`) must change what
    it makes of the clip. If it does not, the last sample that counts is the model's window.
    """
    wave = load_clip(lm, paths[int(np.argmax(lengths))])
    heard = encode_wave(lm, wave, prompt)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, len(wave)).astype(np.float32)

    def deaf_from(start: int) -> bool:
        other = encode_wave(lm, np.concatenate([wave[:start], noise[start:]]), prompt)
        return all(_equal(value, other[name]) for name, value in heard.items())

    low, high = 0, len(wave) - lm.rate // 20  # the last 50 ms may be less than a frame
    if not deaf_from(high):
        return []
    while high - low > lm.rate // 100:
        middle = (low + high) // 2
        low, high = (low, middle) if deaf_from(middle) else (middle, high)
    return [
        BadClip(
            path,
            "longer than the model hears",
            f": {length / lm.rate:.2f} s long; the model hears about {high / lm.rate:.1f} s, and would not hear the rest",
        )
        for path, length in zip(paths, lengths)
        if length > high + lm.rate // 20
    ]
