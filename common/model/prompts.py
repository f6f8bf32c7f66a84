"""The questions, the answer words of labels, and their variants."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.clips.manifest import LABELS, Sample
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
    "speaker-zh-2": "{audio}说话人是什么情绪？只回答一个词：{labels}。",
    "speaker-zh-3": "{audio}下列情绪中，说话人属于哪一种？用一个词回答：{labels}。",
    "voice-zh": "{audio}说话的语气是哪种情绪？请用一个词回答：{labels}。",
    "voice-zh-2": "{audio}语气传达了什么情绪？只回答一个词：{labels}。",
    "voice-zh-3": "{audio}不管说的是什么，声音听起来是哪种情绪？用一个词回答：{labels}。",
    "words-zh": "{audio}话语的内容是哪种情绪？请用一个词回答：{labels}。",
    "words-zh-2": "{audio}这句话的文字表达了什么情绪？只回答一个词：{labels}。",
    "words-zh-3": "{audio}不管语气如何，这句话的内容是哪种情绪？用一个词回答：{labels}。",
}
MAIN_PROMPTS = tuple(name for name in PROMPTS if not name.endswith(("-2", "-3")))
ORDERS = ("reversed", "rotated")  # of the options in the prompt: {labels:reversed}
PROMPTS |= {f"{name}-{order}": text.replace("labels", f"labels:{order}") for name, text in PROMPTS.items() for order in ORDERS}
INPUTS = (
    "audio",
    "transcript",
    "described",
)  # what stands at {audio}: the clip, its text in quotes, its text and its tone's name
FORMS = ("word", " word", "Word", " Word", '"word', ' "word', '"Word', ' "Word')  # in which an answer may be given
AS_GIVEN = "as given"  # by --words, which overrides them
CHINESE = dict(zip(LABELS, ("中性", "高兴", "悲伤", "愤怒", "惊讶")))  # the words that the prompts *-zh offer for labels


@dataclass(frozen=True)
class Question:
    """What is asked of every clip: `prompt` with `{audio}` where the clip goes, a `word` for each of the labels.

    `system` is the system prompt before it, or None; `input` says in which of the forms INPUTS the clip is given. The words are
    read in the form that the model prefers when it is asked `form_prompt`, or `words_as_given`. In the answer's turn
    `answer_prefix` stands before the answer, and without `thinking` no room for a thought.
    """

    prompt: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    system: str | None = None
    input: str = "audio"
    words_as_given: bool = False
    form_prompt: str = ""
    answer_prefix: str = ""
    thinking: bool = True

    @property
    def bare_words(self) -> tuple[str, ...]:
        """The words without the spaces and quotes that they may have as answers."""
        return tuple(map(bare, self.words))


def ask(
    prompt: str, *, labels: Sequence[str] = LABELS, words: Sequence[str] | None = None, system: str | None = None
) -> Question:
    """Return the question of a built-in prompt or a prompt file. Raises InputError as get_prompt and get_words do.

    `labels` are 2 to 10 different ones. The form of the answer is measured under one built-in prompt of each language, so that
    all of them are read alike; for a prompt file under that itself.
    """
    if not 2 <= len(labels) == len(set(labels)) <= 10 or not all(x == x.strip() != "" for x in labels):
        raise InputError(f"--labels {' '.join(labels)}: must be 2 to 10 different labels")
    found = get_words(words, prompt, labels)
    if strange := next((w for w in found if "{audio}" in w or "{labels" in w), None):
        raise InputError(f"--words {strange}: must not hold {{audio}} or {{labels}}, which stand for the clip and the words")
    listed = [bare(word) for word in found]
    form_prompt = prompt if prompt not in PROMPTS else "speaker-zh" if "-zh" in prompt else "speaker"
    asked, measured = (fill_prompt(get_prompt(name), listed) for name in (prompt, form_prompt))
    return Question(asked, tuple(labels), found, system, words_as_given=words is not None, form_prompt=measured)


def get_prompt(name: str) -> str:
    """Return the built-in prompt `name`, or the text of the file of that name, with `{audio}` and `{labels}` still in it.

    Raises InputError where it is neither, or the text does not hold `{audio}` exactly once.
    """
    if name in PROMPTS:
        return PROMPTS[name]
    try:
        text = Path(name).read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError):  # a name with a NUL byte, or a file that is not UTF-8, is a ValueError
        raise InputError(f"--prompt {name}: neither a readable text file nor one of {', '.join(MAIN_PROMPTS)}") from None
    if text.count("{audio}") != 1:
        raise InputError(
            f"--prompt {name}: holds {{audio}} {text.count('{audio}')} times; it must stand there once, where the clip goes"
        )
    return text


def get_words(words: Sequence[str] | None, prompt_name: str, labels: Sequence[str] = LABELS) -> tuple[str, ...]:
    """Return the words for `labels`: those given, else those of the prompt's language.

    A given word may begin with a space or a quote, as the model says it. Raises InputError unless all differ.
    """
    chinese = prompt_name in PROMPTS and "-zh" in prompt_name
    words = tuple(words or (CHINESE.get(label, label) if chinese else label for label in labels))
    if len(words) != len(labels) or len({*map(bare, words)}) < len(words) or not all(bare(w) and w == w.rstrip() for w in words):
        wanted = f"must be {len(labels)} different words, for {', '.join(labels)} in this order"
        raise InputError(f"--words {' '.join(words)}: {wanted}")
    return words


def bare(word: str) -> str:
    """Return a word without spaces and quotes around it."""
    return word.strip(" \t\n\"'“”「」")


def in_form(words: Sequence[str], form: str) -> tuple[str, ...]:
    """Return the words in one of FORMS; of Chinese words the quote is a Chinese one."""
    if form == AS_GIVEN:
        return tuple(words)
    lead, capital = form[:-4], form[-4].isupper()
    if _chinese("".join(words)):
        lead = lead.replace('"', "“")
    return tuple(lead + (word[:1].upper() + word[1:] if capital else word) for word in words)


def fill_prompt(prompt: str, words: Sequence[str] = LABELS) -> str:
    """Return `prompt` with `{labels}` spelled out: "neutral, happy, sad, angry or surprised"; Chinese words the Chinese way.

    `{labels:reversed}` lists them backwards, `{labels:rotated}` from the middle on.
    """
    comma, final = ("、", "或") if _chinese("".join(words)) else (", ", " or ")
    middle = len(words) // 2
    orders = {"": words, ":reversed": words[::-1], ":rotated": [*words[middle:], *words[:middle]]}
    for order, listed in orders.items():
        prompt = prompt.replace(f"{{labels{order}}}", comma.join(listed[:-1]) + final + listed[-1])
    return prompt


def written(question: Question, sample: Sample) -> str:
    """Return the prompt with the clip's text in quotes where the clip would go; `described`: and its tone by name.

    A prompt that holds Chinese is filled in the Chinese way; in others a space parts the text from words that touch it.
    """
    chinese = _chinese(question.prompt)
    text = f"“{sample.text}”" if chinese else f'"{sample.text}"'
    if question.input == "described":
        word = question.bare_words[question.labels.index(sample.prosody_label)]
        article = "an" if word[0].lower() in "aeiou" else "a"
        text += f"（用{word}的语气说）" if chinese else f" (said in {article} {word} tone)"
    before, after = question.prompt.split("{audio}")
    first, last = ("" if chinese or not letter.isalnum() else " " for letter in (before[-1:], after[:1]))
    return f"{before}{first}{text}{last}{after}"


def _chinese(text: str) -> bool:
    return any("一" <= letter <= "鿿" for letter in text)


def variants(name: str) -> list[str]:
    """Return the names of a built-in prompt's variants, itself first: paraphrases, and the options in other orders."""
    if name not in PROMPTS:
        raise InputError(f"--prompts all: has variants of the built-in prompts only, not of {name}")
    return [name, *(v for v in PROMPTS if v in {f"{name}-{end}" for end in ("2", "3", *ORDERS)})]
