"""Patch the pairs of a donor, check their ends, repeat doubtful ones by rerun."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from common.clips.manifest import Sample
from common.clips.pairs import Pair
from common.compute.activation_cache import ActivationCache, in_chunks
from common.compute.session import Session
from common.errors import CheckFailed
from common.model.encoding import EncodedClip
from common.patching.free_text import NextToken, Tokens
from common.patching.layer_batch import aligned, aligned_extra_inputs, span_start, sweep
from common.patching.rerun import put, rerun
from common.patching.splice import splice
from common.tracing.hooks import PerPositionInputs
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.tolerance import check_finite, largest_difference
from common.tracing.trace import Trace, given_at, record

Span = tuple[
    torch.Tensor, tuple[PerPositionInputs, ...]
]  # a donor's span: its states, and what the blocks are given there beside them
Clip = tuple[Sample, bool]  # a clip, or True for silence of its length


@dataclass(frozen=True)
class OwnRun:
    """A clip's own run: its trace and the label logits [label] of its answer."""

    trace: Trace
    label_logits: torch.Tensor


@dataclass(frozen=True)
class Patched:
    """A pair's label logits [layer, label], the `engine` that made them, and how far their ends are from the clips' own runs.

    `row_0` and `row_last` are the largest differences of two logits from donor's and recipient's own run; `row_0` is none where
    the donor's span is not put in whole. `fault` says which of the pair's controls is beyond the tolerance.
    `base` [label] is the recipient's answer unpatched.
    """

    logits: torch.Tensor
    engine: str
    row_0: float | None
    row_last: float
    fault: str
    base: torch.Tensor


def own_runs(
    session: Session, turns: Iterable[Clip], *, budget: int, view: Callable[[EncodedClip], EncodedClip] | None = None
) -> ActivationCache[Clip, OwnRun]:
    """Return the clips' own runs, of which the whole is asked for in `turns`; `view` says where the tail begins."""

    def record_clip(clip: Clip) -> OwnRun:
        sample, silent = clip
        encoded = session.encode(sample, silent=silent)
        prefix_cache = None if view else session.prefix_cache(sample, encoded, silent=silent)
        encoded = view(encoded) if view else encoded
        trace, label_logits = record(session.lm, encoded, session.readout.ids, session.layers, prefix_cache)
        check_finite(label_logits, sample.sample_id)
        return OwnRun(trace, label_logits[-1].cpu())

    return ActivationCache(
        record_clip,
        light=lambda run: replace(run, trace=run.trace.recipient()),
        store=lambda run: replace(run, trace=run.trace.to("cpu")),
        size=lambda run: run.trace.nbytes,
        turns=turns,
        budget=budget // (2 if session.shared else 1),  # the other half is for prefix caches
    )


def donor_of(pair: Pair) -> Clip:
    return pair.donor, pair.silent


def run_of_donor(own: ActivationCache[Clip, OwnRun], pair: Pair) -> OwnRun:
    return own.light(donor_of(pair))


def by_splice(
    session: Session, own: ActivationCache[Clip, OwnRun], group: list[Pair], batch_size: int
) -> tuple[list[Patched], int]:
    """Return a donor's pairs patched, and how many recipients at a time its passes ended with."""
    donor = own.whole(donor_of(group[0]))
    trace = donor.trace.to(session.lm.device)

    def work(pairs: Sequence[Pair]) -> list[Patched]:
        recipients = [own.light((p.recipient, False)) for p in pairs]
        logits = splice(session.lm, trace, [r.trace for r in recipients], session.readout.ids).cpu()  # [pair, layer, label]
        return [judge(session, p, rows, "splice", (donor, r)) for p, rows, r in zip(pairs, logits, recipients)]

    chunks, batch_size = in_chunks(work, group, batch_size)
    return [patched for chunk in chunks for patched in chunk], batch_size


def by_sweep(
    session: Session, own: ActivationCache[Clip, OwnRun], group: list[Pair], align: str, batch_size: int
) -> tuple[list[Patched], int]:
    """Return a donor's pairs patched, and how many layers at a time its passes ended with."""
    span, all_patched = _span(session, group[0]), []
    for pair in group:
        recipient = session.encode(pair.recipient)
        donated, extra_inputs = _aligned(span, recipient, align)
        edit = span_start(recipient, donated), put(donated)
        engine, tokens = str(session.engine), session.readout.ids
        sweep_layers = partial(sweep, session.lm, engine, recipient, *edit, tokens=tokens, extra_inputs=extra_inputs)
        layers, batch_size = in_chunks(sweep_layers, session.layers, batch_size)
        runs = run_of_donor(own, pair), own.light((pair.recipient, False))
        all_patched.append(judge(session, pair, torch.cat(layers).cpu(), str(session.engine), runs, whole=align == "splice"))
    return all_patched, batch_size


def by_rerun(session: Session, own: ActivationCache[Clip, OwnRun], pair: Pair, align: str, reason: str) -> Patched:
    """Return a pair patched by one full run for each layer; raise CheckFailed where that is not what it must be either.

    What splice gives is the donor's run with the recipient's tail in it, whatever the lengths; the others patch the recipient's.
    """
    donor, recipient = run_of_donor(own, pair), own.light((pair.recipient, False))
    if session.engine == "splice":
        clip, edit = session.encode(pair.donor, silent=pair.silent), put(dict(zip(session.layers, recipient.trace.tail)))
        runs = [rerun(session.lm, clip, i, clip.tail, edit, session.readout.ids) for i in session.layers]
        logits = torch.stack(runs)
    else:
        clip = session.encode(pair.recipient)
        donated, extra_inputs = _aligned(_span(session, pair), clip, align)
        edit, where = put(donated), span_start(clip, donated)
        logits = sweep(session.lm, "rerun", clip, where, edit, session.layers, session.readout.ids, extra_inputs)
    check_finite(logits, pair.pair_id)
    patched = judge(session, pair, logits.cpu(), "rerun", (donor, recipient), whole=align == "splice")
    if patched.fault:
        raise CheckFailed(f"{reason}, and a rerun does no better: {patched.fault}")
    return patched


def _span(session: Session, pair: Pair) -> Span:
    clip = session.encode(pair.donor, silent=pair.silent)
    return given_at(session.lm, clip, clip.span)


def _aligned(span: Span, recipient: EncodedClip, align: str) -> Span:
    states, extra_inputs = span
    return aligned(states, recipient.span_length, align), aligned_extra_inputs(extra_inputs, recipient.span_length, align)


def judge(
    session: Session, pair: Pair, logits: torch.Tensor, engine: str, runs: tuple[OwnRun, OwnRun], *, whole: bool = True
) -> Patched:
    """Hold the ends of a pair's logits [layer, label] against the own `runs` of donor and recipient.

    Row 0 is a control only where the `whole` span is put in, and a fault only where the self-check found it to hold: else the
    session has warned of what reaches the decoder beside h_0.
    """
    row_0, row_last = (largest_difference(logits[i], run.label_logits) for i, run in zip((0, -1), runs))
    limit, found = session.check.tolerance, session.check.patch.row_0 if session.check.patch else None
    controls = {"row 0 - donor": row_0 if whole and found is not None and found <= limit else 0, "row L - recipient": row_last}
    faults = [f"{name} is {d:.3g}, above {limit:.3g}" for name, d in controls.items() if not d <= limit]
    if not logits.isfinite().all():
        faults.append("not all of its logits are finite numbers")
    return Patched(logits, engine, row_0 if whole else None, row_last, "; ".join(faults), logits[-1])


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
