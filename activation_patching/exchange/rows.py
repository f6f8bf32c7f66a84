"""Exchange subspaces of pairs; make the rows of patches.csv."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from activation_patching.choose import HeldOutClips
from activation_patching.exchange.edits import (
    again_by_rerun,
    at_last,
    at_span,
    before_last,
    check_edits,
    donated_states,
    edit_for,
    judge,
    of_edits,
)
from activation_patching.exchange.fits import PairSubspaces, fit_subspaces, positions
from activation_patching.intervention import InterventionSpec
from activation_patching.span.alignment import check_spans
from activation_patching.span.patch import Patched, of_pair, own_runs, run_of_donor
from activation_patching.span.rows import pair_rows, patch_pairs
from common.clips.pairs import Pair
from common.compute.memory import cache_bytes
from common.compute.rounding import check_share, donors_again
from common.compute.session import Session
from common.patching.free_text import NextToken
from common.patching.layer_batch import aligned
from common.tracing.trace import states_at

MAX_EDITED_ROWS = 1024  # rows of one token in a pass over the last position


def maker(
    session: Session,
    groups: Sequence[list[Pair]],
    spec: InterventionSpec,
    held_out: HeldOutClips | None,
    *,
    seed: int,
    earlier: Path,
    cache_gb: float | None,
) -> tuple[Callable[[Sequence[list[Pair]]], Iterator[list[dict[str, Any]]]], dict[str, float], Callable[[Pair], NextToken]]:
    """Return what makes the rows of groups, how far the identities of edits are off (see check_edits), and what asks a pair for
    its next token in free text.

    Raises InputError where spans do not fit each other, as check_spans does.
    """
    told: dict[str, Any] = {"of": sum(map(len, groups)), "earlier": earlier, "cache_gb": cache_gb}
    check_spans(session, [pair for group in groups for pair in group], spec.align)
    if held_out is None:
        return partial(patch_pairs, session, align=spec.align, **told), {}, partial(of_pair, session, align=spec.align)
    subspaces_of = fit_subspaces(session, held_out, spec, seed=seed)
    first, last = groups[0][0], groups[-1][-1]
    one, other = session.encode(first.recipient), session.encode(last.donor)
    checked = check_edits(session, one, other, spec, subspaces_of(first))

    def ask(pair: Pair) -> NextToken:
        clip, donor = session.encode(pair.recipient), session.encode(pair.donor)
        donated = states_at(session.lm, donor, positions(donor, spec.at))
        donated = aligned(donated, clip.span_length, spec.align) if spec.at == "span" else donated
        return of_edits(session, clip, [edit_for(pair, subspaces_of(pair), donated)], at=spec.at)

    return partial(edit_pairs, session, spec=spec, subspaces_of=subspaces_of, **told), checked, ask


def edit_pairs(
    session: Session,
    groups: Sequence[list[Pair]],
    *,
    spec: InterventionSpec,
    subspaces_of: Callable[[Pair], PairSubspaces],
    of: int,
    earlier: Path,
    cache_gb: float | None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all pairs of a recipient at a time, as patch_pairs does of a donor.

    At the last position an edit is a splice of the recipient's own run, whose one token is edited; at the span a layer batch.
    Raises CheckFailed as patch_pairs does.
    """
    last = spec.at == "last"
    turns = [(group[0].recipient, False) for group in groups] if last else []
    own = own_runs(session, turns, budget=cache_bytes(cache_gb), view=before_last if last else None)
    count, again = len(session.layers), donors_again(earlier, session.engine)
    batch_size = max(1, MAX_EDITED_ROWS // count) if last else count  # edits, layers
    for group in groups:
        recipient = own.whole((group[0].recipient, False)) if last else own.light((group[0].recipient, False))
        clip = session.encode(group[0].recipient)
        fitted = [subspaces_of(pair) for pair in group]
        donors = {pair.donor.sample_id: pair for pair in group}  # the real pair's, and its controls'
        donated = {name: donated_states(session, own, pair, spec, clip) for name, pair in donors.items()}
        edits = [edit_for(p, subspaces, donated[p.donor.sample_id]) for p, subspaces in zip(group, fitted)]
        if last:
            (base, *edited), batch_size = at_last(session, recipient.trace, edits, batch_size)
            found = [(logits, base[-1]) for logits in edited]
        else:
            found, batch_size = at_span(session, clip, edits, batch_size)
        rows = []
        for pair, subspaces, edit, (logits, base) in zip(group, fitted, edits, found):
            donor = run_of_donor(own, pair)
            patched = judge(session, pair, spec, logits, base, str(session.engine), (donor, recipient))
            if patched.fault:
                reason = f"{pair.pair_id}: {patched.fault}"
                patched = again_by_rerun(session, pair, spec, edit, clip, (donor, recipient), reason)
                again.append(pair.donor.sample_id)
                check_share(again, of, str(session.engine), reason)
            rows += edit_rows(session, pair, spec, subspaces, patched, pred_donor=session.readout.answer(donor.label_logits))
        yield rows


def edit_rows(
    session: Session, pair: Pair, spec: InterventionSpec, subspaces: PairSubspaces, patched: Patched, *, pred_donor: str
) -> list[dict[str, Any]]:
    """Return the rows that pair_rows makes, and what only edits have.

    `decoded`: the subspace, fitted on other clips, decodes the recipient's own label. `rank`: of the subspace.
    """
    labels, reach = session.readout.labels, (session.reach or 0) if spec.at == "span" else session.layers[-1]
    voice, words = (labels.index(x) for x in (pair.recipient.prosody_label, pair.recipient.semantic_label))
    own = voice if pair.kind == "prosody" else words
    rows = pair_rows(pair, patched, pred_donor=pred_donor, readout=session.readout, layers=session.layers, reach=reach)
    for row, decoded, subspace in zip(rows, subspaces.decoded, subspaces.own.values()):
        row |= {"intervention": spec.intervention, "at": spec.at, "rank": subspace.right.shape[0], "decoded": int(decoded == own)}
    return rows
