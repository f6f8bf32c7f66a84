"""The report's sentences in English. Each says the estimate, its interval, what that is over, the control and the test."""

from collections.abc import Mapping

import pandas as pd
from activation_patching.words import edit_statements
from common.stats.facts import Fact, p_value, shown

from report.markdown import plain

Facts = Mapping[str, Fact]
CUES = {"prosody": "voice", "semantic": "words"}
DONORS = {
    "same_labels_donor": "a donor with the recipient's own labels",
    "random_donor": "a random donor",
    "silence": "silence of the donor's length",
}
TROUBLES = {
    "missing": "**Missing**: {why}. What that experiment would show is not in this report.",
    "other experiment": "**Mixed up**: {folder}: {why}. It was left out.",
    "partial": "**Partial**: {folder}: {why}. None of its numbers is shown.",
    "tables": "**Not readable**: {why}. {script} with --redraw makes the tables anew. The run was left out.",
    "mixed up": "**Mixed up**: {folder} and {other} do not belong together; they differ in {differs}. No sentence joins them.",
    "check missing": "**Check missing** ({folder}): the run does not say how “{check}” came out.",
    "check failed": "**Check failed** ({folder}): “{check}” is {value}, more than the tolerance of {tolerance}.",
    "no controls": "**No control donors** ({folder}): what a patch carries beyond disturbing the recipient is not known.",
    "warning": "**Warning** ({folder}): {text}",
    "other input": "**Left out**: {folder}: {why}. Runs of texts stand in folders below that of the audio, and are shown beside it.",
    "no manifest": "**Clips not found**: {why}. Texts and audio are missing below.",
    "other clips": "**Other clips**: {folder}: {n} of its clips are not, or not with these labels, in {manifest}.",
}


CAPTIONS = {
    "winrate_curve_conflict.png": "Whose label the answer would be at each layer: the words', the voice's, or neither's. Shuffled: what "
    "the voice would win if answers were dealt out anew among clips with the same words' label.",
    "margin_curve_conflict.png": "Mean margin: the voice's logit minus the words' logit. Label prior: what label habits alone make of it.",
    "congruent_curve.png": "How often congruent clips (words and voice agree) would be answered rightly, beside the conflict clips.",
    "lens_health.png": "Whether the labels mean anything yet: their share of the probability of the whole vocabulary, the rank of the "
    "best of them, and how far the layer's distribution is from the final one.",
    "probe_curve.png": "How often a linear probe tells the label, on texts and speakers that it has not seen, from the mean of the audio span and "
    "from the last position; and how often the lens answers with it. Thin and grey: the same architecture with random weights, "
    "duration and level alone, and labels dealt anew.",
    "flip_rate_curve_kind.png": "Share of pairs whose patched answer is the donor's label (to target), and whose answer is no longer the "
    "recipient's own (from base); thin and grey: the same patch with control donors, to target.",
    "paired_curve_kind.png": "Flips to target minus those by the control donor, pair by pair; thin and grey: minus the other controls.",
    "delta_logit_curve_kind.png": "What the patch adds to the target's logit; thin and grey: with control donors.",
    "span_and_tail_curve_kind.png": "Whose answer the hybrid gives: that of the clip that lends the audio span, or that of the clip that "
    "lends the tail (question and start of the answer) from layer l on.",
    "contrast_curve.png": "Flips to target, semantic minus prosody pairs.",
    "side_by_side_lens.png": "The lens runs on one scale of depth: voice minus words.",
    "side_by_side_semantic.png": "The patching runs on one scale of depth: flips to target in semantic pairs.",
    "side_by_side_prosody.png": "The patching runs on one scale of depth: flips to target in prosody pairs.",
}


def say(fact: Fact, form: str = ".2f") -> str:
    return shown(fact.value, fact.lo, fact.hi, form)


def most(fact: Fact) -> str:
    """Return the largest effect that an interval allows."""
    return f"{max(abs(fact.lo), abs(fact.hi)):.2f}"


def allowed(fact: Fact) -> str:
    return f"the interval leaves room for {most(fact)} at most" if not pd.isna(fact.lo) else "there is no interval to judge by"


def scope(fact: Fact) -> str:
    if not fact.over:
        return "no interval: too few texts and speakers to resample"
    return f"95 % intervals over {fact.over}" + (f", for these {fact.fixed} alone" if fact.fixed else "")


def moved(facts: Facts, what: str, form: str = "+.2f") -> str:
    """Return how far a result moves over the prompts that were run, and what moves it."""
    if f"{what}: prompts" not in facts:
        return ""

    def ends(fact: Fact) -> str:
        return f"{fact.lo:{form}} to {fact.hi:{form}}" + (f", {plain(fact.verdict)}" if fact.verdict else "")

    parts = [
        f"{facts[f'{what}: {p}'].n} {p} {ends(facts[f'{what}: {p}'])}" for p in ("wordings", "orders") if f"{what}: {p}" in facts
    ]
    whole = facts[f"{what}: prompts"]
    each = f" ({whole.test})" if whole.test else ""
    return f" Over {whole.n} prompts{each} it is {ends(whole)}" + (f" ({'; '.join(parts)})." if parts else ".")


def _voice_lead(facts: Facts) -> str:
    lead = facts["voice_lead"]
    goes = {
        "prosody": "the answer follows the voice more often than the words",
        "semantic": "the answer follows the words more often than the voice",
    }.get(lead.verdict, f"neither cue is shown to be ahead of the other; {allowed(lead)}")
    prior = facts.get("margin_excess")
    beyond = f", {say(prior, '+.2f')} beyond what label habits make of it" if prior else ""
    return (
        f"**Which cue the answer follows** (primary outcome: voice minus words at l = L). On {lead.n} conflict clips the answer is the "
        f"voice's label in {say(facts['win_prosody'])}, the words' in {say(facts['win_semantic'])}, neither in "
        f"{say(facts['win_other'])}. Voice minus words is {say(lead, '+.2f')}: {goes}. The margin is {say(facts['margin'], '+.2f')} "
        f"logits{beyond}. Test: {lead.test}; {scope(lead)}.{moved(facts, 'voice_lead at l = L')}"
    )


def _excess(facts: Facts, kind: str) -> str:
    excess, cue = facts[f"win_{kind}_excess"], {"prosody": "voice's", "semantic": "words'"}[kind]
    shows = {
        "more": f"the answer depends on the {CUES[kind]}",
        "less": f"the answer avoids the {cue} label",
    }.get(excess.verdict, f"no influence of the {CUES[kind]} is shown; {allowed(excess)}")
    return (f"**Do the {CUES[kind]} count?** " if kind == "semantic" else f"**Does the {CUES[kind]} count?** ") + (
        f"With {excess.control} the {cue} label would come out in {facts[f'win_{kind}_null'].value:.2f}. It comes out "
        f"{say(excess, '+.2f')} more often: {shows}. Test: {excess.test}; {scope(excess)}."
    )


def _decided(facts: Facts) -> str:
    place, detected = facts["crossing"], facts["decision_layer"]
    over_prompts = moved(facts, "crossing", ".1f")
    if pd.isna(place.value):
        return (
            f"**Where it is decided.** At no layer is one cue decided for: {place.verdict.removeprefix('none: ')}.{over_prompts}"
        )
    seen = (
        f"these data show it from l = {detected.value:.0f} on"
        if not pd.isna(detected.value)
        else "no layer shows it beyond doubt"
    )
    return (
        f"**Where it is decided.** From l = {say(place, '.1f')} on the label of the {CUES[place.verdict]} is the most frequent outcome "
        f"({place.test}; {scope(place)}); {seen} ({detected.test}). l = 0, the same state for every clip, is left out.{over_prompts}"
    )


def _stretches(facts: Facts, prefix: str, names: dict[str, str]) -> tuple[str, Fact]:
    found = [f for name, f in facts.items() if name.startswith(f"{prefix}: stretch")]
    texts = [
        (f"l = {f.lo:.0f}" if f.lo == f.hi else f"l = {f.lo:.0f} to {f.hi:.0f}") + f": {names[f.verdict]} (mean {f.value:+.2f})"
        for f in found
    ]
    return "; ".join(texts), found[0]


def _margin(facts: Facts) -> str:
    names = {
        "more": "above 0, the voice leads",
        "less": "below 0, the words lead",
        "none": "the band holds 0, no lead can be claimed",
    }
    text, first = _stretches(facts, "margin_excess", names)
    return f"**Layer by layer**, the margin beyond the label prior: {text}. Test: {first.test}; {scope(first)}."


def _mass(facts: Facts) -> str:
    fact = facts["mass"]
    if pd.isna(fact.value):
        return f"**Would the model say a label at all?** Hardly: even at l = L the labels have {fact.test} of the probability."
    return (
        f"**Would the model say a label at all?** From l = {fact.value:.0f} on the labels have half or more of the probability of the "
        f"whole vocabulary ({fact.test} at l = L); below that a curve is the order of words that would not be said."
    )


def _accuracy(facts: Facts) -> str:
    fact = facts["accuracy"]
    return f"**Where words and voice agree**, {fact.n} congruent clips, the answer is their label in {say(fact)} ({scope(fact)})."


def _cells(facts: Facts) -> str:
    fact = facts["cells"]
    low, _, high = (plain(cell) for cell in fact.verdict.partition("\n"))
    return (
        f"**Cell by cell** (words / voice) the voice's label wins from {fact.lo:.2f} ({low}) to {fact.hi:.2f} ({high}) over {fact.n} "
        "cells; the ends are picked for being the ends, so read their intervals in the table as too narrow."
    )


def _agreement(facts: Facts) -> str:
    fact = facts["agreement"]
    return (
        f"**In its own words** {fact.n} clips were answered too: the label named first is the one read from the first token in "
        f"{say(fact)}, none is named in {say(facts['no_label'])}. Test: {fact.test}; {scope(fact)}."
    )


def _probed(facts: Facts, kind: str) -> str:
    unsaid, whose = facts[f"unsaid: {kind}"], {"prosody": "voice's", "semantic": "words'"}[kind]
    _, position, layer = unsaid.row.split(", ")
    where = f"{layer}, {'mean of the audio span' if position == 'span' else 'last position'}"
    controls = {
        "beyond_permuted": "of labels dealt anew",
        "beyond_random_weights": "with random weights",
        "beyond_duration_and_level": "from duration and level alone",
    }
    beyond = ", ".join(
        f"{say(facts[f'{name}: {kind}'], '+.2f')} more than {than}"
        for name, than in controls.items()
        if f"{name}: {kind}" in facts
    )
    says = {
        "more": f"the {whose} label is there for a linear readout, and is not what is answered",
        "none": "no layer shows more there than the answer says, beyond a guess",
    }[unsaid.verdict]
    return (
        f"**{'Is' if kind == 'prosody' else 'Are'} the {CUES[kind]} there and not said?** At {where}, a linear probe that has not seen their {unsaid.control} tells the {whose} "
        f"label of {unsaid.n} conflict clips in {say(facts[f'accuracy: {kind}'])} (a guess: {facts[f'chance: {kind}'].value:.2f}); "
        f"{facts[f'answered: {kind}'].value:.2f} of the answers are that label. The difference, the largest of all layers and both "
        f"positions, is {say(unsaid, '+.2f')}: {says}. The probe tells {beyond}. A probe says what can be read, not what the model uses. "
        f"Test: {unsaid.test}, so that picking the place is allowed for; {scope(unsaid)}."
    )


def _one_label(facts: Facts, name: str, primary: str) -> str:
    fact, same = facts[name], facts[name].verdict == "same"
    if facts[primary].verdict == "none":
        stays = "not shown whichever goes" if same else f"shown only without {plain(fact.verdict)}"
    else:
        stays = "shown whichever goes, so no one label makes it" if same else f"not shown without {plain(fact.verdict)}"
    return f"**Does one label make it?** With {fact.test} the primary outcome is {fact.lo:+.2f} to {fact.hi:+.2f}: {stays}."


def _flips(facts: Facts, kind: str) -> str:
    flips, donor = facts["flips"], {"prosody": "voice", "semantic": "words"}[kind]
    says = {
        "more": f"the audio span carries the donor's {donor} to the answer, beyond the control",
        "less": "the control donor flips more answers to that label than the donor does",
    }.get(flips.verdict, f"that the span carries it to the answer is not shown; {allowed(flips)}")
    others = [
        f"against {DONORS[f.control]} {say(f, '+.2f')} ({p_value(f.p)})"
        for name, f in facts.items()
        if name.startswith("flips, ") and ":" not in name
    ]
    return (
        f"**Do{'es' if kind == 'prosody' else ''} the donor's {donor} come through?** (Primary outcome: flips to its label minus those by {DONORS[flips.control]}, "
        f"{flips.row.partition(', ')[2]}, pair by pair on {flips.n} of {facts['pairs'].n} {kind} pairs.) "
        f"{facts['flips: real'].value:.2f} against {facts['flips: control'].value:.2f}, difference {say(flips, '+.2f')}, "
        f"{p_value(flips.p)}: {says}."
        + (f" The same {', '.join(others)}." if others else "")
        + f" Test: {flips.test}; {scope(flips)}.{moved(facts, f'{kind} pairs: flips over control, mean of inner layers')}"
    )


def _layers(facts: Facts, kind: str) -> str:
    fact = facts["layers"]
    at = f"at l = {plain(fact.verdict)}" if fact.verdict else "at no layer"
    return f"**At which layers?** The flips exceed those of {DONORS[fact.control]} {at} ({fact.test}; {fact.n} pairs)."


def _delta(facts: Facts, kind: str) -> str:
    fact = facts["delta"]
    says = {"more": "the patch raises it", "less": "the patch lowers it"}.get(
        fact.verdict, f"no effect is shown; {allowed(fact)} (logits)"
    )
    return (
        f"**The target's logit** changes by {facts['delta: real'].value:+.2f}, with {DONORS[fact.control]} by "
        f"{facts['delta: control'].value:+.2f}; difference {say(fact, '+.2f')}, {p_value(fact.p)}: {says}. Test: {fact.test}; "
        f"{scope(fact)}.{moved(facts, f'{kind} pairs: delta over control, mean of inner layers')}"
    )


def _directedness(facts: Facts, kind: str) -> str:
    fact = facts["directedness"]
    if pd.isna(fact.value):
        return "**Directed, or only disturbed?** No answer changed from another label in both patches: nothing to tell."
    says = {"more": "the patch directs", "less": "the control comes to it more often"}.get(
        fact.verdict, f"the patch is not shown to do more than disturb; {allowed(fact)}"
    )
    return (
        f"**Directed, or only disturbed?** Of the answers that changed, from another label than the target, "
        f"{facts['directedness: real'].value:.2f} came to the target, with {DONORS[fact.control]} "
        f"{facts['directedness: control'].value:.2f}; difference {say(fact, '+.2f')}, {p_value(fact.p)}: {says}. Test: {fact.test}; "
        f"{scope(fact)}."
    )


def _half(facts: Facts, kind: str) -> str:
    half, over_prompts = facts["crossing"], moved(facts, f"{kind} pairs: below half from", ".1f")
    if pd.isna(half.value):
        return f"**Until when?** There is no layer to name from which the effect is below half: {half.verdict}.{over_prompts}"
    changed = facts["flip_from_base"]
    return (
        f"**Until when?** What the patch adds to the target's logit is below half of that at l = 0 from l = {say(half, '.1f')} on "
        f"({half.test}; {scope(half)}). Below half is not gone: at {changed.row.partition(', ')[2]} {say(changed)} of the answers "
        f"still change.{over_prompts}"
    )


def _left(facts: Facts, kind: str) -> str:
    fact = facts["nothing_left"]
    bound = fact.test.rpartition(" ")[2]
    if pd.isna(fact.value):
        return f"**From when is nothing left?** At no layer before L is it shown that fewer than {bound} of the answers change ({fact.test})."
    return f"**From when is nothing left?** From l = {fact.value:.0f} on fewer than {bound} of the answers change ({fact.test})."


LENS = {
    "voice_lead": _voice_lead,
    "win_prosody_excess": lambda facts: _excess(facts, "prosody"),
    "win_semantic_excess": lambda facts: _excess(facts, "semantic"),
    "crossing": _decided,
    "margin_excess: stretch 0": _margin,
    "mass": _mass,
    "accuracy": _accuracy,
    "cells": _cells,
    "agreement": _agreement,
    "unsaid: prosody": lambda facts: _probed(facts, "prosody"),
    "unsaid: semantic": lambda facts: _probed(facts, "semantic"),
    "voice_lead without a label": lambda facts: _one_label(facts, "voice_lead without a label", "voice_lead"),
}
PATCHING = {
    "flips": _flips,
    "layers": _layers,
    "delta": _delta,
    "directedness": _directedness,
    "crossing": _half,
    "nothing_left": _left,
    "flips without a label": lambda facts, kind: _one_label(facts, "flips without a label", "flips"),
}


edit_sentences = edit_statements


def lens_summary(facts: Facts) -> str:
    """Return what the lens run comes to, in one sentence that claims no more than its tests decided."""
    cue, place = CUES.get(facts["voice_lead"].verdict), facts.get("crossing")
    if cue is None:
        return "The lens does not show that the answers follow one cue more than the other."
    if place is None or pd.isna(place.value):
        return f"The answers follow the {cue} more often than the other cue; no layer can be named from which that is decided."
    return f"The answers follow the {cue} more often than the other cue, and do so from l = {say(place, '.1f')} on."


def ladder(facts: Facts) -> list[str]:
    """Return what the answers to the texts say of those to the audio: a text prior and a ceiling, where the text is read at all."""
    heard, read, prior = facts["audio: semantic"], facts["transcript: semantic"], facts["transcript: excess"]
    words, voice = facts["audio - transcript: semantic"], facts["audio - transcript: prosody"]
    reads = {"more": "the answer depends on the text", "less": "the answer avoids the words' label"}.get(
        prior.verdict,
        f"that the model makes anything of a text is not shown ({allowed(prior)}), so its answers to texts measure nothing",
    )
    listens = {
        "less": "reading brings the words' label more often than listening does",
        "more": "listening brings the words' label more often than reading does, so reading is no ceiling here",
    }.get(words.verdict, f"no difference is shown; {allowed(words)}")
    brings = {
        "more": "it comes out more often where the clip is heard",
        "less": "it comes out less often where the clip is heard",
    }.get(voice.verdict, f"no difference is shown; {allowed(voice)}")
    sentences = [
        f"**The text alone** is answered with the words' label in {say(read)} of {read.n} conflict clips. With {prior.control} "
        f"it would be {read.value - prior.value:.2f}, difference {say(prior, '+.2f')}: {reads}. Test: {prior.test}; {scope(prior)}.",
        f"**Listening and reading.** Of the same clips heard it is {say(heard)}; audio minus transcript {say(words, '+.2f')}: {listens}. "
        f"The voice is not in the text; its label comes out there in {say(facts['transcript: prosody'])} all the same, heard in "
        f"{say(facts['audio: prosody'])}, audio minus transcript {say(voice, '+.2f')}: {brings}. Missed words would bring other labels "
        f"as well: neither, audio minus transcript, {say(facts['audio - transcript: other'], '+.2f')}. Test: {words.test}; {scope(words)}.",
    ]
    if prior.verdict != "more":  # of a model that makes nothing of texts no comparison with them says anything
        return sentences[:1]
    if (named := facts.get("audio - told: prosody")) is not None:
        follows = {
            "less": "a tone that is named is followed more often than one that is heard",
            "more": "a tone that is heard is followed more often than one that is named",
        }.get(named.verdict, f"no difference is shown; {allowed(named)}")
        sentences.append(
            f"**The tone by name**, behind the text, is the answer in {say(facts['told: prosody'])}, the words' label in "
            f"{say(facts['told: semantic'])}. Minus transcript, the voice's label: {say(facts['told - transcript: prosody'], '+.2f')}. "
            f"Audio minus transcript and tone, the voice's label: {say(named, '+.2f')}: {follows}. "
            f"Test: {named.test}; {scope(named)}."
        )
    return sentences


def patching_summary(kinds: Mapping[str, Facts]) -> str:
    """Return what the patching run comes to, a clause for each kind of pair."""
    clauses = []
    for kind, facts in kinds.items():
        if "flips" not in facts:
            clauses.append(f"{kind} pairs: no control donors, so nothing is claimed")
            continue
        known = {"more": "the audio span carries the donor's label to the answer, beyond the control donor"}
        known["less"] = "the control donor flips more answers to the donor's label than the donor does"
        said = known.get(facts["flips"].verdict, f"no transfer beyond the control donor is shown ({allowed(facts['flips'])})")
        half = facts["crossing"]
        until = f"; its effect on the logit is below half from l = {say(half, '.1f')} on" if not pd.isna(half.value) else ""
        clauses.append(f"{kind} pairs: {said}{until if facts['flips'].verdict == 'more' else ''}")
    return ". ".join(c[:1].upper() + c[1:] for c in clauses) + "."


def together(lens: Facts, kinds: Mapping[str, Facts]) -> str:
    """Return what both experiments say of the same thing."""
    cue = lens["voice_lead"].verdict
    carried = [kind for kind, facts in kinds.items() if "flips" in facts and facts["flips"].verdict == "more"]
    shown_of = " and ".join(CUES[kind] for kind in carried) or "neither cue"
    start = f"By the lens the answer follows the {CUES[cue]}" if cue in CUES else "By the lens neither cue is ahead"
    return f"{start}; by patching, transfer beyond the control donor is shown for {shown_of}."
