"""Free text under knockout: a clip's next token with its edges cut, for every layer."""

from collections.abc import Sequence

import torch

from activation_patching.knockout.rows import positions
from activation_patching.knockout.windows import Curve, blocks
from common.compute.activation_cache import in_chunks
from common.compute.session import Session
from common.model.encoding import EncodedClip
from common.patching.free_text import NextToken, Tokens
from common.patching.knockout import Cut, knockout
from common.patching.tail_pass import tail_of
from common.tracing.prefix_cache import prefix_cache_of

_MAX_ROWS = 256  # in a pass, each with the logits of the vocabulary


def of_cuts(session: Session, clip: EncodedClip, curves: Sequence[Curve]) -> NextToken:
    """Return what asks a clip with its edges cut; rows are curves x layers. What is hidden from the last token stays hidden from
    what is said behind it.
    """
    where, blocks_of, count = positions(clip), len(session.lm.blocks), len(session.layers)
    behind = prefix_cache_of(session.lm, clip)

    def cut(row: int, said: Tokens) -> Cut:
        curve, layer = curves[row // count], session.layers[row % count]
        keys, queries = where.edge(curve.edge)
        more = len(said) if queries.stop == where.end else 0
        return Cut(keys, range(queries.start, queries.stop + more), *blocks(curve.window, layer, blocks_of))

    def next_token(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        reading = tail_of(session.lm, clip.continued(said), behind)
        chunks, _ = in_chunks(lambda some: knockout(session.lm, reading, [cut(r, said) for r in some])[1:], rows, _MAX_ROWS)
        return torch.cat(chunks)

    return next_token
