"""Generate the untouched model's answer in free text, and find the label in a text."""

import re
from collections.abc import Sequence

import torch

from common.model.encoding import EncodedClip
from common.model.lm import AudioLM

MOST_TOKENS = 16  # of an answer that is to be one word


@torch.inference_mode()
def generated(lm: AudioLM, clip: EncodedClip, most: int = MOST_TOKENS) -> str:
    """Return the model's greedy answer to a clip, in one line, in at most so many tokens."""
    ids = lm.model.generate(**clip.inputs, max_new_tokens=most, do_sample=False, return_dict_in_generate=False)
    new = ids[0, clip.ids.shape[1] :] if ids.shape[1] > clip.ids.shape[1] else ids[0]  # some classes return the answer alone
    return " ".join(lm.processor.tokenizer.decode(new, skip_special_tokens=True).split())


_REFUSALS = re.compile(
    r"\b(sorry|cannot|can't|can not|unable|not able|don't know|do not know|as an ai)\b|抱歉|无法|不能|不知道", re.IGNORECASE
)


def answer_kind(text: str, labels: Sequence[str], words: Sequence[str]) -> str:
    """Return what an answer is: "label", "hedge" (it names more than one), "refusal" (it names none and says so) or "none"."""
    named, left = 0, text
    while label := said(left, labels, words):
        named += 1
        left = re.sub(re.escape(words[labels.index(label)]), " ", left, flags=re.IGNORECASE)
    if named:
        return "label" if named == 1 else "hedge"
    return "refusal" if _REFUSALS.search(text) else "none"


def said(text: str, labels: Sequence[str], words: Sequence[str]) -> str:
    """Return the label whose word comes first in an answer, whole and in any case, or ""; at one place the longest."""
    places = []
    for label, word in zip(labels, words):
        before, after = (r"(?<!\w)", r"(?!\w)") if word.isascii() else ("", "")  # Chinese has no borders between words
        if found := re.search(f"{before}{re.escape(word)}{after}", text, re.IGNORECASE):
            places.append((found.start(), -len(word), label))
    return min(places)[2] if places else ""
