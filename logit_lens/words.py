"""What a lens run found, in words; each statement is made here once, for the terminal and for the report."""

from collections.abc import Sequence

import pandas as pd

from common.stats.facts import Fact, moved, one_label, say, scope

CUES = {"prosody": "voice", "semantic": "words"}
BEYOND = {
    "beyond_permuted": "of labels dealt anew",
    "beyond_random_weights": "with random weights",
    "beyond_duration_and_level": "from duration and level alone",
}


def lens_statements(facts: dict[str, Fact], prompts: pd.DataFrame | None = None, *, given: str = "audio") -> list[str]:
    """Return the statements, the primary outcome first; with `prompts` (prompts.csv) how far a number moves stands beside it.

    Clips `given` as text alone have no voice: what happens to its label there says nothing, and nothing is said of it.
    """
    if given == "transcript":
        return _of_text_alone(facts)
    told = "**Input**: text and the name of its tone, no audio; what is said of the voice here is said of that name."
    statements = [told] if given == "told" else []
    statements += [_answer(facts, prompts)]
    statements += [_habit(facts)] if "win_prosody_excess" in facts else []
    statements += [_where(facts, prompts)] if "crossing" in facts else []
    statements += (
        [one_label(facts["voice_lead without a label"], facts["voice_lead"])] if "voice_lead without a label" in facts else []
    )
    statements += [_spoken(facts)] if "agreement" in facts else []
    statements += [_probed(facts, kind) for kind in CUES if f"unsaid: {kind}" in facts]
    return statements


def _probed(facts: dict[str, Fact], kind: str) -> str:
    unsaid, whose = facts[f"unsaid: {kind}"], {"prosody": "voice's", "semantic": "words'"}[kind]
    _, position, layer = unsaid.row.split(", ")
    where = f"{layer}, {'mean of the audio span' if position == 'span' else 'last position'}"
    beyond = ", ".join(
        f"{say(facts[f'{name}: {kind}'], '+.2f')} more than {than}" for name, than in BEYOND.items() if f"{name}: {kind}" in facts
    )
    shown = "" if unsaid.verdict == "more" else "; that it tells more than the answer, and more than a guess, is shown nowhere"
    return (
        f"**There, and not said?** A linear probe tells the {whose} label of {unsaid.n} conflict clips ({unsaid.control} unseen) "
        f"in {say(facts[f'accuracy: {kind}'])} ({where}; chance {facts[f'chance: {kind}'].value:.2f}); it is the answer in "
        f"{facts[f'answered: {kind}'].value:.2f}. The difference, the largest there is, is {say(unsaid, '+.2f')}{shown}. The "
        f"probe tells {beyond}. Test: {unsaid.test}; {scope(unsaid)}. A probe says what can be read, not what the model uses."
    )


def _spoken(facts: dict[str, Fact]) -> str:
    agreement = facts["agreement"]
    return (
        f"**In its own words** {agreement.n} clips were answered too: the label named first is the one read from the first token "
        f"in {say(agreement)}, none is named in {say(facts['no_label'])}. {_capital(scope(agreement))}."
    )


def _answer(facts: dict[str, Fact], prompts: pd.DataFrame | None) -> str:
    lead = facts["voice_lead"]
    layer = lead.row.partition("l = ")[2]
    goes = f"it goes with the {CUES[lead.verdict]}" if lead.verdict in CUES else "neither cue is shown to be ahead of the other"
    right = f" On {facts['accuracy'].n} congruent clips it is right in {say(facts['accuracy'])}." if "accuracy" in facts else ""
    return (
        f"**Its answer** (primary outcome: the voice's label minus the words', at l = {layer}): {say(lead, '+.2f')} of {lead.n} "
        f"conflict clips, so {goes}. The voice's label {say(facts['win_prosody'])}, the words' {say(facts['win_semantic'])}, "
        f"neither {say(facts['win_other'])}; margin {say(facts['margin'], '+.2f')} logits. Test: {lead.test}; {scope(lead)}."
        f"{moved(prompts, 'voice_lead at l = L')}{right}"
    )


def _of_text_alone(facts: dict[str, Fact]) -> list[str]:
    won, right = facts["win_semantic"], facts.get("accuracy")
    at = won.row.partition(", ")[2]
    congruent = f" On {right.n} congruent clips it is right in {say(right)}." if right else ""
    return [
        "**Input**: the text alone, no audio. The voice is in nothing that was asked, so no number here says anything of it.",
        f"**Its answer** at {at}: the words' label {say(won)} of {won.n} conflict clips; {scope(won)}.{congruent}",
        *([_habit(facts, ("semantic",))] if "win_semantic_excess" in facts else []),
        *([_where(facts, None)] if "crossing" in facts and facts["crossing"].verdict == "semantic" else []),
        *([_spoken(facts)] if "agreement" in facts else []),
    ]


def _habit(facts: dict[str, Fact], kinds: Sequence[str] = tuple(CUES)) -> str:
    parts = []
    for kind in kinds:
        excess, null = facts[f"win_{kind}_excess"], facts[f"win_{kind}_null"]
        shows = {
            "more": f"the answer goes with the {CUES[kind]}, beyond habits",
            "less": f"the answer avoids the label of the {CUES[kind]}",
            "none": f"no influence of the {CUES[kind]} is shown",
        }[excess.verdict]
        whose = "the voice's" if kind == "prosody" else "the words'"
        parts.append(
            f"with the {excess.control} {whose} label would come out in {null.value:.2f}; the difference to that is "
            f"{say(excess, '+.2f')}: {shows}"
        )
    return f"**Or a habit?** {_capital('; '.join(parts))}. Test: {facts[f'win_{kinds[0]}_excess'].test}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _where(facts: dict[str, Fact], prompts: pd.DataFrame | None) -> str:
    place, detected = facts["crossing"], facts["decision_layer"]
    if pd.isna(place.value):
        why = place.verdict.removeprefix("none: ")
        return f"**Where**: at no layer is one cue decided for ({why}).{moved(prompts, 'crossing', '.1f')}"
    cue = CUES[place.verdict]
    first = int(place.row.partition("l = ")[2].split()[0])
    begins = f"already from l = {first}, the first that is looked at," if place.hi <= first else f"from l = {say(place, '.1f')}"
    seen = (
        f"these data show it from l = {detected.value:.0f} on"
        if not pd.isna(detected.value)
        else "at no layer do these data show it"
    )
    return (
        f"**Where**: {begins} on the label of the {cue} is the most frequent outcome ({place.test}); {seen} "
        f"({detected.test}). l = 0, the same state for every clip, is left out.{moved(prompts, 'crossing', '.1f')}"
    )
