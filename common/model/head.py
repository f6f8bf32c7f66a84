"""Run the output head for the label tokens in float32, so that bfloat16 rounding makes no ties."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from common.model.lm import AudioLM

Split = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def head_of(lm: AudioLM) -> Any:
    """Return the module that makes logits of states; some classes own up only to that of the language model inside them."""
    if (head := lm.model.get_output_embeddings()) is not None:
        return head
    parts = (m for m in lm.model.modules() if isinstance(m, PreTrainedModel) and lm.blocks in list(m.modules()))
    return next((head for head in (m.get_output_embeddings() for m in parts) if head is not None), None)


def unsplittable(lm: AudioLM) -> str:
    """Say why single rows of the model's head cannot be computed in float32; "" where they can."""
    head = head_of(lm)
    if type(head) is not nn.Linear:  # quantised, or with an adapter: its rows are not those of a matrix
        return f"its head is a {type(head).__name__}"
    if head.weight.is_meta:
        return "the weights of its head are offloaded"
    if type(head.weight.data) is not torch.Tensor or head.weight.dtype.itemsize < 2:
        return "the weights of its head are quantised"
    return ""


@contextmanager
def head_reads(lm: AudioLM, tokens: Sequence[int] | None, *, whole: bool = False) -> Iterator[Split]:
    """Let the head compute the logits of `tokens` in float32, and those of the `whole` vocabulary only if asked for.

    Yields what splits the logits that the model then returns: [..., n] into those of the vocabulary (none unless `whole`) and
    those of `tokens` [..., token]. The model's own final norm stands before the head, and its own scaling and soft cap act on
    all that leaves it. A head that is `unsplittable` works as ever, and the columns are taken from its logits. With `tokens`
    None both parts are the logits as they are.
    """
    if tokens is None:
        yield lambda logits: (logits, logits)
        return
    if unsplittable(lm):
        yield lambda logits: (logits, logits[..., list(tokens)].float())
        return
    head, count = head_of(lm), len(tokens)
    own, replaced = head.forward, vars(head).get("forward")  # accelerate puts a forward of its own in the place of the class's
    weight = head.weight.detach()[list(tokens)].float()
    bias = None if head.bias is None else head.bias.detach()[list(tokens)].float()

    def forward(h: torch.Tensor) -> torch.Tensor:
        of_tokens = nn.functional.linear(h.to(weight), weight, bias)
        return torch.cat([own(h).to(of_tokens), of_tokens], dim=-1) if whole else of_tokens

    head.forward = forward
    try:
        yield lambda logits: (logits[..., :-count], logits[..., -count:])
    finally:
        del head.forward
        if replaced is not None:
            head.forward = replaced


def parts_read(parts: tuple[torch.Tensor, torch.Tensor], *, whole: bool) -> torch.Tensor:
    """Return the logits of the tokens [..., token]; with `whole` behind those of the vocabulary, [..., vocab + token]."""
    return torch.cat(parts, dim=-1) if whole else parts[1]
