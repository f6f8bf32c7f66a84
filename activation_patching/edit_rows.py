"""Erase what the states tell of a label, or exchange that alone between two clips, at every layer, and make the rows of it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from activation_patching.choose import Unseen
from activation_patching.edits import (
    again_by_rerun,
    at_last,
    at_span,
    before_last,
    check_edits,
    donated_states,
    edit_for,
    judge,
)
from activation_patching.engines import Patched, own_runs, run_of_donor
from activation_patching.how import How
from activation_patching.learned import Lesson, teacher
from activation_patching.rows import pair_rows, patch_pairs
from activation_patching.spans import check_spans
from common.clips.pairs import Pair
from common.running.memory import cache_bytes
from common.running.noise import check_share, donors_again
from common.running.session import Session

MAX_EDITED_ROWS = 1024  # rows of one token in a pass over the last position


def maker(
    session: Session,
    groups: Sequence[list[Pair]],
    how: How,
    unseen: Unseen | None,
    *,
    seed: int,
    earlier: Path,
    cache_gb: float | None,
) -> tuple[Callable[[Sequence[list[Pair]]], Iterator[list[dict[str, Any]]]], dict[str, float]]:
    """Return what makes the rows of groups, and how far the identities of edits are off (see check_edits).

    Raises InputError where spans do not fit each other, as check_spans does.
    """
    told: dict[str, Any] = {"of": sum(map(len, groups)), "earlier": earlier, "cache_gb": cache_gb}
    check_spans(session, [pair for group in groups for pair in group], how.align)
    if unseen is None:
        return partial(patch_pairs, session, align=how.align, **told), {}
    teach = teacher(session, unseen, how, seed=seed)
    first, last = groups[0][0], groups[-1][-1]
    one, other = session.encode(first.recipient), session.encode(last.donor)
    return partial(edit_pairs, session, how=how, teach=teach, **told), check_edits(session, one, other, how, teach(first))


def edit_pairs(
    session: Session,
    groups: Sequence[list[Pair]],
    *,
    how: How,
    teach: Callable[[Pair], Lesson],
    of: int,
    earlier: Path,
    cache_gb: float | None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all pairs of a recipient at a time, as patch_pairs does of a donor.

    At the last position an edit is a splice of the recipient's own run, whose one token is edited; at the span a staircase.
    Raises CheckFailed as patch_pairs does.
    """
    last = how.at == "last"
    turns = [(group[0].recipient, False) for group in groups] if last else []
    own = own_runs(session, turns, budget=cache_bytes(cache_gb), view=before_last if last else None)
    count, again = len(session.layers), donors_again(earlier, session.engine)
    at_once = max(1, MAX_EDITED_ROWS // count) if last else count  # edits, layers
    for group in groups:
        recipient = own.whole((group[0].recipient, False)) if last else own.light((group[0].recipient, False))
        clip = session.encode(group[0].recipient)
        lessons = [teach(pair) for pair in group]
        donors = {pair.donor.sample_id: pair for pair in group}  # the real pair's, and its controls'
        donated = {name: donated_states(session, own, pair, how, clip) for name, pair in donors.items()}
        edits = [edit_for(p, how, lesson, donated[p.donor.sample_id]) for p, lesson in zip(group, lessons)]
        if last:
            (base, *edited), at_once = at_last(session, recipient.trace, edits, at_once)
            found = [(logits, base[-1]) for logits in edited]
        else:
            found, at_once = at_span(session, clip, edits, at_once)
        rows = []
        for pair, lesson, edit, (logits, base) in zip(group, lessons, edits, found):
            donor = run_of_donor(own, pair)
            patched = judge(session, pair, how, logits, base, str(session.engine), (donor, recipient))
            if patched.fault:
                reason = f"{pair.pair_id}: {patched.fault}"
                patched = again_by_rerun(session, pair, how, edit, clip, (donor, recipient), reason)
                again.append(pair.donor.sample_id)
                check_share(again, of, str(session.engine), reason)
            rows += edit_rows(session, pair, how, lesson, patched, pred_donor=session.readout.answer(donor.label_logits))
        yield rows


def edit_rows(
    session: Session, pair: Pair, how: How, lesson: Lesson, patched: Patched, *, pred_donor: str
) -> list[dict[str, Any]]:
    """Return the rows that pair_rows makes, and what only edits have.

    `decoded`: the subspace, fitted on other clips, decodes the recipient's own label. `rank`: of the subspace.
    """
    labels, reach = session.readout.labels, (session.reach or 0) if how.at == "span" else session.layers[-1]
    voice, words = (labels.index(x) for x in (pair.recipient.prosody_label, pair.recipient.semantic_label))
    own = voice if pair.kind == "prosody" else words
    rows = pair_rows(pair, patched, pred_donor=pred_donor, readout=session.readout, layers=session.layers, reach=reach)
    for row, decoded, subspace in zip(rows, lesson.told, lesson.own.values()):
        row |= {"intervention": how.intervention, "at": how.at, "rank": subspace.right.shape[0], "decoded": int(decoded == own)}
    return rows
