"""Patch the strongest heads together, on texts that did not choose them; make the rows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from activation_patching.components.rows import Patch, own_runs, patch_rows, patched_sets
from common.components.submodules import Parts
from common.components.substitution import Component
from common.compute.memory import cache_bytes
from common.compute.session import Session
from common.errors import CheckFailed
from common.tracing.tolerance import largest_difference

Ranked = dict[int, list[tuple[int, int]]]  # half -> (block, head) of all heads, the strongest on the other half first
_FACTORS = ("target", "recipient_semantic_label", "recipient_prosody_label")


def ranked_heads(rows: pd.DataFrame) -> dict[str, Ranked]:
    """Return, for each kind of pair and half, the heads by how far they raise the target's logit beyond third labels.

    On the other half of the texts. Empty where the texts make no two halves.
    """
    labels = [c.removeprefix("logit_") for c in rows if c.startswith("logit_")]
    rise = np.stack([rows[f"logit_{x}"] - rows[f"base_{x}"] for x in labels], axis=1)  # [row, label]
    third = np.all([rows[f].to_numpy()[:, None] != np.array(labels) for f in _FACTORS], axis=0)
    usual = np.where(third, rise, 0).sum(axis=1) / np.maximum(third.sum(axis=1), 1)
    heads = rows.assign(beyond=rows.delta_logit - usual)[rows.part.str.startswith("head_")]
    found: dict[str, Ranked] = {}
    for (kind, half), of_half in heads.groupby(["kind", "half"]):
        means = of_half.groupby(["layer", "part"]).beyond.mean().sort_values(ascending=False, kind="stable")
        found.setdefault(str(kind), {})[1 - int(half)] = [(int(b), int(p.removeprefix("head_"))) for b, p in means.index]
    return {kind: ranked for kind, ranked in found.items() if len(ranked) == 2}


def steps(ranked: dict[str, Ranked]) -> tuple[int, ...]:
    """Return how many heads are put together: 1, 2, 4, ..., and all."""
    count = min(len(heads) for of_kind in ranked.values() for heads in of_kind.values())
    return (*(1 << n for n in range(count.bit_length()) if 1 << n < count), count)


def set_rows(
    session: Session,
    groups: Sequence[list[Patch]],
    *,
    parts: Sequence[Parts],
    ranked: dict[str, Ranked],
    cache_gb: float | None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all pairs of a recipient at a time, one for each number of heads, which is called its layer.

    Raises CheckFailed where all heads of all blocks do not give the donor's answer: what follows them is the same in both runs.
    """
    own = own_runs(session, parts, [group[0].pair.recipient for group in groups], cache_bytes(cache_gb))
    counts = steps(ranked)
    for group in groups:
        recipient, rows = own.whole(group[0].pair.recipient).to(session.lm.device), []
        for patch in group:
            donor = own.light(patch.pair.donor)
            heads = [Component(block, "head", head) for block, head in ranked[patch.pair.kind][patch.half]]
            sets = [[c for c in heads[:k] if parts[c.block].heads > c.head] for k in counts]
            logits = patched_sets(session, parts, patch.pair, sets, (recipient, donor), at_last=True)
            off = largest_difference(logits[-1, 1], donor.label_logits)
            if counts[-1] == sum(p.heads for p in parts) and not off <= session.check.tolerance:
                raise CheckFailed(f"{patch.pair.pair_id}: with all of the donor's heads it is {off:.3g} from the donor's answer")
            rows += patch_rows(session, patch, dict(zip(counts, logits)), donor.label_logits)
        yield rows
