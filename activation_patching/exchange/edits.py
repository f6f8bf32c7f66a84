"""Exchange a subspace at every layer, at the last position or in the span, and check it against reruns."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from activation_patching.exchange.fits import PairSubspaces, positions
from activation_patching.intervention import InterventionSpec
from activation_patching.span.patch import Clip, OwnRun, Patched, run_of_donor
from common.clips.pairs import Pair
from common.compute.activation_cache import ActivationCache, in_chunks
from common.compute.session import Session
from common.errors import CheckFailed
from common.model.encoding import EncodedClip, before_last
from common.patching.free_text import NextToken, Tokens
from common.patching.layer_batch import aligned, sweep
from common.patching.leace import everything, exchange_of, nothing
from common.patching.rerun import Edit, States, put
from common.patching.splice import splice
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.tolerance import check_finite, equal, largest_difference
from common.tracing.trace import Trace, record, states_at

_MAX_TEXTS = 256  # in a pass, each with the logits of the vocabulary


def edit_for(pair: Pair, subspaces: PairSubspaces, donated: States) -> Edit:
    if pair.control == "whole":
        return put(donated)
    return exchange_of(subspaces.own, donated, subspaces.random if pair.control == "random_subspace" else None)


def donated_states(
    session: Session, own: ActivationCache[Clip, OwnRun], pair: Pair, spec: InterventionSpec, recipient: EncodedClip
) -> States:
    """Return the donor's states [1, pos, d_model] of each layer at the edited positions."""
    if spec.at == "last":
        return _tail(run_of_donor(own, pair).trace)
    clip = session.encode(pair.donor)
    return aligned(states_at(session.lm, clip, clip.span), recipient.span_length, spec.align)


def at_last(session: Session, trace: Trace, edits: Sequence[Edit], batch_size: int) -> tuple[list[torch.Tensor], int]:
    """Return label logits [layer, label] of the run of `trace` unedited, then with each of `edits` of its last position."""
    trace = trace.to(session.lm.device)
    work = [trace, *(replace(trace, tail=edited(trace, edit)) for edit in edits)]
    chunks, batch_size = in_chunks(partial(splice, session.lm, trace, tokens=session.readout.ids), work, batch_size)
    return list(torch.cat(chunks).cpu()), batch_size


def _tail(trace: Trace) -> dict[int, torch.Tensor]:
    return dict(zip(trace.layers, trace.tail))


def edited(trace: Trace, edit: Edit) -> torch.Tensor:
    """Return a tail's states [layer, 1, tail, d_model], of each layer those of its first token edited."""
    first = [edit(layer, h[..., :1, :]).to(h) for layer, h in _tail(trace).items()]
    return torch.cat([torch.stack(first), trace.tail[..., 1:, :]], dim=-2)


def at_span(
    session: Session, clip: EncodedClip, edits: Sequence[Edit], batch_size: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], int]:
    """Return for each of `edits` of a clip's span the label logits [layer, label], and those of its row L, which is unedited."""
    found = []
    for edit in edits:
        of_layers = partial(sweep, session.lm, str(session.engine), clip, clip.span, edit, tokens=session.readout.ids)
        layers, batch_size = in_chunks(of_layers, session.layers, batch_size)
        logits = torch.cat(layers).cpu()
        found.append((logits, logits[-1]))
    return found, batch_size


def judge(
    session: Session,
    pair: Pair,
    spec: InterventionSpec,
    logits: torch.Tensor,
    base: torch.Tensor,
    engine: str,
    runs: tuple[OwnRun, OwnRun],
) -> Patched:
    """Hold a pair's logits [layer, label] and its `base`, the answer unedited, against the own `runs` of donor and recipient.

    At the last position row L is an effect like any other, and with the donor's whole state there the donor's own answer.
    """
    donor, recipient = runs
    controls = {"unedited - recipient": largest_difference(base, recipient.label_logits)}
    if pair.control == "whole" and spec.at == "last":
        controls["row L - donor"] = largest_difference(logits[-1], donor.label_logits)
    limit = session.check.tolerance
    faults = [f"{name} is {d:.3g}, above {limit:.3g}" for name, d in controls.items() if not d <= limit]
    if not logits.isfinite().all():
        faults.append("not all of its logits are finite numbers")
    return Patched(logits, engine, None, controls["unedited - recipient"], "; ".join(faults), base)


def again_by_rerun(
    session: Session, pair: Pair, spec: InterventionSpec, edit: Edit, clip: EncodedClip, runs: tuple[OwnRun, OwnRun], reason: str
) -> Patched:
    """Return a pair edited by one full run for each layer; raise CheckFailed where that is not what it must be either."""
    where = positions(clip, spec.at)
    logits = sweep(session.lm, "rerun", clip, where, edit, session.layers, session.readout.ids).cpu()
    check_finite(logits, pair.pair_id)
    base = logits[-1] if spec.at == "span" else runs[1].label_logits
    if (patched := judge(session, pair, spec, logits, base, "rerun", runs)).fault:
        raise CheckFailed(f"{reason}, and a rerun does no better: {patched.fault}")
    return patched


def check_edits(
    session: Session, one: EncodedClip, other: EncodedClip, spec: InterventionSpec, subspaces: PairSubspaces
) -> dict[str, float]:
    """Return how far the identities of edits are off on a clip and a donor; raise CheckFailed beyond the tolerance of the dtype.

    To exchange the whole space is the ordinary patch; to exchange nothing, or with the clip itself, changes nothing, exactly;
    and the engine gives what a rerun gives, at two layers.
    """
    where, device = positions(one, spec.at), session.lm.device
    own, donor = (states_at(session.lm, clip, positions(clip, spec.at)) for clip in (one, other))
    donated, d_model = aligned(donor, own.shape[-2], spec.align), own.shape[-1]
    trace = record(session.lm, before_last(one), session.readout.ids, session.layers)[0]
    whole, none = (dict.fromkeys(session.layers, space(d_model).to(device)) for space in (everything, nothing))
    edits = {
        "whole": put(donated),
        "whole space": exchange_of(whole, donated),
        "rank 0": exchange_of(none, donated),
        "itself": exchange_of(subspaces.own, _tail(trace) if spec.at == "last" else own),
        "exchange": exchange_of(subspaces.own, donated),
    }
    if spec.at == "last":
        unedited, *rows = at_last(session, trace, list(edits.values()), len(edits) + 1)[0]
    else:
        rows = [logits for logits, _ in at_span(session, one, list(edits.values()), len(session.layers))[0]]
        unedited = rows[0][-1:].expand_as(rows[0])
    found = dict(zip(edits, rows))
    places = [len(session.layers) // 3, 2 * len(session.layers) // 3]
    checked = [session.layers[i] for i in places]
    slow = sweep(session.lm, "rerun", one, where, edits["exchange"], checked, session.readout.ids).cpu()
    figures = {
        "exchange of the whole space - whole state": largest_difference(found["whole space"], found["whole"]),
        "exchange of rank 0 - unedited": largest_difference(found["rank 0"], unedited),
        "exchange with itself - unedited": largest_difference(found["itself"], unedited),
        f"exchange by {session.engine} - rerun": largest_difference(found["exchange"][places], slow),
    }
    return {name: equal(name, difference, session.check.tolerance) for name, difference in figures.items()}


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
        chunks, _ = in_chunks(pass_of, tails, max(1, _MAX_TEXTS // len(layers)))
        logits = torch.cat(chunks)  # [edit, layer, vocab]
        places = [(numbers.index(row // count), layers.index(session.layers[row % count])) for row in rows]
        return torch.stack([logits[place] for place in places])

    return at_span if at == "span" else at_last


def _spliced(session: Session, trace: Trace, tails: Sequence[torch.Tensor]) -> torch.Tensor:
    return splice(session.lm, trace, [replace(trace, tail=tail) for tail in tails])
