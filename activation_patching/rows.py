"""Patch the audio span of every layer of every pair, all pairs of a donor together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from common.clips.pairs import Pair
from common.clips.samples import Sample
from common.errors import InputError
from common.model.encoding import EncodedClip
from common.model.readout import Readout
from common.patching.checks import check_equal, check_finite, largest_difference
from common.patching.splice import splice
from common.patching.staircase import aligned, sweep
from common.patching.tracing import Trace, record, states_at
from common.running.cache import Kept, cache_bytes, in_chunks
from common.running.session import Session

_MAX_ROWS = 256  # rows of tail tokens in one pass: enough to fill the matrix products, little memory


Clip = tuple[Sample, bool]  # a clip, or True for silence of its length


@dataclass(frozen=True)
class OwnRun:
    """A clip's own run: its trace (in main memory) and the label logits [label] of its answer."""

    trace: Trace
    label_logits: torch.Tensor


def patch_pairs(
    session: Session, groups: Iterable[list[Pair]], *, align: str, cache_gb: float | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all pairs of a donor at a time; a pair's rows always come together.

    Clips are recorded when a pair first needs them and kept up to `cache_gb`. Every pair is its own control: row L must be
    the recipient's own answer and, where the whole span is spliced in, row 0 the donor's. Raises CheckFailed where they differ
    beyond the tolerance of the dtype, InputError where spans differ in length and `align` does not say what then.
    """

    def record_clip(clip: Clip) -> OwnRun:
        sample, silent = clip
        trace, lens_logits = record(session.lm, session.encode(sample, silent=silent))
        return OwnRun(trace.to("cpu"), session.label_logits(lens_logits[-1], sample.sample_id))

    own = Kept(record_clip, size=lambda run: run.trace.nbytes, budget=cache_bytes(cache_gb))
    at_once = max(1, _MAX_ROWS // session.layers) if session.engine == "splice" else session.layers  # recipients, layers
    for group in groups:
        sample, silent = group[0].donor, group[0].silent
        donor, recipients = own((sample, silent)), [(p.recipient, False) for p in group]
        name = f"donor {sample.sample_id}{', silent' * silent}"
        if session.engine == "splice":
            trace = donor.trace.to(session.lm.device)
            work = partial(_spliced, session, trace, own, name)
            chunks, at_once = in_chunks(work, recipients, at_once)
        else:
            states = states_at(session.lm, clip := session.encode(sample, silent=silent), clip.span)
            chunks = []
            for recipient, _ in recipients:
                work = partial(_swept, session, states, session.encode(recipient), align, name)
                layers, at_once = in_chunks(work, range(session.layers), at_once)
                chunks.append(torch.cat(layers)[None])
        rows = []
        for pair, logits in zip(group, torch.cat(chunks)):  # [layer, label]
            ends = (donor.label_logits, own((pair.recipient, False)).label_logits)
            differences = _checked_ends(session, pair, logits, ends)
            donor_logits = logits[0] if session.engine == "splice" else donor.label_logits
            rows += pair_rows(pair, logits, donor_logits, readout=session.readout, differences=differences, reach=session.reach)
        yield rows


def _spliced(session: Session, donor: Trace, own: Kept[Clip, OwnRun], name: str, recipients: Sequence[Clip]) -> torch.Tensor:
    patched = splice(session.lm, donor, [own(r).trace for r in recipients], session.readout.ids).float().cpu()
    check_finite(patched, name)
    return patched  # [pair, layer, label]


def _swept(
    session: Session, states: torch.Tensor, recipient: EncodedClip, align: str, name: str, layers: Sequence[int]
) -> torch.Tensor:
    if align == "splice" and recipient.span_length != states.shape[-2]:
        raise InputError(
            f"{name} has {states.shape[-2]} audio tokens and a recipient of it {recipient.span_length}; this model is patched by "
            f"{session.engine}, which needs equal lengths: --align crop or --align stretch makes them equal"
        )
    donated = aligned(states, recipient.span_length, align)
    return session.label_logits(sweep(session.lm, session.engine, recipient, donated, layers), name)  # [layer, label]


def _checked_ends(session: Session, pair: Pair, patched: torch.Tensor, ends: tuple[torch.Tensor, torch.Tensor]) -> list[float]:
    """Return how far rows 0 and L of a pair [layer, label] are from donor's and recipient's own run; raise where too far."""
    scale = float(session.checks["largest logit"])
    differences = [largest_difference(patched[row], end) for row, end in zip((0, -1), ends)]
    if session.engine == "splice":
        check_equal(f"{pair.pair_id}: row 0 - donor", differences[0], session.lm, scale=scale)
    check_equal(f"{pair.pair_id}: row L - recipient", differences[1], session.lm, scale=scale)
    if pair.control == "itself":
        check_equal(f"{pair.pair_id}: any row - recipient", largest_difference(patched, patched[-1:]), session.lm, scale=scale)
    return differences


def pair_rows(
    pair: Pair, patched: torch.Tensor, donor: torch.Tensor, *, readout: Readout, differences: Sequence[float], reach: int
) -> list[dict[str, Any]]:
    """Return one row per layer of a pair from the label logits of its patches [layer, label] and of its `donor` [label].

    Row L is the base, the recipient's answer, of the same pass: batches of other sizes round otherwise. `flip_to_target`: the
    patched answer is the target. `flip_from_base`: it differs from the base. `delta_logit`: the target's logit, patched minus
    base. `kv_shared` marks the layers from `reach` on, where no block has keys and values of its own and nothing in the span can
    reach the answer. `own_run_difference`, at both ends: the largest `differences` from donor's and recipient's own run.
    """
    target, last = readout.labels.index(pair.target), len(patched) - 1
    pred_donor, pred_base = readout.answer(donor), readout.answer(patched[last])
    rows = []
    for layer, logits in enumerate(patched):
        pred_patch = readout.answer(logits)
        rows.append(
            {
                "pair_id": pair.pair_id,
                "kind": pair.kind,
                "control": pair.control,
                "recipient_id": pair.recipient.sample_id,
                "donor_id": pair.donor.sample_id,
                "target": pair.target,
                "layer": layer,
                **{f"logit_{label}": logit for label, logit in zip(readout.labels, logits.tolist())},
                "pred_base": pred_base,
                "pred_donor": pred_donor,
                "pred_patch": pred_patch,
                "flip_to_target": int(pred_patch == pair.target),
                "flip_from_base": int(pred_patch != pred_base),
                "delta_logit": float(logits[target] - patched[last, target]),
                "recipient_text_id": pair.recipient.text_id,
                "donor_text_id": pair.donor.text_id,
                "recipient_speaker": pair.recipient.speaker,
                "donor_speaker": pair.donor.speaker,
                "kv_shared": int(reach <= layer < last),
                "own_run_difference": {0: differences[0], last: differences[1]}.get(layer),
            }
        )
    return rows
