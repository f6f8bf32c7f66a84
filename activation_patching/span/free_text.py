"""Free text of patched spans: a pair's next token, for every layer."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from common.clips.pairs import Pair
from common.compute.session import Session
from common.patching.free_text import NextToken, Tokens
from common.patching.layer_batch import aligned, aligned_extra_inputs, span_start, sweep
from common.patching.rerun import put
from common.patching.splice import splice
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.trace import given_at, record


def of_pair(session: Session, pair: Pair, align: str) -> NextToken:
    """Return what asks a pair whose span is patched whole; a row for each layer.

    Where the engine is splice, the blocks before l read the recipient's audio and those from l on the donor's, each at its own
    positions; what was said stands behind both.
    """
    donor, recipient = session.encode(pair.donor, silent=pair.silent), session.encode(pair.recipient)
    if session.engine != "splice":
        states, beside = given_at(session.lm, donor, donor.span)
        donated = aligned(states, recipient.span_length, align)
        extra = aligned_extra_inputs(beside, recipient.span_length, align)
        edit = span_start(recipient, donated), put(donated)
        return lambda said, rows: sweep(
            session.lm, str(session.engine), recipient.continued(said), *edit, session.layers_of(rows), extra_inputs=extra
        )
    trace, behind = record(session.lm, donor, session.readout.ids)[0], prefix_cache_of(session.lm, recipient)

    def next_token(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        layers = session.layers_of(rows)
        at = tuple(sorted({0, *layers, session.layers[-1]}))
        own = record(session.lm, recipient.continued(said), session.readout.ids, at, behind)[0]
        longer = donor.continued(said)
        logits = splice(session.lm, replace(trace, tail_inputs=longer.text_inputs(longer.tail), layers=at), [own])[0]
        return logits[[at.index(layer) for layer in layers]]

    return next_token
