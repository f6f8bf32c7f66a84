"""Pack several questions behind one copy of a clip's audio, to train on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.model.prompts import PROMPTS, fill_prompt

_PROMPTS = {name: PROMPTS[name] for name in ("speaker", "voice", "words")} | {"transcript": "{audio}Write down the words."}
QUESTIONS = {name: fill_prompt(prompt).replace("{audio}", "") for name, prompt in _PROMPTS.items()}
QUESTION_NUMBER = {name: i + 1 for i, name in enumerate(QUESTIONS)}
IGNORE = -100  # a target that is not asked for


@dataclass(frozen=True)
class Frame:
    """Token ids around the audio span: the same `prefix` for every question, and a tail for each."""

    prefix: list[int]
    tails: dict[str, list[int]]


def frame_of(processor: Any) -> Frame:
    tails, prefixes = {}, []
    for name, question in QUESTIONS.items():
        content = [{"type": "audio", "audio": "clip"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
        before, after = text.split(processor.audio_token)
        prefixes.append(processor.tokenizer.encode(before))
        tails[name] = processor.tokenizer.encode(after)
    if any(p != prefixes[0] for p in prefixes):
        raise ValueError("the questions do not share their prefix")
    return Frame(prefixes[0], tails)


def audio_tokens(frames: int) -> int:
    """Return the number of audio tokens of so many mel frames, as Qwen2AudioProcessor counts them."""
    return (((frames - 1) // 2 + 1) - 2) // 2 + 1


@dataclass(frozen=True)
class Packed:
    """Sequences `prefix | span | tail | tail ...`: a tail sees the prefix, the span and itself, where it would stand alone."""

    ids: torch.Tensor  # [row, pos]; 0 on the span
    target: torch.Tensor  # [row, pos]; IGNORE where nothing is asked
    question: torch.Tensor  # [row, pos]; 0 prefix and span, QUESTION_NUMBER on a tail, -1 padding
    position: torch.Tensor  # [row, pos]
    mask: torch.Tensor  # [row, 1, pos, pos]
    start: int
    span: int


def pack(asked: Sequence[Mapping[str, str]], lengths: list[int], frame: Frame, tokenizer: Any) -> Packed:
    """Pack the questions {question: answer} of each row behind its span of so many tokens."""
    span, start, rows = max(lengths), len(frame.prefix), []
    for answers, length in zip(asked, lengths):
        ids = frame.prefix + [0] * span
        question = [0] * (start + length) + [-1] * (span - length)
        position, target = list(range(start + span)), [IGNORE] * len(ids)
        for name, answer in answers.items():
            said = [*tokenizer.encode(answer), tokenizer.convert_tokens_to_ids("<|im_end|>")]
            tail = frame.tails[name]
            ids += tail + said[:-1]
            target += [IGNORE] * (len(tail) - 1) + said
            question += [QUESTION_NUMBER[name]] * (len(tail) + len(said) - 1)
            position += range(start + length, start + length + len(tail) + len(said) - 1)
        rows.append((ids, target, question, position))
    size = max(len(r[0]) for r in rows)
    ids, target, question, position = (
        torch.tensor([column + [fill] * (size - len(column)) for column in columns])
        for columns, fill in zip(zip(*rows), (0, IGNORE, -1, 0))
    )
    seen = (question[:, None, :] == 0) | (question[:, None, :] == question[:, :, None])
    earlier = torch.ones(size, size, dtype=torch.bool).tril()
    mask = (earlier & seen & (question[:, None, :] >= 0)) | torch.eye(size, dtype=torch.bool)
    return Packed(ids, target, question, position, mask[:, None], start, span)


def answer_states(model: Any, packed: Packed, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the last states [answer, hidden], targets and question numbers [answer] of all that is asked about `audio`."""
    lm = model.model.language_model
    embeds = lm.embed_tokens(packed.ids)
    cut = packed.start + packed.span
    embeds = torch.cat([embeds[:, : packed.start], audio[:, : packed.span].to(embeds.dtype), embeds[:, cut:]], 1)
    out = lm(inputs_embeds=embeds, attention_mask=packed.mask, position_ids=packed.position, use_cache=False).last_hidden_state
    asked = packed.target != IGNORE
    return out[asked], packed.target[asked], packed.question[asked]
