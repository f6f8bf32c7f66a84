"""Free text with one part of the donor's: a pair's next token, for every head, attention and MLP."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from activation_patching.components.rows import Patch, blocks_of
from activation_patching.exchange.edits import before_last
from common.components.submodules import Parts
from common.components.substitution import activations, patch_components
from common.compute.activation_cache import in_chunks
from common.compute.session import Session
from common.patching.free_text import NextToken, Tokens
from common.patching.tail_pass import tail_of
from common.tracing.prefix_cache import prefix_cache_of

_MAX_ROWS = 256  # in a pass, each with the logits of the vocabulary


def of_parts(session: Session, parts: Sequence[Parts], patches: Sequence[Patch]) -> NextToken:
    """Return what asks one pair with each of its patches; rows are patches x blocks. What is said is behind what is patched."""
    lm, blocks, pair = session.lm, blocks_of(session), patches[0].pair
    clip = session.encode(pair.recipient)
    does, _ = activations(lm, parts, tail_of(lm, session.encode(pair.donor)))
    read = {at_last: before_last(clip) if at_last else clip for at_last in (True, False)}
    caches = {at_last: prefix_cache_of(lm, view) for at_last, view in read.items()}

    def some(said: Tokens, rows: Sequence[int], *, at_last: bool) -> torch.Tensor:
        reading = tail_of(lm, replace(clip.continued(said), span=read[at_last].span), caches[at_last])
        of_rows = [(patches[row // len(blocks)], blocks[row % len(blocks)]) for row in rows]
        sets = [[c for c in patch.components(parts) if c.block == block] for patch, block in of_rows]
        chunks, _ = in_chunks(lambda of: patch_components(lm, parts, reading, does, of, behind=len(said))[1:], sets, _MAX_ROWS)
        return torch.cat(chunks)

    def next_token(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        found: dict[int, torch.Tensor] = {}
        for at_last in read:
            if same := [row for row in rows if patches[row // len(blocks)].at_last == at_last]:
                found |= zip(same, some(said, same, at_last=at_last))
        return torch.stack([found[row] for row in rows])

    return next_token
