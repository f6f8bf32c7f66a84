"""Read the findings of a components run from its tables."""

from dataclasses import dataclass

import pandas as pd

from common.clips.pairs import CUES
from common.stats.findings import Estimate, estimate_of, headline_of

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class ComponentEffect:
    """What one part of one block brings of the donor's words ("semantic") or voice ("prosody") at the last token.

    `part`: "attention", "mlp", or "head_3". `effect_logit`: by how much it raises the target's logit beyond third labels (primary
    outcome), of texts that did not choose it. `direct`: of that, what it does by itself; None
    where the model's blocks do not tell. `chosen`: by how many of the two halves of the texts it is among the ten strongest.
    """

    kind: str
    part: str
    layer: int
    chosen: int
    effect_logit: Estimate
    direct: Estimate | None


@dataclass(frozen=True)
class HeadsTogether:
    """What the strongest `heads` of all `of` do together at the last token, chosen on other texts than they are estimated on.

    `share`: of the effect on the logit that all heads have, which is that of the donor's answer. `half`: no fewer
    of those tried make half of it.
    """

    kind: str
    heads: int
    of: int
    effect_logit: Estimate
    share: Estimate
    half: bool


def heads_together(tables: Tables) -> list[HeadsTogether]:
    """Return what 1, 2, 4, ... and all heads do together, of each kind of pair."""
    if "together" not in tables:
        return []
    found = []
    for kind, rows in tables["together"].groupby("kind", sort=False):
        enough = rows.heads[rows.share >= 0.5]
        for _, r in rows.iterrows():
            half = len(enough) > 0 and r.heads == enough.iloc[0]
            estimates = estimate_of(r, "effect_logit"), estimate_of(r, "share")
            found.append(HeadsTogether(str(kind), int(r.heads), int(rows.heads.max()), *estimates, half))
    return found


@dataclass(frozen=True)
class HeadsAblated:
    """What becomes of the dependence on one cue (`kind`) without the strongest `heads` for the cue that they `carry` (share).

    They are put at their mean over other texts. `minus_random`: less the change without random heads of the same blocks.
    """

    carry: str
    kind: str
    heads: int
    effect: Estimate
    minus_random: Estimate


def heads_ablated(tables: Tables) -> list[HeadsAblated]:
    """Return what becomes without as many heads as make half of what all do, of each cue; none where that is not known."""
    halves = {h.kind: h.heads for h in heads_together(tables) if h.half}
    rows = [r for _, r in tables["ablation"].iterrows()] if "ablation" in tables else []
    return [
        HeadsAblated(str(r.carry), str(r.kind), int(r.heads), estimate_of(r, "effect"), estimate_of(r, "minus_random"))
        for r in rows
        if halves.get(str(r.carry)) == r.heads
    ]


def component_effects(tables: Tables) -> list[ComponentEffect]:
    """Return the strongest parts of each kind of pair, the strongest first."""
    table = tables["strongest"]
    return [
        ComponentEffect(
            kind=str(r.kind),
            part=str(r.part),
            layer=int(r.layer),
            chosen=int(r.chosen),
            effect_logit=estimate_of(r, "effect_logit"),
            direct=estimate_of(r, "direct") if "direct" in table else None,
        )
        for _, r in table.iterrows()
    ]


def headline(tables: Tables) -> pd.DataFrame:
    """Return the main results for prompts.csv."""
    return headline_of(
        (f"{CUES[f.kind]}: {f.part.replace('_', ' ')} of block {f.layer}", "effect (logits)", f.kind, f.effect_logit)
        for f in component_effects(tables)
        if f.chosen == 2
    )
