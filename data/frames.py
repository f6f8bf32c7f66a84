"""The questions that models are trained on, and the tokens of each around a clip."""

from dataclasses import dataclass
from typing import Any

from common.model.prompts import PROMPTS, fill_prompt

IGNORE = -100  # of a loss
_PROMPTS = {name: PROMPTS[name] for name in ("speaker", "voice", "words")} | {"transcript": "{audio}Write down the words."}
QUESTIONS = {name: fill_prompt(prompt).replace("{audio}", "") for name, prompt in _PROMPTS.items()}


@dataclass(frozen=True)
class Frame:
    """Token ids around the audio span: the same `prefix` for every question, and a tail for each."""

    prefix: list[int]
    tails: dict[str, list[int]]


def frame_of(processor: Any) -> Frame:
    """Return the frame that the processor's own chat template makes of the questions."""
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
