"""The readout: the first token of each label's word as an answer, and the logits at those tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from common.errors import InputError
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

    def best_rank(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the rank in the whole vocabulary, from 1, of the best of the label tokens: [..., vocab] -> [...]."""
        best = logits[..., list(self.ids)].max(dim=-1, keepdim=True).values
        return (logits > best).sum(dim=-1) + 1


def divergence(logits: torch.Tensor) -> torch.Tensor:
    """Return KL(p_L || p_l) in nats of the distributions that lens logits [layer, vocab] stand for: [layer], 0 at l = L."""
    log_probs = logits.float().log_softmax(dim=-1)
    terms = log_probs[-1].exp() * (log_probs[-1] - log_probs)
    return terms.where(log_probs[-1] > -torch.inf, 0).sum(dim=-1)  # a token that a model rules out has no part in it


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
