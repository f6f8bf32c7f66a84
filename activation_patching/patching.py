"""Patch the audio span of every layer of every pair, all pairs of a donor together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from common.checks import check_equal
from common.readout import answer
from common.samples import LABELS, Pair, Sample, build_pairs
from common.session import Session
from common.tracing import Trace, record, splice

_MAX_ROWS = 256  # rows of tail tokens in one pass: enough to fill the matrix products, little memory


@dataclass(frozen=True)
class OwnRun:
    """A clip's own run: its trace (in main memory) and the label logits [label] of its answer."""

    trace: Trace
    label_logits: torch.Tensor


def build_all_pairs(samples: list[Sample], kinds: list[str], *, max_pairs: int, seed: int) -> tuple[list[Pair], dict[str, Any]]:
    """Return the pairs of all `kinds` and, by kind, how many there are, what their clips share and what was left out."""
    pairs: list[Pair] = []
    counts: dict[str, Any] = {}
    for kind in dict.fromkeys(kinds):
        built, shared, dropped = build_pairs(samples, kind, max_pairs=max_pairs, seed=seed)
        counts[kind] = {"kept": len(built), "dropped": dict(dropped), "share": shared}
        pairs += built
    return pairs, counts


def clips_of(pairs: list[Pair]) -> list[Sample]:
    """Return each clip of `pairs` once."""
    return list({s.sample_id: s for p in pairs for s in (p.recipient, p.donor)}.values())


def record_clips(session: Session, pairs: list[Pair]) -> dict[str, OwnRun]:
    """Record each clip of `pairs` once, by sample_id: one run serves every pair that it is in, as recipient or donor."""
    own: dict[str, OwnRun] = {}
    samples = clips_of(pairs)
    bar = tqdm(samples, desc="recording", unit="clip")
    for sample in bar:
        trace, lens_logits = record(session.lm, session.encode(sample))
        own[sample.sample_id] = OwnRun(trace.to("cpu"), session.label_logits(lens_logits[-1], sample.sample_id))
        bar.set_postfix_str(f"{trace.nbytes * len(samples) / 1e9:.2f} GB in all", refresh=False)
    return own


def patch_pairs(session: Session, pairs: list[Pair], own: dict[str, OwnRun]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all pairs of a donor at a time; a pair's rows always come together.

    Every pair is its own control: row 0 must be the donor's own answer and row L the recipient's. Raises CheckFailed where
    they differ beyond the tolerance of the dtype.
    """
    lm = session.lm
    at_once = max(1, _MAX_ROWS // session.layers)
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.donor.sample_id, []).append(pair)
    for donor_id, group in groups.items():
        donor = own[donor_id].trace.to(lm.device)
        rows = []
        for start in range(0, len(group), at_once):
            some = group[start : start + at_once]
            traces = [own[p.recipient.sample_id].trace for p in some]  # splice fetches their tails alone, layer by layer
            patched = session.label_logits(splice(lm, donor, traces), f"donor {donor_id}")  # [pair, layer, label]
            scale = float(patched.abs().max())
            for pair, logits in zip(some, patched):
                ends = (own[donor_id].label_logits, own[pair.recipient.sample_id].label_logits)
                differences = [float((logits[row] - end).abs().max()) for row, end in zip((0, -1), ends)]
                check_equal(f"{pair.pair_id}: row 0 - donor", differences[0], lm, scale=scale)
                check_equal(f"{pair.pair_id}: row L - recipient", differences[1], lm, scale=scale)
                rows += pair_rows(pair, logits, differences)
        yield rows


def pair_rows(pair: Pair, patched: torch.Tensor, differences: Sequence[float]) -> list[dict[str, Any]]:
    """Return one row per layer of a pair from the label logits of its splice [layer, label].

    Row 0 is the donor's answer and row L the base, the recipient's, of the same pass: batches of other sizes round otherwise.
    `flip_to_target`: the patched answer is the target. `flip_from_base`: it differs from the base. `delta_logit`: the
    target's logit, patched minus base. `own_run_difference`, at both ends: largest difference from the clip's own run.
    """
    target, last = LABELS.index(pair.target), len(patched) - 1
    pred_donor, pred_base = answer(patched[0]), answer(patched[last])
    rows = []
    for layer, logits in enumerate(patched):
        pred_patch = answer(logits)
        rows.append(
            {
                "pair_id": pair.pair_id,
                "kind": pair.kind,
                "recipient_id": pair.recipient.sample_id,
                "donor_id": pair.donor.sample_id,
                "target": pair.target,
                "layer": layer,
                **{f"logit_{label}": logit for label, logit in zip(LABELS, logits.tolist())},
                "pred_base": pred_base,
                "pred_donor": pred_donor,
                "pred_patch": pred_patch,
                "flip_to_target": int(pred_patch == pair.target),
                "flip_from_base": int(pred_patch != pred_base),
                "delta_logit": float(logits[target] - patched[last, target]),
                "recipient_text_id": pair.recipient.text_id,
                "donor_text_id": pair.donor.text_id,
                "own_run_difference": {0: differences[0], last: differences[1]}.get(layer),
            }
        )
    return rows


def controls(rows: pd.DataFrame) -> dict[str, float]:
    """Return the largest difference, over all pairs, of row 0 from the donor's own run and of row L from the recipient's."""
    ends = rows.groupby("layer").own_run_difference.max()
    return {"row 0 - donor, all pairs": float(ends.iloc[0]), "row L - recipient, all pairs": float(ends.iloc[-1])}


def summary(layers: pd.DataFrame) -> str:
    """Say in a line per kind what came out, from the per-layer table."""
    lines = []
    for kind, table in layers.groupby("kind", sort=False):
        first, middle = table.iloc[0], table.iloc[len(table) // 2]
        lines.append(
            f"{kind} pairs (n = {first.n:.0f}): flip to target {first.flip_to_target:.3f} at l = 0, "
            f"{middle.flip_to_target:.3f} at l = {middle.layer:.0f}, floor {first.floor:.3f}; "
            f"delta logit {first.delta_logit:+.2f} at l = 0, {middle.delta_logit:+.2f} at l = {middle.layer:.0f}"
        )
    return "\n".join(lines)
