"""Patch the strongest heads together, on texts that did not choose them, or replace them by their mean; make the rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from activation_patching.components.rows import Patch, own_runs, patch_rows, patched_sets
from activation_patching.knockout.rows import clip_rows
from common.clips.manifest import Sample
from common.components.submodules import Parts
from common.components.substitution import Activations, Component, patch_components
from common.compute.memory import cache_bytes
from common.compute.session import Session
from common.errors import CheckFailed
from common.tracing.tolerance import check_finite, largest_difference

SETS = ("chosen", "random")  # heads; random ones are of the same blocks
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


@dataclass(frozen=True)
class Ablation:
    """A clip without the `heads`, chosen or random, that carry the cue of one `kind` of pair."""

    sample: Sample
    kind: str
    heads: str

    @property
    def name(self) -> str:
        return f"{self.sample.sample_id}|{self.kind}|{self.heads}"


def ablation_rows(
    session: Session,
    groups: Sequence[list[Ablation]],
    *,
    parts: Sequence[Parts],
    ranked: dict[str, Ranked],
    half: dict[str, int],
    samples: Sequence[Sample],
    seed: int,
    cache_gb: float | None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a clip at a time, one for each number of heads, which stands in the place of the layer.

    Means are over `samples` of the other half. Raises CheckFailed where a clip, whole, is not answered as in its own run.
    """
    own = own_runs(session, parts, [group[0].sample for group in groups], cache_bytes(cache_gb))
    means = {number: _mean([own.light(s).does for s in samples if half[s.sample_id] != number]) for number in (0, 1)}
    counts = steps(ranked)
    for group in groups:
        sample, rows = group[0].sample, []
        run, side = own.whole(sample).to(session.lm.device), half[sample.sample_id]
        sets = [s for a in group for s in _sets(a, ranked[a.kind][side], counts, parts, seed=seed)]
        logits = patch_components(
            session.lm, parts, run.reading(at_last=True), means[side].to(session.lm.device), sets, session.readout.ids
        ).cpu()
        check_finite(logits, sample.sample_id)
        if not (off := largest_difference(logits[0], run.label_logits)) <= session.check.tolerance:
            raise CheckFailed(f"{sample.sample_id}: whole it is {off:.3g} from its own run")
        for ablation, of_set in zip(group, logits[1:].unflatten(0, (len(group), -1))):
            what, of_counts = {"carry": ablation.kind, "heads": ablation.heads}, dict(zip(counts, of_set, strict=True))
            rows += clip_rows(session.readout, sample, {"ablation_id": ablation.name}, what, base=logits[0], logits=of_counts)
        yield rows


def _mean(does: Sequence[Activations]) -> Activations:
    """Return the mean of the last token's heads, over clips."""
    last = [[None if h is None else h[:, -1:].float() for h in one.heads] for one in does]
    heads = tuple(None if of[0] is None else torch.stack([h for h in of if h is not None]).mean(dim=0) for of in zip(*last))
    return Activations(heads, (None,) * len(heads))


def _sets(
    ablation: Ablation, ranked: list[tuple[int, int]], counts: Sequence[int], parts: Sequence[Parts], *, seed: int
) -> list[list[Component]]:
    """Return the heads that are taken out, for each number of them: the strongest, or as many others of the same blocks.

    Where a block has too few others, its strongest serve again.
    """
    sets = []
    for count in counts:
        chosen = ranked[:count]
        if ablation.heads == "random":
            rng, drawn = np.random.default_rng(seed + count), []
            for block in dict.fromkeys(block for block, _ in chosen):
                taken = [head for b, head in chosen if b == block]
                order = [h for h in rng.permutation(parts[block].heads) if h not in taken] + taken
                drawn += [(block, int(head)) for head in order[: len(taken)]]
            chosen = drawn
        sets.append([Component(block, "head", head) for block, head in chosen if parts[block].heads > head])
    return sets
