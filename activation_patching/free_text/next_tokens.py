"""Ask for the next token of clips with an intervention in them, at every layer."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from activation_patching.exchange.edits import before_last
from activation_patching.knockout.rows import positions
from activation_patching.knockout.windows import Curve as CutCurve
from activation_patching.knockout.windows import blocks
from common.clips.pairs import Pair
from common.compute.activation_cache import in_chunks
from common.compute.session import Session
from common.model.encoding import EncodedClip
from common.patching.free_text import NextToken, Tokens
from common.patching.knockout import Cut, knockout
from common.patching.layer_batch import aligned, aligned_extra_inputs, span_start, sweep
from common.patching.rerun import Edit, put
from common.patching.splice import splice
from common.patching.tail_pass import tail_of
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.trace import Trace, given_at, record

_MAX_ROWS = 256  # in a pass, each with the logits of the vocabulary


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
            session.lm, str(session.engine), recipient.continued(said), *edit, _layers(session, rows), extra_inputs=extra
        )
    trace, behind = record(session.lm, donor, session.readout.ids)[0], prefix_cache_of(session.lm, recipient)

    def next_token(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        at = _with_ends(session, rows)
        own = record(session.lm, recipient.continued(said), session.readout.ids, at, behind)[0]
        longer = donor.continued(said)
        logits = splice(session.lm, replace(trace, tail_inputs=longer.text_inputs(longer.tail), layers=at), [own])[0]
        return logits[[at.index(layer) for layer in _layers(session, rows)]]

    return next_token


def of_edits(session: Session, clip: EncodedClip, edits: Sequence[Edit], *, at: str) -> NextToken:
    """Return what asks a clip with each of `edits` at the span or the prompt's last position; rows are edits x layers."""
    count, prompt = len(session.layers), before_last(clip)
    behind = prefix_cache_of(session.lm, prompt) if at == "last" else ()

    def at_span(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        found: dict[int, torch.Tensor] = {}
        for number in dict.fromkeys(row // count for row in rows):
            same = [row for row in rows if row // count == number]
            where = clip.span, edits[number], _layers(session, same)
            found |= zip(same, sweep(session.lm, str(session.engine), clip.continued(said), *where))
        return torch.stack([found[row] for row in rows])

    def at_last(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        longer, layers = clip.continued(said), _with_ends(session, rows)
        longer = replace(longer, span=prompt.span)  # its tail: the prompt's last token, and what was said
        trace = record(session.lm, longer, session.readout.ids, layers, behind)[0]
        numbers = list(dict.fromkeys(row // count for row in rows))
        tails = [_first_edited(trace.layers, trace.tail, edits[number]) for number in numbers]
        pass_of = partial(_spliced, session, trace)
        chunks, _ = in_chunks(pass_of, tails, max(1, _MAX_ROWS // len(layers)))
        logits = torch.cat(chunks)  # [edit, layer, vocab]
        places = [(numbers.index(row // count), layers.index(session.layers[row % count])) for row in rows]
        return torch.stack([logits[place] for place in places])

    return at_span if at == "span" else at_last


def of_cuts(session: Session, clip: EncodedClip, curves: Sequence[CutCurve]) -> NextToken:
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


def _layers(session: Session, rows: Sequence[int]) -> list[int]:
    return [session.layers[row % len(session.layers)] for row in rows]


def _with_ends(session: Session, rows: Sequence[int]) -> tuple[int, ...]:
    """Return the layers of rows, and 0 and L, which a recording begins and ends with."""
    return tuple(sorted({0, *_layers(session, rows), session.layers[-1]}))


def _first_edited(layers: Sequence[int], tail: torch.Tensor, edit: Edit) -> torch.Tensor:
    """Return a tail's states [layer, 1, tail, d_model] with those of its first token edited."""
    edited = [torch.cat([edit(layer, h[..., :1, :]).to(h), h[..., 1:, :]], dim=-2) for layer, h in zip(layers, tail)]
    return torch.stack(edited)


def _spliced(session: Session, trace: Trace, tails: Sequence[torch.Tensor]) -> torch.Tensor:
    return splice(session.lm, trace, [replace(trace, tail=tail) for tail in tails])
