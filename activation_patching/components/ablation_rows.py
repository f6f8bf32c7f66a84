"""Replace the strongest heads by their mean over other clips; make the rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from activation_patching.components.rows import own_runs
from activation_patching.components.set_rows import Ranked, steps
from activation_patching.knockout.rows import clip_rows
from common.clips.manifest import Sample
from common.components.submodules import Parts
from common.components.substitution import Activations, Component, patch_components
from common.compute.memory import cache_bytes
from common.compute.session import Session
from common.errors import CheckFailed
from common.tracing.tolerance import check_finite, largest_difference

SETS = ("chosen", "random")  # heads; random ones are of the same blocks


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
