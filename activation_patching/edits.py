"""The ways of editing a subspace of the states: by splice at the last position, by staircase or rerun at the span."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from activation_patching.engines import Clip, OwnRun, Patched, run_of_donor
from activation_patching.how import How
from activation_patching.learned import Lesson, positions
from common.clips.pairs import Pair
from common.errors import CheckFailed
from common.model.encoding import EncodedClip
from common.patching.oracle import Edit, States, put
from common.patching.splice import splice
from common.patching.staircase import aligned, sweep
from common.patching.subspaces import edit_of, everything, nothing
from common.patching.tolerance import check_finite, largest_difference
from common.patching.tracing import Trace, record, states_at
from common.running.cache import Kept, in_chunks
from common.running.session import Session


def edit_for(pair: Pair, how: How, lesson: Lesson, donated: States) -> Edit:
    if pair.control == "whole":
        return put(donated)
    return edit_of(how.intervention, lesson.own, donated, lesson.random if pair.control == "random_subspace" else None)


def before_last(clip: EncodedClip) -> EncodedClip:
    """Return the clip with all but its last position as its span: its tail is then the position that is edited."""
    return EncodedClip(clip.inputs, slice(clip.span.start, clip.ids.shape[1] - 1))


def donated_states(session: Session, own: Kept[Clip, OwnRun], pair: Pair, how: How, recipient: EncodedClip) -> States:
    """Return the donor's states [1, pos, d_model] of each layer at the edited positions."""
    if how.at == "last":
        return _tail(run_of_donor(own, pair).trace)
    clip = session.encode(pair.donor)
    return aligned(states_at(session.lm, clip, clip.span), recipient.span_length, how.align)


def at_last(session: Session, trace: Trace, edits: Sequence[Edit], at_once: int) -> tuple[list[torch.Tensor], int]:
    """Return label logits [layer, label] of the run of `trace` unedited, then with each of `edits` of its last position."""
    trace = trace.to(session.lm.device)
    work = [trace, *(replace(trace, tail=_edited(_tail(trace), edit)) for edit in edits)]
    chunks, at_once = in_chunks(partial(splice, session.lm, trace, tokens=session.readout.ids), work, at_once)
    return list(torch.cat(chunks).cpu()), at_once


def _tail(trace: Trace) -> dict[int, torch.Tensor]:
    return dict(zip(trace.layers, trace.tail))


def _edited(tail: dict[int, torch.Tensor], edit: Edit) -> torch.Tensor:
    return torch.stack([edit(layer, h).to(h) for layer, h in tail.items()])


def at_span(
    session: Session, clip: EncodedClip, edits: Sequence[Edit], at_once: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], int]:
    """Return for each of `edits` of a clip's span the label logits [layer, label], and those of its row L, which is unedited."""
    found = []
    for edit in edits:
        of_layers = partial(sweep, session.lm, str(session.engine), clip, clip.span, edit, tokens=session.readout.ids)
        layers, at_once = in_chunks(of_layers, session.layers, at_once)
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
    logits = sweep(session.lm, "rerun", clip, where, edit, session.layers, session.readout.ids).cpu()
    check_finite(logits, pair.pair_id)
    base = logits[-1] if how.at == "span" else runs[1].label_logits
    if (patched := judge(session, pair, how, logits, base, "rerun", runs)).fault:
        raise CheckFailed(f"{reason}, and a rerun does no better: {patched.fault}")
    return patched


def check_edits(session: Session, one: EncodedClip, other: EncodedClip, how: How, lesson: Lesson) -> dict[str, float]:
    """Return how far the identities of edits are off on a clip and a donor; raise CheckFailed beyond the tolerance of the dtype.

    To exchange the whole space is the ordinary patch; to exchange nothing, or with the clip itself, changes nothing, exactly;
    and the engine gives what a rerun gives, at two layers.
    """
    where, device = positions(one, how.at), session.lm.device
    own, donor = (states_at(session.lm, clip, positions(clip, how.at)) for clip in (one, other))
    donated, d_model = aligned(donor, own.shape[-2], how.align), own.shape[-1]
    trace = record(session.lm, before_last(one), session.readout.ids, session.layers)[0]
    whole, none = (dict.fromkeys(session.layers, space(d_model).to(device)) for space in (everything, nothing))
    edits = {
        "whole": put(donated),
        "whole space": edit_of("exchange", whole, donated),
        "rank 0": edit_of("exchange", none, donated),
        "itself": edit_of("exchange", lesson.own, _tail(trace) if how.at == "last" else own),
        "edit": edit_of(how.intervention, lesson.own, donated),
    }
    if how.at == "last":
        unedited, *rows = at_last(session, trace, list(edits.values()), len(edits) + 1)[0]
    else:
        rows = [logits for logits, _ in at_span(session, one, list(edits.values()), len(session.layers))[0]]
        unedited = rows[0][-1:].expand_as(rows[0])
    found = dict(zip(edits, rows))
    places = [len(session.layers) // 3, 2 * len(session.layers) // 3]
    checked = [session.layers[i] for i in places]
    oracle = sweep(session.lm, "rerun", one, where, edits["edit"], checked, session.readout.ids).cpu()
    figures = {
        "exchange of the whole space - whole state": largest_difference(found["whole space"], found["whole"]),
        "exchange of rank 0 - unedited": largest_difference(found["rank 0"], unedited),
        "exchange with itself - unedited": largest_difference(found["itself"], unedited),
        f"{how.intervention} by {session.engine} - rerun": largest_difference(found["edit"][places], oracle),
    }
    limit = session.check.tolerance
    for name, difference in figures.items():
        if not difference <= limit:
            raise CheckFailed(f"self-check: {name} is {difference:.3g}, above {limit:.3g}")
    return figures
