"""Read the findings of a knockout run from its tables."""

from dataclasses import dataclass

import pandas as pd

from activation_patching.span.effects import LEAST_KEPT
from common.clips.pairs import CUES, OTHER
from common.stats.findings import Estimate, estimate_of

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class CutEffect:
    """What cutting an `edge` in a kind of `window` does to how far answers depend on one cue; in the mean of the inner layers.

    `untouched`: the dependence of the clips' own answers (share). `effect`: its change where the edge is cut (primary outcome),
    `effect_logit`: the same in logits. `minus_other`: the effect minus that on the other cue, same clips. With `enough` False too
    few clips have third labels, and no sentence is made. `half_effect_layer`: where the loss falls below half, None where not
    shown; of windows from l on it stands beside that of patching.
    """

    edge: str
    window: str
    kind: str
    kept: float
    untouched: Estimate
    effect: Estimate
    effect_logit: Estimate
    minus_other: Estimate
    half_effect_layer: Estimate | None
    layers: tuple[int, int]

    @property
    def enough(self) -> bool:
        return self.kept >= LEAST_KEPT

    @property
    def selective(self) -> bool:
        """Return whether the edge carries this cue and spares the other: it lowers this one, and lowers it more."""
        return self.enough and self.effect.side < 0 and self.minus_other.side < 0


@dataclass(frozen=True)
class Routes:
    """Two edges that carry different cues, by a double dissociation in one kind of window: each lowers one, spares the other."""

    window: str
    words: CutEffect
    voice: CutEffect


def cut_effects(tables: Tables) -> list[CutEffect]:
    """Return the findings of a run, one for each edge, kind of window and cue; none where no inner layer has rows."""
    return [
        CutEffect(
            edge=str(row.edge),
            window=str(row.window),
            kind=str(row.kind),
            kept=float(row.kept),
            untouched=estimate_of(row, "untouched"),
            effect=estimate_of(row, "effect"),
            effect_logit=estimate_of(row, "effect_logit"),
            minus_other=estimate_of(row, "minus_other"),
            half_effect_layer=estimate_of(row, "half_effect_layer") if pd.notna(row.half_effect_layer) else None,
            layers=(int(row.first_layer), int(row.last_layer)),
        )
        for _, row in tables["summary"].iterrows()
    ]


def routes(found: list[CutEffect]) -> list[Routes]:
    """Return the double dissociations: one edge carries the words and spares the voice, another the voice and spares the words.

    Sparing takes more than no effect shown: the other cue is not shown to fall, and falls by less on the same clips.
    Windows around a layer tell no route: what they take away is a small part.
    """
    other = {(f.edge, f.window, f.kind): f for f in found}

    def carriers(window: str, kind: str) -> list[CutEffect]:
        of_kind = (f for f in found if (f.window, f.kind) == (window, kind) and f.selective and not f.edge.startswith("prefix"))
        return [f for f in of_kind if other[f.edge, window, OTHER[kind]].effect.side >= 0]

    return [
        Routes(window, words, voice)
        for window in ("from", "up_to")
        for words in carriers(window, "semantic")
        for voice in carriers(window, "prosody")
    ]


def headline(tables: Tables) -> pd.DataFrame:
    """Return the main results for prompts.csv: `what`, its `unit`, `value`, `lo`, `hi`, the `kind` it is about, `n`."""
    rows = []
    for f in (f for f in cut_effects(tables) if f.window in ("from", "up_to")):
        cue = CUES[f.kind]
        what = f"{cue}, {f.edge.replace('_', ' ')}, {f.window.replace('_', ' ')} l"
        rows.append((what, "change (share)", f.effect.value, f.effect.low, f.effect.high, f.kind, f.effect.n))
    return pd.DataFrame(rows, columns=["what", "unit", "value", "lo", "hi", "kind", "n"])
