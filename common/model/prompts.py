"""The questions, the words that answer them, and the variants of both."""

from collections.abc import Sequence
from pathlib import Path

from common.clips.samples import LABELS
from common.errors import InputError

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
