"""Patch the spans of all pairs, and make the rows of patches.csv; also from the logits of exchange."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from activation_patching.span.patch import Patched, by_rerun, by_splice, by_sweep, donor_of, own_runs, run_of_donor
from common.clips.pairs import Pair
from common.compute.memory import cache_bytes
from common.compute.rounding import check_share, donors_again
from common.compute.session import Session
from common.model.readout import Readout, tied

MAX_ROWS = 256  # rows of tail tokens in one pass: enough to fill the matrix products, little memory

SHARED = ("text_id", "speaker", "source", "semantic_label", "prosody_label")  # of both clips of a pair, for its statistics


def patch_pairs(
    session: Session,
    groups: Sequence[list[Pair]],
    *,
    of: int | None = None,
    earlier: Path | None = None,
    align: str = "splice",
    cache_gb: float | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all pairs of a donor at a time; a pair's rows always come together.

    Clips are recorded when a pair first needs them and kept up to `cache_gb`: their tails, and until their turn as donors what
    the blocks have kept of their audio. Every pair is its own control: row L must be the recipient's own answer and, where
    the whole span is spliced in, row 0 the donor's. A pair beyond the tolerance of the dtype is patched again by rerun.

    Raises CheckFailed where a rerun does no better or more than 1 % of the run's pairs, `of` in all, are like that, with those
    whose rows an `earlier` start has written.
    """
    spliced = session.engine == "splice"
    own = own_runs(session, [donor_of(g[0]) for g in groups] if spliced else [], budget=cache_bytes(cache_gb))
    batch_size = max(1, MAX_ROWS // len(session.layers)) if spliced else len(session.layers)  # recipients, layers
    again = donors_again(earlier, session.engine) if earlier else []
    of = of or sum(map(len, groups))
    for group in groups:
        if spliced:
            patched, batch_size = by_splice(session, own, group, batch_size)
        else:
            patched, batch_size = by_sweep(session, own, group, align, batch_size)
        rows = []
        for pair, found in zip(group, patched):
            if found.fault:
                reason = f"{pair.pair_id}: {found.fault}"
                found = by_rerun(session, own, pair, align, reason)
                again.append(pair.donor.sample_id)
                check_share(again, of, str(session.engine), reason)
            pred_donor = session.readout.answer(found.logits[0] if spliced else run_of_donor(own, pair).label_logits)
            readout, layers = session.readout, session.layers
            rows += pair_rows(pair, found, pred_donor=pred_donor, readout=readout, layers=layers, reach=session.reach or 0)
        yield rows


def pair_rows(
    pair: Pair, patched: Patched, *, pred_donor: str, readout: Readout, layers: Sequence[int], reach: int
) -> list[dict[str, Any]]:
    """Return one row for each of `layers` of a pair; `pred_donor` is the donor's own answer.

    `base_*`: the recipient's own logits, unpatched, of the same pass: batches of other sizes round otherwise. `true_pair_id`: the
    pair that a control stands beside. `flip_to_target`: the patched answer is the target. `flip_from_base`: it differs from the
    base. `delta_logit`: the target's logit, patched minus base. `kv_shared` marks the layers from `reach` on, where no block
    keeps what it reads and nothing in the span can reach the answer. `own_run_difference`, at both ends: from donor's and
    recipient's own run. `tied`: the largest logit is that of two labels, of which the first is the answer. `engine`: "rerun"
    where a pair had to be patched again.
    """
    target, last, pred_base = readout.labels.index(pair.target), layers[-1], readout.answer(patched.base)
    clips, rows = (("recipient", pair.recipient), ("donor", pair.donor)), []
    for layer, logits in zip(layers, patched.logits, strict=True):
        pred_patch = readout.answer(logits)
        rows.append(
            {
                "pair_id": pair.pair_id,
                "true_pair_id": pair.true_pair_id,
                "kind": pair.kind,
                "control": pair.control,
                "recipient_id": pair.recipient.sample_id,
                "donor_id": pair.donor.sample_id,
                "target": pair.target,
                "layer": layer,
                **{f"logit_{label}": logit for label, logit in zip(readout.labels, logits.tolist())},
                **{f"base_{label}": logit for label, logit in zip(readout.labels, patched.base.tolist())},
                "pred_base": pred_base,
                "pred_donor": pred_donor,
                "pred_patch": pred_patch,
                "flip_to_target": int(pred_patch == pair.target),
                "flip_from_base": int(pred_patch != pred_base),
                "delta_logit": float(logits[target] - patched.base[target]),
                **{f"{role}_{name}": getattr(clip, name) for name in SHARED for role, clip in clips},
                "kv_shared": int(reach <= layer < last),
                "own_run_difference": {0: patched.row_0, last: patched.row_last}.get(layer),
                "tied": int(tied(logits)),
                "engine": patched.engine,
            }
        )
    return rows
