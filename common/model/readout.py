"""Find the first token of each label's answer word, and read its logit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from common.errors import InputError
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.model.prompts import AS_GIVEN, Question, bare, in_form


@dataclass(frozen=True)
class Readout:
    """The first token of each label's word as an answer to the prompt, in the order of the labels: `ids` and how they read.

    `lead` are the tokens that stand before each of them, a space or a quote that is a token of its own.
    """

    labels: tuple[str, ...]
    words: tuple[str, ...]
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    lead: tuple[int, ...] = ()

    def answer(self, label_logits: torch.Tensor) -> str:
        """Return the label with the largest of its logits [label]; of equal ones the first."""
        return self.labels[int(label_logits.argmax())]

    def mass(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability that the label tokens have together: [..., vocab] -> [...]."""
        return logits.float().softmax(dim=-1)[..., list(self.ids)].sum(dim=-1)


def tied(label_logits: torch.Tensor) -> bool:
    """Tell whether the largest of the label logits [label] stands there more than once, so that the answer is only the first."""
    return int((label_logits == label_logits.max()).sum()) > 1


def tokens_behind(tokenizer: Any, tail_ids: Sequence[int], text: str, *, what: str = "label word") -> tuple[int, ...]:
    """Return the tokens of a text in its place: right behind the prompt's last tokens.

    It is tokenized behind the text after the last special token, as a token's borders depend on what stands before it. Raises
    InputError where it changes the prompt's own tokens.
    """
    special = set(tokenizer.all_special_ids)
    start = max((i + 1 for i, token in enumerate(tail_ids) if token in special), default=0)
    tail = list(tail_ids)[start:]
    before = tokenizer.decode(tail, skip_special_tokens=False) if tail else ""
    whole = tokenizer.encode(before + text, add_special_tokens=False)
    if whole[: len(tail)] != tail or len(whole) == len(tail):
        raise InputError(f"{what} {text!r} melts into the tokens of the prompt's end {before[-20:]!r}; end the prompt otherwise")
    return tuple(whole[len(tail) :])


def resolve_readout(tokenizer: Any, tail_ids: Sequence[int], question: Question, form: str = AS_GIVEN) -> Readout:
    """Find the first token of each of the question's words, in one of FORMS, in its place.

    `tail_ids` are the token ids after the audio span, up to where the answer starts. A space or a quote that is the first token
    of all words leads to them, and they are read behind it. Raises InputError where two words share their first token, since the
    readout could not tell them apart, and where the first token of some is a space or a quote alone.
    """
    words = in_form(question.words, form)
    answers = [tokens_behind(tokenizer, tail_ids, word) for word in words]
    shared = (tokens[0] for tokens in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*answers)))
    lead = tuple(takewhile(lambda token: not bare(tokenizer.decode([token])), shared))
    ids = tuple(answer[len(lead)] for answer in answers if len(answer) > len(lead))
    tokens = tuple(tokenizer.decode([i]) for i in ids)
    if len(set(ids)) < len(answers):
        listed = ", ".join(f"{w} -> {t!r}" for w, t in zip(words, tokens))
        raise InputError(
            f"two label words share their first token: {listed}; first tokens must differ (--words gives other words)"
        )
    if not all(map(bare, tokens)):
        raise InputError(f"of the label words {', '.join(words)} some begin with a space or a quote that is a token of its own")
    return Readout(question.labels, words, ids, tokens, lead)


def check_tokens(lm: AudioLM, clip: EncodedClip, readout: Readout) -> None:
    """Raise InputError where a token of the prompt or a label is one that the model has no embedding for."""
    embeddings, head = (getattr(lm.model, f"get_{what}_embeddings", lambda: None)() for what in ("input", "output"))
    used = (*clip.prefix_ids, *clip.tail_ids, *readout.ids)
    for known, ids in ((getattr(embeddings, "num_embeddings", None), used), (getattr(head, "out_features", None), readout.ids)):
        if known is not None and (strange := [i for i in ids if i >= known]):
            token = lm.processor.tokenizer.decode([strange[0]])
            raise InputError(
                f"token {token!r} is number {strange[0]}, and the model knows {known} tokens: it was added to the tokenizer "
                "alone; --words, --prompt or --system must do without it"
            )
