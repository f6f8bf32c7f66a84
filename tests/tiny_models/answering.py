"""Models that are made to answer in a form: what stands before the answer leads to a token, and that to the next."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from common.model.lm import AudioLM

_MARK = 100.0  # in the embedding of a token, on an axis of its own: more than the random blocks add
_PULL = 8.0  # of that axis towards the next tokens' logits


@torch.no_grad()
def plant(lm: AudioLM, *steps: Sequence[int]) -> None:
    """Let the model say the tokens of each step behind those of the one before; the first step ends the prompt."""
    head, embeddings = lm.model.get_output_embeddings().weight, lm.model.get_input_embeddings().weight
    for axis, (before, after) in enumerate(pairwise(steps)):
        for token in before:
            embeddings[token] = 0
            embeddings[token, axis] = _MARK
        head[:, axis] = 0
        head[list(after), axis] = _PULL
