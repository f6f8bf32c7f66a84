"""Cut attention in windows of blocks; make the rows of knockout.csv."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch

from activation_patching.knockout.windows import CONTROL, EDGES, Curve, Positions, blocks
from common.clips.manifest import Sample
from common.compute.activation_cache import in_chunks
from common.compute.session import Session
from common.errors import CheckFailed, InputError, UnknownBlock
from common.model.encoding import EncodedClip
from common.model.readout import Readout, tied
from common.patching.free_text import NextToken, Tokens
from common.patching.knockout import Cut, knockout, knockout_rerun, refusal
from common.patching.tail_pass import Reading, last_of, tail_of
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.tolerance import check_finite, equal, largest_difference
from common.tracing.trace import own_logits

_MAX_TEXTS = 256  # in a pass, each with the logits of the vocabulary
_MAX_ROWS = {False: 256, True: 2048}  # of a pass over the tail; of one over the last token alone


def positions(clip: EncodedClip) -> Positions:
    return Positions(range(clip.span.start, clip.span.stop), clip.ids.shape[1])


def maker(
    session: Session, groups: Sequence[list[Curve]]
) -> tuple[Callable[[Sequence[list[Curve]]], Iterator[list[dict[str, Any]]]], dict[str, float]]:
    """Return what makes the rows of groups, the curves of a clip each, and how far the identities are off on a clip.

    Raises InputError, before the work, where attention cannot be cut.
    """
    sample = groups[0][0].sample
    try:
        if reason := refusal(session.lm, tail_of(session.lm, session.encode(sample))):
            raise UnknownBlock(reason)
        figures = check_knockout(session, sample)
    except UnknownBlock as error:
        raise InputError(f"--intervention knockout: {error}") from None
    return partial(knockout_rows, session), figures


def edges_of(session: Session) -> tuple[str, ...]:
    """Return the edges of a run; the control among them where the prefix has enough tokens."""
    return (*EDGES, *((CONTROL,) if positions(session.first).control else ()))


def knockout_rows(session: Session, groups: Sequence[list[Curve]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all curves of a clip at a time. Raises CheckFailed where the uncut rows are not the clip's own answer."""
    for group in groups:
        sample = group[0].sample
        clip = session.encode(sample)
        tail = tail_of(session.lm, clip, session.prefix_cache(sample, clip))
        found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for last, reading in ((False, tail), (True, last_of(session.lm, tail))):
            curves = [c for c in group if c.edge.endswith("last") == last]
            batch_size = max(1, _MAX_ROWS[last] // len(session.layers))
            chunks, _ = in_chunks(partial(_cut, session, reading, positions(clip)), curves, batch_size)
            found |= zip((c.name for c in curves), (of_curve for chunk in chunks for of_curve in chunk))
        bases = torch.stack([base for base, _ in found.values()])
        check_finite(bases, sample.sample_id)
        off = largest_difference(bases, bases[:1].expand_as(bases))
        if not off <= session.check.tolerance:
            raise CheckFailed(f"{sample.sample_id}: the answers of its passes differ by {off:.3g}, uncut")
        rows = []
        for curve in group:
            base, logits = found[curve.name]
            what = {"edge": curve.edge, "window": curve.window}
            of_layers = dict(zip(session.layers, logits, strict=True))
            rows += clip_rows(session.readout, sample, {"curve_id": curve.name}, what, base=base, logits=of_layers)
        yield rows


def _cut(
    session: Session, reading: Reading, where: Positions, curves: Sequence[Curve]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return of each curve the label logits uncut [label], and cut [layer, label]."""
    count = len(session.lm.blocks)
    cuts = [Cut(*where.edge(c.edge), *blocks(c.window, layer, count)) for c in curves for layer in session.layers]
    base, *logits = knockout(session.lm, reading, cuts, session.readout.ids).cpu()
    return [(base, of_curve) for of_curve in torch.stack(logits).unflatten(0, (len(curves), -1))]


def clip_rows(
    readout: Readout,
    sample: Sample,
    unit: dict[str, str],
    what: dict[str, str],
    *,
    base: torch.Tensor,
    logits: dict[int, torch.Tensor],
) -> list[dict[str, Any]]:
    """Return a row for each layer of a `unit` in which `what` was cut; `base_*`, `pred_base`: the clip's own answer, uncut."""
    names = ("sample_id", "text_id", "speaker", "source", "semantic_label", "prosody_label")
    fixed = {**unit, **{name: getattr(sample, name) for name in names}, **what}
    untouched = {f"base_{label}": logit for label, logit in zip(readout.labels, base.tolist())}
    return [
        {
            **fixed,
            "layer": layer,
            **{f"logit_{label}": logit for label, logit in zip(readout.labels, row.tolist())},
            **untouched,
            "pred_base": readout.answer(base),
            "pred_cut": readout.answer(row),
            "tied": int(tied(row)),
        }
        for layer, row in logits.items()
    ]


def curves_of(samples: Sequence[Sample], edges: Sequence[str], windows: Sequence[str]) -> list[list[Curve]]:
    """Return the curves of each clip; those of one edge stand together, as they share rows."""
    curves = [Curve(s, edge, window) for s in samples for edge in edges for window in windows]
    return [list(group) for _, group in groupby(curves, key=lambda c: c.sample.sample_id)]


def check_knockout(session: Session, sample: Sample) -> dict[str, float]:
    """Return how far the identities are off on a clip; raise CheckFailed beyond the tolerance of the dtype.

    With a window of no blocks nothing changes; rows are what a full run with the same masks gives; and with its audio hidden from
    all behind it in all blocks, a clip is answered as silence of its length is. The last says that nothing goes round the masks.
    """
    lm, tokens, count, limit = session.lm, session.readout.ids, len(session.lm.blocks), session.check.tolerance
    clip, silence = (session.encode(sample, silent=silent) for silent in (False, True))
    where, third = positions(clip), (count // 3, max(count // 3 + 1, 2 * count // 3))
    everything, middle = (Cut(*where.edge("audio_to_all"), *window) for window in ((0, count), third))
    to_last = Cut(*where.edge("question_to_last"), *third)
    none = Cut(*where.edge("audio_to_all"), count, count)
    tail = tail_of(lm, clip)
    base, *of_tail = knockout(lm, tail, [none, everything, middle], tokens).cpu()
    base_last, of_last = knockout(lm, last_of(lm, tail), [to_last], tokens).cpu()
    deaf = knockout(lm, tail_of(lm, silence), [everything], tokens).cpu()
    own = own_logits(lm, clip)[list(tokens)].float().cpu()
    slow = torch.stack([knockout_rerun(lm, clip, cut, tokens) for cut in (middle, to_last)]).cpu()
    figures = {
        "uncut - model": largest_difference(torch.stack([base, base_last]), own.expand(2, -1)),
        "window of no blocks - uncut": largest_difference(of_tail[0], base),
        "cut rows - full run with the same masks": largest_difference(torch.stack([of_tail[2], of_last]), slow),
        "audio hidden everywhere - silence, hidden everywhere": largest_difference(of_tail[1], deaf[1]),
    }
    figures = {name: equal(name, difference, limit) for name, difference in figures.items()}
    return figures | {"audio heard - silence, for comparison": largest_difference(base, deaf[0])}


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
        chunks, _ = in_chunks(lambda some: knockout(session.lm, reading, [cut(r, said) for r in some])[1:], rows, _MAX_TEXTS)
        return torch.cat(chunks)

    return next_token
