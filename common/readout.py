"""The five-way readout: the question, the first token of each label's answer, and the logits at those five tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.samples import LABELS, InputError

PROMPTS = {
    "speaker": "{audio}How does the speaker feel? Answer with one word: {labels}.",
    "speaker-2": "{audio}What is the speaker's emotion? Reply with a single word, {labels}.",
    "speaker-3": "{audio}In one word, which of these emotions does the speaker have: {labels}?",
    "voice": "{audio}Which emotion is in the tone of voice? Answer with one word: {labels}.",
    "voice-2": "{audio}What emotion does the tone of voice convey? Reply with a single word, {labels}.",
    "voice-3": "{audio}In one word, how does the voice sound, whatever it says: {labels}?",
    "words": "{audio}Which emotion is in the words? Answer with one word: {labels}.",
    "words-2": "{audio}What emotion do the words convey? Reply with a single word, {labels}.",
    "words-3": "{audio}In one word, which emotion does the text express, however it is said: {labels}?",
    "speaker-zh": "{audio}说话人的心情如何？请用一个词回答：{labels}。",
    "voice-zh": "{audio}说话的语气是哪种情绪？请用一个词回答：{labels}。",
    "words-zh": "{audio}话语的内容是哪种情绪？请用一个词回答：{labels}。",
}
MAIN_PROMPTS = tuple(name for name in PROMPTS if not name.endswith(("-2", "-3")))
ORDERS = {"reversed": (4, 3, 2, 1, 0), "rotated": (2, 3, 4, 0, 1)}  # of the options in the prompt: {labels:reversed}
PROMPTS |= {f"{name}-{order}": text.replace("labels", f"labels:{order}") for name, text in PROMPTS.items() for order in ORDERS}
CHINESE = ("中性", "高兴", "悲伤", "愤怒", "惊讶")  # the words for LABELS that the prompts *-zh offer


@dataclass(frozen=True)
class Readout:
    """The first token of each label's word as an answer to the prompt, in the order of LABELS: `ids` and how they read."""

    words: tuple[str, ...]
    ids: tuple[int, ...]
    tokens: tuple[str, ...]

    def label_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the label columns of `logits`: [..., vocab] -> [..., label] in float32."""
        return logits[..., list(self.ids)].float()

    def mass(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability that the five tokens have together: [..., vocab] -> [...]."""
        return logits.float().softmax(dim=-1)[..., list(self.ids)].sum(dim=-1)

    def best_rank(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the rank in the whole vocabulary, from 1, of the best of the five tokens: [..., vocab] -> [...]."""
        best = logits[..., list(self.ids)].max(dim=-1, keepdim=True).values
        return (logits > best).sum(dim=-1) + 1


def divergence(logits: torch.Tensor) -> torch.Tensor:
    """Return KL(p_L || p_l) in nats of the distributions that lens logits [layer, vocab] stand for: [layer], 0 at l = L."""
    log_probs = logits.float().log_softmax(dim=-1)
    return (log_probs[-1].exp() * (log_probs[-1] - log_probs)).sum(dim=-1)


def answer(label_logits: torch.Tensor) -> str:
    """Return the label with the largest of the five logits [label]; of equal ones the first."""
    return LABELS[int(label_logits.argmax())]


def get_prompt(name: str) -> str:
    """Return the built-in prompt `name`, or the text of the file of that name, with `{audio}` and `{labels}` still in it.

    Raises InputError where it is neither, or the text does not hold `{audio}` exactly once.
    """
    if name in PROMPTS:
        return PROMPTS[name]
    try:
        text = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"--prompt {name}: neither a readable text file nor one of {', '.join(MAIN_PROMPTS)}") from None
    if text.count("{audio}") != 1:
        raise InputError(
            f"--prompt {name}: holds {{audio}} {text.count('{audio}')} times; it must stand there once, where the clip goes"
        )
    return text


def get_words(words: Sequence[str] | None, prompt_name: str) -> tuple[str, ...]:
    """Return the words for LABELS: those given, else those of the prompt's language. Raises InputError unless all differ."""
    words = tuple(words or (CHINESE if prompt_name in PROMPTS and "-zh" in prompt_name else LABELS))
    if len(set(words)) < len(LABELS) or not all(w == w.strip() != "" for w in words):
        raise InputError(f"--words {' '.join(words)}: must be five different words, for {', '.join(LABELS)} in this order")
    return words


def fill_prompt(prompt: str, words: Sequence[str] = LABELS) -> str:
    """Return `prompt` with `{labels}` spelled out: "neutral, happy, sad, angry or surprised"; Chinese words the Chinese way.

    `{labels:reversed}` and `{labels:rotated}` list them in another order (ORDERS).
    """
    chinese = any("一" <= letter <= "鿿" for letter in "".join(words))
    comma, final = ("、", "或") if chinese else (", ", " or ")
    orders = {"{labels}": range(len(words))} | {f"{{labels:{name}}}": order for name, order in ORDERS.items()}
    for place, order in orders.items():
        if place in prompt:
            listed = [words[i] for i in order]
            prompt = prompt.replace(place, comma.join(listed[:-1]) + final + listed[-1])
    return prompt


def variants(name: str) -> list[str]:
    """Return the names of a built-in prompt's variants, itself first: paraphrases, and the options in other orders."""
    if name not in PROMPTS:
        raise InputError(f"--prompts all: has variants of the built-in prompts only, not of {name}")
    return [name, *(v for v in PROMPTS if v in {f"{name}-{end}" for end in ("2", "3", *ORDERS)})]


def resolve_readout(tokenizer: Any, tail_ids: Sequence[int], words: Sequence[str] = LABELS) -> Readout:
    """Find the first token of each word in its place: right after the prompt's last tokens.

    `tail_ids` are the token ids after the audio span, up to where the answer starts; the words are tokenized behind the text
    after the last special token, as a token's borders depend on what stands before it. Raises InputError where two words
    share their first token, since the readout could not tell them apart.
    """
    special = set(tokenizer.all_special_ids)
    start = max((i + 1 for i, token in enumerate(tail_ids) if token in special), default=0)
    tail = list(tail_ids)[start:]
    text = tokenizer.decode(tail, skip_special_tokens=False) if tail else ""
    ids = []
    for word in words:
        whole = tokenizer.encode(text + word, add_special_tokens=False)
        if whole[: len(tail)] != tail or len(whole) == len(tail):
            raise InputError(
                f"label word {word!r} melts into the tokens of the prompt's end {text[-20:]!r}; end the prompt otherwise"
            )
        ids.append(whole[len(tail)])
    tokens = [tokenizer.decode([i]) for i in ids]
    if len(set(ids)) < len(ids):
        listed = ", ".join(f"{w} -> {t!r}" for w, t in zip(words, tokens))
        raise InputError(
            f"two label words share their first token: {listed}; the five first tokens must differ (--words gives other words)"
        )
    return Readout(tuple(words), tuple(ids), tuple(tokens))
