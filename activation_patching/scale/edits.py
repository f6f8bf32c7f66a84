"""Scale subspaces: at the last position all layers in one pass, in the span in layer batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from activation_patching.exchange.edits import edited
from activation_patching.scale.curves import OWN, Curve
from activation_patching.scale.fits import Both
from common.compute.activation_cache import in_chunks
from common.compute.session import Session
from common.model.encoding import EncodedClip, before_last
from common.patching.layer_batch import sweep
from common.patching.leace import scale_of
from common.patching.rerun import Edit
from common.patching.splice import read_out, splice
from common.patching.tail_pass import last_of, tail_of
from common.tracing.prefix_cache import PrefixCache
from common.tracing.trace import Trace, record, states_at

_MAX_ROWS = 512  # of one token in a pass over the last position, each with the logits of the vocabulary


@dataclass(frozen=True)
class Scaled:
    """A clip's answer scaled: label logits [layer, label] of the run, and `direct`ly, where no later block reads the change.

    mass: [layer], the labels' probability. kl: [layer], in nats, of the vocabulary's distribution from the untouched one.
    """

    logits: torch.Tensor
    direct: torch.Tensor
    mass: torch.Tensor
    kl: torch.Tensor


@dataclass(frozen=True)
class Untouched:
    """A clip's own answer: its label logits [label], the labels' probability (`mass`), and `states` [layer, d_model]."""

    logits: torch.Tensor
    mass: float
    states: torch.Tensor


def edit_of_curve(curve: Curve, both: Both) -> Edit:
    of_cue = both[curve.kind]
    instead = {OWN: None, "random_subspace": of_cue.random, "permuted_labels": of_cue.permuted}[curve.control]
    return scale_of(curve.factor, of_cue.own, instead)


def scaled(
    session: Session,
    clip: EncodedClip,
    edits: Sequence[Edit],
    *,
    at: str,
    prefix_cache: PrefixCache | None = None,
    batch_size: int | None = None,
) -> tuple[Untouched, list[Scaled], int]:
    """Return a clip's own answer, its answers with each of `edits` at `at`, and how many edits at a time a pass took.

    With the `prefix_cache` of a clip the last position needs no run of its audio.
    """
    size = batch_size or max(1, _MAX_ROWS // len(session.layers))
    if at == "span":
        return _at_span(session, clip, edits, size)
    return _at_last(session, last_token(session, clip, prefix_cache), edits, size)


def last_token(session: Session, clip: EncodedClip, prefix_cache: PrefixCache | None = None) -> Trace:
    """Return a clip's own run, whose tail is its last token alone."""
    before = None if prefix_cache is None else last_of(session.lm, tail_of(session.lm, clip, prefix_cache)).cache
    return record(session.lm, before_last(clip), session.readout.ids, session.layers, before)[0]


def _at_last(session: Session, trace: Trace, edits: Sequence[Edit], size: int) -> tuple[Untouched, list[Scaled], int]:
    lm, ids = session.lm, session.readout.ids
    base = read_out(lm, trace, trace.tail[-1, :, 0], ids, whole=True)[0]

    def some(edits: Sequence[Edit]) -> list[Scaled]:
        tails = [edited(trace, edit) for edit in edits]
        logits = splice(lm, trace, [replace(trace, tail=tail) for tail in tails], ids, whole=True)  # [edit, layer, vocab + label]
        changes = torch.stack(tails).float() - trace.tail.float()  # [edit, layer, 1, 1, d_model]
        out = (trace.tail[-1].float() + changes).to(trace.tail)[:, :, 0, 0]
        direct = read_out(lm, trace, out.flatten(0, 1), ids).unflatten(0, out.shape[:2]).cpu()
        return [_measured(row, base, of_row, len(ids)) for row, of_row in zip(logits, direct)]

    chunks, size = in_chunks(some, edits, size)
    return _untouched(base, trace.tail[:, 0, 0], len(ids)), [s for chunk in chunks for s in chunk], size


def _at_span(session: Session, clip: EncodedClip, edits: Sequence[Edit], size: int) -> tuple[Untouched, list[Scaled], int]:
    """A change of the span cannot leave the model by itself: its direct answer is the untouched one."""
    ids, size = session.readout.ids, min(size, len(session.layers))
    states = states_at(session.lm, clip, clip.span)[list(session.layers), 0].mean(dim=1)
    base, found = torch.empty(0), []
    for edit in edits:
        of_layers = partial(sweep, session.lm, str(session.engine), clip, clip.span, edit, tokens=ids, whole=True)
        chunks, size = in_chunks(of_layers, session.layers, size)
        logits = torch.cat(chunks)  # nothing reads the span of h_L: its row is untouched
        base = logits[-1]
        found.append(_measured(logits, base, base[-len(ids) :].cpu().expand(len(logits), -1), len(ids)))
    return _untouched(base, states, len(ids)), found, size


def _untouched(base: torch.Tensor, states: torch.Tensor, labels: int) -> Untouched:
    return Untouched(base[-labels:].float().cpu(), float(_mass(base, labels)), states.float())


def _measured(logits: torch.Tensor, base: torch.Tensor, direct: torch.Tensor, labels: int) -> Scaled:
    """Measure logits [layer, vocab + label] against those of the untouched answer `base` [vocab + label]."""
    log_p, log_q = (x[..., :-labels].float().log_softmax(dim=-1) for x in (base, logits))
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1).clamp(min=0)
    return Scaled(logits[:, -labels:].float().cpu(), direct, _mass(logits, labels).cpu(), kl.cpu())


def _mass(logits: torch.Tensor, labels: int) -> torch.Tensor:
    """Return the labels' probability [...] from logits [..., vocab + label]."""
    return (logits[..., -labels:].float().logsumexp(-1) - logits[..., :-labels].float().logsumexp(-1)).exp().clamp(max=1)
