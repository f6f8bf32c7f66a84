"""Patch the audio span of every layer of every pair, all pairs of a donor together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from common.checks import check_equal
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
    for kind in kinds:
        built, shared, dropped = build_pairs(samples, kind, max_pairs=max_pairs, seed=seed)
        counts[kind] = {"kept": len(built), "dropped": dict(dropped), "share": shared}
        pairs += built
    return pairs, counts


def record_clips(session: Session, pairs: list[Pair]) -> dict[str, OwnRun]:
    """Record each clip of `pairs` once, by sample_id: one run serves every pair that it is in, as recipient or donor."""
    own: dict[str, OwnRun] = {}
    samples = {s.sample_id: s for p in pairs for s in (p.recipient, p.donor)}
    bar = tqdm(samples.values(), desc="recording", unit="clip")
    for sample in bar:
        trace, lens_logits = record(session.lm, session.encode(sample))
        own[sample.sample_id] = OwnRun(trace.to("cpu"), session.readout.label_logits(lens_logits[-1]).cpu())
        bar.set_postfix_str(f"{trace.nbytes * len(samples) / 1e9:.2f} GB in all", refresh=False)
    return own


def patch_pairs(
    session: Session, pairs: list[Pair], own: dict[str, OwnRun], controls: dict[str, float]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all pairs of a donor at a time; a pair's rows always come together.

    Keeps in `controls` the largest difference between row 0 and the donor's own answer and between row L and the
    recipient's, over all pairs, and raises CheckFailed where one is beyond the tolerance of the dtype.
    """
    lm = session.lm
    at_once = max(1, _MAX_ROWS // (len(lm.blocks) + 1))
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.donor.sample_id, []).append(pair)
    for donor_id, group in groups.items():
        donor = own[donor_id].trace.to(lm.device)
        rows = []
        for start in range(0, len(group), at_once):
            some = group[start : start + at_once]
            traces = [own[p.recipient.sample_id].trace.to(lm.device) for p in some]
            patched = session.readout.label_logits(splice(lm, donor, traces)).cpu()  # [pair, layer, label]
            base = torch.stack([own[p.recipient.sample_id].label_logits for p in some])
            ends = {"row 0 - donor": patched[:, 0] - own[donor_id].label_logits, "row L - recipient": patched[:, -1] - base}
            for name, difference in ends.items():
                largest = float(difference.abs().max())
                controls[name] = max(controls.get(name, 0.0), largest)
                check_equal(name, largest, lm, scale=float(patched.abs().max()))
            for pair, logits, own_logits in zip(some, patched, base):
                rows += pair_rows(pair, logits, own_logits, own[donor_id].label_logits)
        yield rows


def pair_rows(pair: Pair, patched: torch.Tensor, base: torch.Tensor, donor: torch.Tensor) -> list[dict[str, Any]]:
    """Return one row per layer of a pair from the label logits of its splice [layer, label] and of the two own runs [label].

    `flip_to_target`: the patched answer is the target. `flip_from_base`: it differs from the recipient's own answer.
    `delta_logit`: the target's logit, patched minus base, the base being row L of the same pass.
    """
    target = LABELS.index(pair.target)
    pred_base, pred_donor = _answer(base), _answer(donor)
    rows = []
    for layer, logits in enumerate(patched):
        pred_patch = _answer(logits)
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
                "delta_logit": float(logits[target] - patched[-1, target]),
                "recipient_text_id": pair.recipient.text_id,
                "donor_text_id": pair.donor.text_id,
            }
        )
    return rows


def _answer(label_logits: torch.Tensor) -> str:
    return LABELS[int(label_logits.argmax())]


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
