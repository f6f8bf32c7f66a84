"""What the models of this folder are taught to answer, and the tokens around the audio span."""

from dataclasses import dataclass
from typing import Any

from common.model.prompts import PROMPTS, fill_prompt

TRANSCRIPT = "{audio}Write down the words."
_PROMPTS = {name: PROMPTS[name] for name in ("speaker", "voice", "words")} | {"transcript": TRANSCRIPT}
QUESTIONS = {name: fill_prompt(prompt).replace("{audio}", "") for name, prompt in _PROMPTS.items()}
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
