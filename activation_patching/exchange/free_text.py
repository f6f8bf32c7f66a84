"""Free text after exchange or scale: a clip's next token with its states edited, for every layer."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from activation_patching.exchange.edits import before_last, edited
from common.compute.activation_cache import in_chunks
from common.compute.session import Session
from common.model.encoding import EncodedClip
from common.patching.free_text import NextToken, Tokens
from common.patching.layer_batch import sweep
from common.patching.rerun import Edit
from common.patching.splice import splice
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.trace import Trace, record

_MAX_ROWS = 256  # in a pass, each with the logits of the vocabulary


def of_edits(session: Session, clip: EncodedClip, edits: Sequence[Edit], *, at: str) -> NextToken:
    """Return what asks a clip with each of `edits` at the span or the prompt's last position; rows are edits x layers."""
    count, prompt = len(session.layers), before_last(clip)
    behind = prefix_cache_of(session.lm, prompt) if at == "last" else ()

    def at_span(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        found: dict[int, torch.Tensor] = {}
        for number in dict.fromkeys(row // count for row in rows):
            same = [row for row in rows if row // count == number]
            where = clip.span, edits[number], session.layers_of(same)
            found |= zip(same, sweep(session.lm, str(session.engine), clip.continued(said), *where))
        return torch.stack([found[row] for row in rows])

    def at_last(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        layers = tuple(sorted({0, *session.layers_of(rows), session.lm.layers[-1]}))
        longer = replace(clip.continued(said), span=prompt.span)  # its tail: the prompt's last token, and what was said
        trace = record(session.lm, longer, session.readout.ids, layers, behind)[0]
        numbers = list(dict.fromkeys(row // count for row in rows))
        tails = [edited(trace, edits[number]) for number in numbers]
        pass_of = partial(_spliced, session, trace)
        chunks, _ = in_chunks(pass_of, tails, max(1, _MAX_ROWS // len(layers)))
        logits = torch.cat(chunks)  # [edit, layer, vocab]
        places = [(numbers.index(row // count), layers.index(session.layers[row % count])) for row in rows]
        return torch.stack([logits[place] for place in places])

    return at_span if at == "span" else at_last


def _spliced(session: Session, trace: Trace, tails: Sequence[torch.Tensor]) -> torch.Tensor:
    return splice(session.lm, trace, [replace(trace, tail=tail) for tail in tails])
