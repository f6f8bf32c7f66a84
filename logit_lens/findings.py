"""Read the findings of a lens run from its tables."""

from dataclasses import dataclass

import pandas as pd

from common.stats.findings import Estimate, estimate_of, headline_of
from logit_lens.tables import readable_from

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Answers:
    """What conflict clips are answered with at l = L: shares of clips; `lead` is the voice's share minus the words' (primary)."""

    words: Estimate
    voice: Estimate
    neither: Estimate
    lead: Estimate


@dataclass(frozen=True)
class Reading:
    """From which layer on the lens can read the labels, and from where on one cue leads there.

    `first_layer`: None where not even the last one is readable. `mass_before`: the labels' largest share of the probability at
    any layer before; nan where there is none. `side`: "semantic", "prosody", or "none". `lead_from`: None where none leads, or
    where the side leads at all readable layers.
    """

    first_layer: int | None
    last_layer: int
    mass_before: float
    side: str
    lead_from: Estimate | None


@dataclass(frozen=True)
class FreeAnswers:
    """Answers in free text: how often the label named first is the one that the first token is read as, and none is named."""

    agreement: Estimate
    no_label: Estimate


@dataclass(frozen=True)
class Decoding:
    """How well a linear probe decodes a label from the audio span, mean of the inner layers, on unseen texts and speakers.

    `unanswered`: accuracy minus the share of the clips that are answered with the label. `beyond_*`: accuracy minus that of
    permuted labels, of random weights, of duration and level; None where there is no such probe.
    """

    kind: str
    accuracy: Estimate
    unanswered: Estimate
    beyond_permuted: Estimate
    beyond_random_weights: Estimate | None
    beyond_duration_and_level: Estimate | None


@dataclass(frozen=True)
class LensFindings:
    """All that a lens run found; None where the run has not looked."""

    answers: Answers
    reading: Reading
    congruent: Estimate | None
    free_answers: FreeAnswers | None
    decodings: tuple[Decoding, ...]


def lens_findings(tables: Tables) -> LensFindings:
    """Return the findings of a run from its tables."""
    last, congruent, generated = tables["layers"].iloc[-1], tables["congruent"], tables.get("generated", pd.DataFrame())
    words, voice, neither = (estimate_of(last, f"win_{outcome}") for outcome in ("semantic", "prosody", "other"))
    free = [FreeAnswers(estimate_of(row, "agreement"), estimate_of(row, "no_label")) for _, row in generated.iterrows()]
    return LensFindings(
        answers=Answers(words, voice, neither, lead=estimate_of(last, "voice_lead")),
        reading=_reading(tables),
        congruent=estimate_of(congruent.iloc[-1], "accuracy") if len(congruent) else None,
        free_answers=free[0] if free else None,
        decodings=tuple(_decoding(row) for _, row in tables.get("decoding", pd.DataFrame()).iterrows()),
    )


def _reading(tables: Tables) -> Reading:
    layers, found = tables["layers"], tables["crossover"].iloc[0]
    first = readable_from(layers)
    readable = layers.layer.iloc[first:]
    before = layers.mass.iloc[:first].max() if first else float("nan")
    leads = pd.notna(found.crossing) and found.crossing > found.first_layer
    n, clusters = layers.iloc[-1], ("crossing", "crossing_lo", "crossing_hi")
    place = (
        estimate_of(pd.concat([n.drop([c for c in clusters if c in n]), found[list(clusters)]]), "crossing") if leads else None
    )
    return Reading(
        int(readable.iloc[0]) if len(readable) else None, int(layers.layer.iloc[-1]), float(before), str(found.side), place
    )


def _decoding(row: pd.Series) -> Decoding:
    further = (f"beyond_{name}" for name in ("permuted", "random_weights", "duration_and_level"))
    beyond = (estimate_of(row, column) if pd.notna(row.get(column)) else None for column in further)
    return Decoding(str(row.label), estimate_of(row, "accuracy"), estimate_of(row, "unanswered"), *beyond)  # type: ignore[arg-type]


def headline(tables: Tables) -> pd.DataFrame:
    """Return the main results for prompts.csv."""
    last = tables["layers"].iloc[-1]
    wanted = {
        "win_semantic": ("answer is the words' label", "share of clips", "semantic"),
        "win_prosody": ("answer is the voice's label", "share of clips", "prosody"),
        "voice_lead": ("voice minus words", "voice - words (share)", "other"),
    }
    return headline_of((*told, estimate_of(last, column)) for column, told in wanted.items())
