"""Read the findings of a knockout run from its tables."""

from dataclasses import dataclass

import pandas as pd

from activation_patching.span.effects import LEAST_KEPT
from common.clips.pairs import CUES
from common.stats.findings import Estimate, estimate_of, headline_of

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Routes:
    """How far answers depend on one cue (share of clips), `untouched` and where one route alone is open.

    `direct`: the question cannot see the audio in any block, so the last token gets it from the audio itself. `through_question`:
    the last token cannot see the audio. `direct_minus_through`: their difference, same clips. `logit_*`: the same on the logit,
    as shares of what is lost without either route. With `enough` False too few clips
    have third labels, and no sentence is made. `half_effect_layer`: with the audio hidden from both in the blocks from l on,
    where the loss falls below half, None where not shown; it stands beside that of patching.
    """

    kind: str
    kept: float
    untouched: Estimate
    direct: Estimate
    through_question: Estimate
    direct_minus_through: Estimate
    logit_direct: Estimate
    logit_through_question: Estimate
    logit_direct_minus_through: Estimate
    half_effect_layer: Estimate | None

    @property
    def enough(self) -> bool:
        return self.kept >= LEAST_KEPT

    @property
    def better(self) -> int:
        """Return 1 where more comes by the direct route alone, -1 where through the question; 0 unless both measures say so."""
        sides = {self.direct_minus_through.side, self.logit_direct_minus_through.side}
        return sides.pop() if len(sides) == 1 else 0


_ESTIMATES = (
    *("untouched", "direct", "through_question", "direct_minus_through"),
    *("logit_direct", "logit_through_question", "logit_direct_minus_through"),
)
SHOWN = {"untouched": "untouched", "direct": "direct route alone", "through_question": "through the question alone"}


def routes(tables: Tables) -> list[Routes]:
    """Return the findings of a run, one for each cue."""
    return [
        Routes(
            kind=str(row.kind),
            kept=float(row.kept),
            **{name: estimate_of(row, name) for name in _ESTIMATES},
            half_effect_layer=estimate_of(row, "half_effect_layer") if pd.notna(row.half_effect_layer) else None,
        )
        for _, row in tables["summary"].iterrows()
    ]


def headline(tables: Tables) -> pd.DataFrame:
    """Return the main results for prompts.csv."""
    return headline_of(
        (f"{CUES[f.kind]}, {what}", "dependence (share)", f.kind, getattr(f, name))
        for f in routes(tables)
        for name, what in SHOWN.items()
    )
