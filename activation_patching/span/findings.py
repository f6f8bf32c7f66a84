"""Read the findings of span and exchange runs from their tables."""

from dataclasses import dataclass

import pandas as pd

from activation_patching.span.effects import LEAST_KEPT
from common.clips.pairs import CUES
from common.stats.findings import Estimate, estimate_of, headline_of

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class SpanEffect:
    """What the donor's audio span transfers in pairs of one kind; shares of pairs in the mean of the inner layers.

    `to_target`: answers with the donor's label. `to_third`: with a label that neither clip names; with the `baseline`
    "same-labels donors", with the target under such a donor. `effect`: to_target minus to_third (primary outcome). `kept`: the
    share of the pairs that have a baseline; with `enough` False too few have, and no sentence is made. `donor`: the share of
    to_target at l = 0, which is the donor's own answer and the most that a span can give. `from_base`: answers that
    change, whatever they become. `half_effect_layer`: where the effect on the logit falls below half; None where not shown.
    `beyond_label`: answers that change, minus those that a donor of the same text and the same labels changes; None if not run.
    """

    kind: str
    baseline: str
    kept: float
    to_target: Estimate
    to_third: Estimate
    donor: float
    effect: Estimate
    effect_logit: Estimate
    from_base: Estimate
    half_effect_layer: Estimate | None
    beyond_label: Estimate | None
    layers: tuple[int, int]

    @property
    def enough(self) -> bool:
        return self.kept >= LEAST_KEPT


@dataclass(frozen=True)
class ExchangeEffect:
    """What exchanging a label's subspace with the donor's does; as a SpanEffect, beside a random subspace.

    `minus_random`: the effect minus that of a random subspace of the same rank (primary outcome).
    `of_whole`: the effect on the logit as a share of that of the whole state.
    """

    kind: str
    effect: Estimate
    random: Estimate
    minus_random: Estimate
    of_whole: Estimate | None
    layers: tuple[int, int]


def span_effects(tables: Tables) -> list[SpanEffect]:
    """Return the findings of a run that patched whole spans, one for each kind of pair; none where no inner layer has rows."""
    beyond = tables.get("beyond_label", pd.DataFrame())
    at_0 = tables["effects"].sort_values("layer").groupby("kind").first()
    return [
        SpanEffect(
            kind=str(row.kind),
            baseline=str(row.baseline),
            kept=float(row.kept),
            to_target=estimate_of(row, "to_target"),
            to_third=estimate_of(row, "to_third"),
            donor=float(at_0.to_target[row.kind]),
            effect=estimate_of(row, "effect"),
            effect_logit=estimate_of(row, "effect_logit"),
            from_base=estimate_of(row, "from_base"),
            half_effect_layer=estimate_of(row, "half_effect_layer") if pd.notna(row.half_effect_layer) else None,
            beyond_label=estimate_of(beyond.iloc[0], "beyond_label") if len(beyond) and row.kind == "prosody" else None,
            layers=(int(row.first_layer), int(row.last_layer)),
        )
        for _, row in tables["summary"].iterrows()
    ]


def exchange_effects(tables: Tables) -> list[ExchangeEffect]:
    """Return the findings of a run that exchanged a subspace, one for each kind of pair that has a random subspace."""
    found = []
    for kind, rows in tables["summary"].groupby("kind", sort=False):
        of_control = {row.control: row for _, row in rows.iterrows()}
        if "random_subspace" not in of_control:
            continue
        real, random = of_control["none"], of_control["random_subspace"]
        found.append(
            ExchangeEffect(
                kind=str(kind),
                effect=estimate_of(real, "effect"),
                random=estimate_of(random, "effect"),
                minus_random=estimate_of(real, "minus_random"),
                of_whole=_of_whole(of_control),
                layers=(int(real.first_layer), int(real.last_layer)),
            )
        )
    return found


def _of_whole(of_control: dict[str, pd.Series]) -> Estimate | None:
    """Return the share of the whole state's effect on the logit, where the whole state has one to take a share of."""
    if "whole" not in of_control or not estimate_of(of_control["whole"], "effect_logit").side > 0:
        return None
    return estimate_of(of_control["none"], "of_whole")


def headline(tables: Tables) -> pd.DataFrame:
    """Return the main results for prompts.csv."""
    real = [row for _, row in tables["summary"].iterrows() if row.get("control", "none") == "none"]
    return headline_of(
        (what.format(CUES[row.kind]), unit, row.kind, estimate_of(row, column))
        for row in real
        for column, what, unit in (
            ("effect", "effect of the {}", "effect (share of pairs)"),
            ("half_effect_layer", "{}: half-effect layer", "layer l"),
        )
    )
