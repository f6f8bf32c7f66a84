"""Generate free text from any function that gives the next token, and the probability of whole label words.

Each new token is asked for anew: it is the next token of the edited prompt with the tokens so far behind it. So keys and values
are what the edit makes them at every layer, and rows that have said the same share a pass.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import torch

from common.model.lm import AudioLM

Tokens = tuple[int, ...]
# What was said so far, and the rows that have said it -> the logits [row, vocab] of their next token.
NextToken = Callable[[Tokens, Sequence[int]], torch.Tensor]


def end_tokens(lm: AudioLM) -> frozenset[int]:
    """Return the tokens that end an answer, of those that the model knows."""
    of_model = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    ids = [of_model] if isinstance(of_model, int) else list(of_model or [])
    known = lm.model.config.get_text_config().vocab_size
    return frozenset(i for i in (*ids, lm.processor.tokenizer.eos_token_id) if i is not None and i < known)


@torch.inference_mode()
def word_scores(
    next_token: NextToken, rows: int, words: Sequence[Tokens], *, ends: Collection[int]
) -> tuple[torch.Tensor, dict[Tokens, torch.Tensor]]:
    """Return the summed log-probability [row, word] of each word's tokens and of an end token behind them, where there is one.

    And of each beginning of a word the likeliest next token [row], so that `greedy` need not ask for it again.
    """
    scores: list[list[torch.Tensor]] = [[] for _ in words]
    likeliest: dict[Tokens, torch.Tensor] = {}
    for so_far in dict.fromkeys(word[:i] for word in words for i in range(len(word) + bool(ends))):
        logits = next_token(so_far, range(rows))
        likeliest[so_far], log_probs = logits.argmax(dim=-1), logits.float().log_softmax(dim=-1)
        for of_word, word in zip(scores, words):
            if word == so_far:
                of_word.append(log_probs[:, list(ends)].logsumexp(dim=-1))
            elif word[: len(so_far)] == so_far:
                of_word.append(log_probs[:, word[len(so_far)]])
    return torch.stack([torch.stack(of_word).sum(dim=0) for of_word in scores], dim=1), likeliest


@torch.inference_mode()
def greedy(
    next_token: NextToken,
    rows: int,
    *,
    ends: Collection[int | None],
    most: int,
    likeliest: Mapping[Tokens, torch.Tensor] = MappingProxyType({}),
) -> list[Tokens]:
    """Return what each row says: its likeliest token again and again, up to a token of `ends` or `most` tokens.

    `likeliest`: the next token [row] behind what need not be asked for.
    """
    said, open_rows = dict.fromkeys(range(rows), Tokens()), list(range(rows))
    for _ in range(most):
        for so_far in dict.fromkeys(said[row] for row in open_rows):
            same = [row for row in open_rows if said[row] == so_far]
            found = likeliest[so_far][same] if so_far in likeliest else next_token(so_far, same).argmax(dim=-1)
            said |= {row: (*so_far, token) for row, token in zip(same, found.tolist(), strict=True)}
        open_rows = [row for row in open_rows if said[row][-1] not in ends]
    return [tuple(token for token in tokens if token not in ends) for tokens in said.values()]
