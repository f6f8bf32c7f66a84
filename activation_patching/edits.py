"""Erase what the states tell of a label, or exchange that alone between two clips, at every layer; and make the rows of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from activation_patching.choose import Unseen
from activation_patching.engines import Clip, OwnRun, Patched, own_runs, run_of_donor
from activation_patching.how import How
from activation_patching.learned import Lesson, positions, teacher
from activation_patching.rows import pair_rows, patch_pairs
from common.clips.pairs import Pair
from common.errors import CheckFailed
from common.model.encoding import EncodedClip
from common.patching.oracle import Edit, put
from common.patching.splice import splice
from common.patching.staircase import aligned, sweep
from common.patching.subspaces import Subspace, everything, matched, nothing
from common.patching.tolerance import check_finite, largest_difference
from common.patching.tracing import Trace, record, states_at
from common.running.cache import Kept, cache_bytes, in_chunks
from common.running.noise import check_share, donors_again
from common.running.session import Session

_MAX_ROWS = 1024  # rows of one token in a pass over the last position


def erase(subspace: Subspace, h: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Return what takes the subspace's part out of states [..., d_model]: it becomes that of their mean."""
    return -subspace.part(h - subspace.mean)


def exchange(subspace: Subspace, h: torch.Tensor, donated: torch.Tensor) -> torch.Tensor:
    """Return what puts the donor's part of the subspace in the place of the states' own."""
    return subspace.part(donated - h)


CHANGES = {"erase": erase, "exchange": exchange}


def edit_of(edit: str, own: Sequence[Subspace], donated: torch.Tensor, random: Sequence[Subspace] | None = None) -> Edit:
    """Return an edit by the subspaces `own` of the layers, the donor's states being `donated` [layer, 1, pos, d_model].

    With `random` ones these are edited instead, by as much: the change has the norm that that of `own` would have.
    """

    def edited(layer: int, h: torch.Tensor) -> torch.Tensor:
        def change(subspaces: Sequence[Subspace]) -> torch.Tensor:
            return CHANGES[edit](subspaces[layer].to(h.device), h.float(), donated[layer].to(h.device).float())

        moved = change(own)
        return h.float() + (moved if random is None else matched(change(random), moved))

    return edited


def edit_for(pair: Pair, how: How, lesson: Lesson, donated: torch.Tensor) -> Edit:
    if pair.control == "whole":
        return put(donated)
    return edit_of(how.edit, lesson.own, donated, lesson.random if pair.control == "random_subspace" else None)


def before_last(clip: EncodedClip) -> EncodedClip:
    """Return the clip with all but its last position as its span: its tail is then the position that is edited."""
    return EncodedClip(clip.inputs, slice(clip.span.start, clip.ids.shape[1] - 1))


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
    """Return what makes the rows of groups, and how far the identities of edits are off (see check_edits)."""
    told: dict[str, Any] = {"of": sum(map(len, groups)), "earlier": earlier, "cache_gb": cache_gb}
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
    own = own_runs(session, turns, budget=cache_bytes(cache_gb), view=before_last if last else lambda clip: clip)
    at_once, again = (max(1, _MAX_ROWS // session.layers) if last else session.layers), donors_again(earlier, session.engine)
    for group in groups:
        recipient = own.whole((group[0].recipient, False)) if last else own.light((group[0].recipient, False))
        clip = session.encode(group[0].recipient)
        lessons = [teach(pair) for pair in group]
        edits = [edit_for(p, how, lesson, _donated(session, own, p, how, clip)) for p, lesson in zip(group, lessons)]
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


def _donated(session: Session, own: Kept[Clip, OwnRun], pair: Pair, how: How, recipient: EncodedClip) -> torch.Tensor:
    """Return the donor's states at the edited positions, [layer, 1, pos, d_model]."""
    if how.at == "last":
        return run_of_donor(own, pair).trace.tail
    clip = session.encode(pair.donor)
    return aligned(states_at(session.lm, clip, clip.span), recipient.span_length, how.align)


def at_last(session: Session, trace: Trace, edits: Sequence[Edit], at_once: int) -> tuple[list[torch.Tensor], int]:
    """Return label logits [layer, label] of the run of `trace` unedited, then with each of `edits` of its last position."""
    trace = trace.to(session.lm.device)
    work = [trace, *(replace(trace, tail=_edited(trace.tail, edit)) for edit in edits)]
    chunks, at_once = in_chunks(partial(splice, session.lm, trace, tokens=session.readout.ids), work, at_once)
    return list(torch.cat(chunks).cpu()), at_once


def _edited(tail: torch.Tensor, edit: Edit) -> torch.Tensor:
    return torch.stack([edit(layer, h).to(h) for layer, h in enumerate(tail)])


def at_span(
    session: Session, clip: EncodedClip, edits: Sequence[Edit], at_once: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], int]:
    """Return for each of `edits` of a clip's span the label logits [layer, label], and those of its row L, which is unedited."""
    found = []
    for edit in edits:
        of_layers = partial(sweep, session.lm, str(session.engine), clip, clip.span, edit, tokens=session.readout.ids)
        layers, at_once = in_chunks(of_layers, range(session.layers), at_once)
        logits = torch.cat(layers).cpu()
        found.append((logits, logits[-1]))
    return found, at_once


def judge(
    session: Session, pair: Pair, how: How, logits: torch.Tensor, base: torch.Tensor, engine: str, runs: tuple[OwnRun, OwnRun]
) -> Patched:
    """Hold a pair's logits [layer, label] and its `base`, the answer unedited, against the own `runs` of donor and recipient.

    At the last position row L is an effect like any other, and with the donor's whole state there the donor's own answer.
    """
    donor, recipient = runs
    controls = {"unedited - recipient": largest_difference(base, recipient.label_logits)}
    if pair.control == "itself":
        controls["any row - unedited"] = largest_difference(logits, base.expand_as(logits))
    if pair.control == "whole" and how.at == "last":
        controls["row L - donor"] = largest_difference(logits[-1], donor.label_logits)
    limit = session.check.tolerance
    faults = [f"{name} is {d:.3g}, above {limit:.3g}" for name, d in controls.items() if not d <= limit]
    if not logits.isfinite().all():
        faults.append("not all of its logits are finite numbers")
    return Patched(logits, engine, None, controls["unedited - recipient"], "; ".join(faults), base)


def again_by_rerun(
    session: Session, pair: Pair, how: How, edit: Edit, clip: EncodedClip, runs: tuple[OwnRun, OwnRun], reason: str
) -> Patched:
    """Return a pair edited by one full run for each layer; raise CheckFailed where that is not what it must be either."""
    where = positions(clip, how.at)
    logits = sweep(session.lm, "rerun", clip, where, edit, range(session.layers), session.readout.ids).cpu()
    check_finite(logits, pair.pair_id)
    base = logits[-1] if how.at == "span" else runs[1].label_logits
    if (patched := judge(session, pair, how, logits, base, "rerun", runs)).fault:
        raise CheckFailed(f"{reason}, and a rerun does no better: {patched.fault}")
    return patched


def edit_rows(
    session: Session, pair: Pair, how: How, lesson: Lesson, patched: Patched, *, pred_donor: str
) -> list[dict[str, Any]]:
    """Return the rows that pair_rows makes, and what only edits have.

    `told`: the subspace, learned from other clips, tells the recipient's own label. `rank`: of the subspace. `delta_margin`: the
    recipient's margin, edited minus unedited.
    """
    labels, reach = session.readout.labels, (session.reach or 0) if how.at == "span" else session.layers
    voice, words = (labels.index(x) for x in (pair.recipient.prosody_label, pair.recipient.semantic_label))
    own = voice if pair.kind == "prosody" else words
    rows = pair_rows(pair, patched, pred_donor=pred_donor, readout=session.readout, reach=reach)
    moved = patched.logits - patched.base
    for row, told, subspace, by in zip(rows, lesson.told, lesson.own, moved):
        row |= {"edit": how.edit, "at": how.at, "rank": subspace.right.shape[0], "told": int(told == own)}
        row["delta_margin"] = float(by[voice] - by[words])
    return rows


def check_edits(session: Session, one: EncodedClip, other: EncodedClip, how: How, lesson: Lesson) -> dict[str, float]:
    """Return how far the identities of edits are off on a clip and a donor; raise CheckFailed beyond the tolerance of the dtype.

    To exchange the whole space is the ordinary patch; to exchange nothing, or with the clip itself, changes nothing, exactly;
    and the engine gives what a rerun gives, at two layers.
    """
    where, device = positions(one, how.at), session.lm.device
    own, donor = (states_at(session.lm, clip, positions(clip, how.at)) for clip in (one, other))
    donated, d_model = aligned(donor, own.shape[-2], how.align), own.shape[-1]
    trace = record(session.lm, before_last(one), session.readout.ids)[0]
    whole, none = ([space(d_model).to(device)] * session.layers for space in (everything, nothing))
    edits = {
        "whole": put(donated),
        "whole space": edit_of("exchange", whole, donated),
        "rank 0": edit_of("exchange", none, donated),
        "itself": edit_of("exchange", lesson.own, trace.tail if how.at == "last" else own),
        "edit": edit_of(how.edit, lesson.own, donated),
    }
    if how.at == "last":
        unedited, *rows = at_last(session, trace, list(edits.values()), len(edits) + 1)[0]
    else:
        rows = [logits for logits, _ in at_span(session, one, list(edits.values()), session.layers)[0]]
        unedited = rows[0][-1:].expand_as(rows[0])
    found = dict(zip(edits, rows))
    checked = [session.layers // 3, 2 * session.layers // 3]
    oracle = sweep(session.lm, "rerun", one, where, edits["edit"], checked, session.readout.ids).cpu()
    figures = {
        "exchange of the whole space - whole state": largest_difference(found["whole space"], found["whole"]),
        "exchange of rank 0 - unedited": largest_difference(found["rank 0"], unedited),
        "exchange with itself - unedited": largest_difference(found["itself"], unedited),
        f"{how.edit} by {session.engine} - rerun": largest_difference(found["edit"][checked], oracle),
    }
    limit = session.check.tolerance
    for name, difference in figures.items():
        if not difference <= limit:
            raise CheckFailed(f"self-check: {name} is {difference:.3g}, above {limit:.3g}")
    return figures
