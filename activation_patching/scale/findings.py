"""What a scale run found: typed records, made from its tables alone."""

from dataclasses import dataclass, replace

import pandas as pd

from common.clips.pairs import CUES
from common.stats.findings import Estimate, estimate_of, headline_of

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class ScaleEffect:
    """What making the subspace of one cue larger does at the last position or the span; chosen and estimated on different texts.

    `layers`, `factors`: as each half of the texts has chosen them for the other. `untouched`, `scaled`: the share of conflict
    clips answered with the cue's label (primary outcome), `gain` their difference. `minus_*`: `scaled` less the same with a
    random subspace, with permuted labels, with the other cue's subspace, in the mean of all layers, asked for the cue in the
    prompt, where no later block reads the change (`direct`), and where h_L itself is scaled, which the head alone reads
    (`readout`; at the last position). `decoded`: how often the subspace decodes the label.
    `congruent`, `asked_other`: how the share of right answers changes, of congruent clips and asked for the other cue.
    `word_errors`: how the word error rate of what is said changes; `word_errors_before`: that of the untouched model.
    """

    kind: str
    layers: tuple[int, int]
    factors: tuple[float, float]
    untouched: Estimate
    scaled: Estimate
    gain: Estimate
    minus_random: Estimate
    minus_permuted: Estimate
    minus_other_cue: Estimate
    minus_any_layer: Estimate
    minus_asked: Estimate
    minus_direct: Estimate
    minus_readout: Estimate
    decoded: Estimate
    mass: Estimate
    mass_untouched: Estimate
    kl: Estimate
    congruent: Estimate | None
    asked_other: Estimate
    word_errors: Estimate | None = None
    word_errors_before: Estimate | None = None

    @property
    def helps(self) -> bool:
        """Tell whether answers follow the cue more often, and more often than with a random subspace and permuted labels."""
        return all(e.side > 0 for e in (self.gain, self.minus_random, self.minus_permuted))

    @property
    def readout(self) -> bool:
        """Tell whether it helps without any later block: then the subspace is a classifier bolted to the head."""
        return self.helps and self.minus_direct.side <= 0

    @property
    def price(self) -> float:
        """Return what is lost at most (share): of congruent clips right, or of right answers when asked for the other cue."""
        changes = [e.value for e in (self.congruent, self.asked_other) if e is not None]
        return max(0.0, -min(changes))

    @property
    def too_dear(self) -> bool:
        return self.price >= self.gain.value


@dataclass(frozen=True)
class Erased:
    """How often a cue's label is still the answer with its subspace `erased`, in the mean of the inner `layers` (share).

    `random`: with a random subspace erased. `minus_random`: the difference of the two (primary outcome).
    """

    kind: str
    erased: Estimate
    random: Estimate
    minus_random: Estimate
    layers: tuple[int, int]


def erasures(tables: Tables) -> list[Erased]:
    """Return what a factor of -1 does, one finding for each cue; none where it was not asked for."""
    return [
        Erased(
            kind=str(row.kind),
            **{name: estimate_of(row, name) for name in ("erased", "random", "minus_random")},
            layers=(int(row.first_layer), int(row.last_layer)),
        )
        for _, row in tables["erased"].iterrows()
    ]


_ESTIMATES = (
    *("untouched", "scaled", "gain", "minus_random", "minus_permuted", "minus_other_cue", "minus_any_layer", "minus_asked"),
    *("minus_direct", "minus_readout", "decoded", "mass", "mass_untouched", "kl"),
)


def scale_effects(tables: Tables) -> list[ScaleEffect]:
    """Return the findings of a run, one for each cue; none where nothing could be chosen."""
    return [
        ScaleEffect(
            kind=str(row.kind),
            layers=(int(row.layer_0), int(row.layer_1)),
            factors=(float(row.factor_0), float(row.factor_1)),
            congruent=_change(row, "congruent") if pd.notna(row.congruent_change) else None,
            asked_other=_change(row, "asked_other"),
            **_word_errors(row),
            **{name: estimate_of(row, name) for name in _ESTIMATES},
        )
        for _, row in tables["chosen"].iterrows()
    ]


def _change(row: pd.Series, name: str) -> Estimate:
    found = estimate_of(row, f"{name}_change")
    return Estimate(found.value, found.low, found.high, int(row[f"n_{name}"]), found.over)


def _word_errors(row: pd.Series) -> dict[str, Estimate]:
    """Return the fields on word errors, where clips wrote down what is said."""
    if pd.isna(row.get("word_error_rate_change")):
        return {}
    change = _change(row, "word_error_rate")
    before = replace(estimate_of(row, "word_error_rate_before"), n=change.n)
    return {"word_errors": change, "word_errors_before": before}


def headline(tables: Tables) -> pd.DataFrame:
    """Return the main results for prompts.csv."""
    return headline_of(
        (f"{CUES[f.kind]} made larger: {what}", "change (share)", f.kind, found)
        for f in scale_effects(tables)
        for what, found in (("gain", f.gain), ("gain beyond a random subspace", f.minus_random))
    )
