"""What a patching run found, in words; each statement is made here once, for the terminal and for the report."""

import pandas as pd

from common.stats.facts import Fact, moved, one_label, p_value, say, scope

CUES = {"prosody": "voice", "semantic": "words"}
DONORS = {
    "same_labels_donor": "a donor with the recipient's own labels",
    "random_donor": "a random donor",
    "silence": "silence",
    "random_subspace": "a random subspace of the same rank and norm",
    "whole": "the whole state",
}
PLACES = {"span": "audio span", "last": "last position"}
OTHERS = ("flips, random_donor", "flips, silence")  # beside the primary control
CONSTRUCTION = (
    "At l = 0 a patched answer is the donor's own and at l = L the recipient's, by construction: both are controls, no findings."
)


def patching_statements(kind: str, facts: dict[str, Fact], prompts: pd.DataFrame | None = None) -> list[str]:
    """Return the statements on a kind of pair, the primary outcome first; `prompts` (prompts.csv) says how far a number moves."""
    if "flips" not in facts:
        unheld = "no control donors were run (--controls): what a patch carries beyond disturbing the recipient is not known"
        return [f"**The donor's {CUES[kind]}** ({facts['pairs'].n} {kind} pairs): {unheld}.", *_left(facts)]
    statements = [_primary(kind, facts, prompts), _logit(kind, facts, prompts)]
    statements += _left(facts)
    return [
        *statements,
        *([one_label(facts["flips without a label"], facts["flips"])] if "flips without a label" in facts else []),
    ]


def edit_statements(kind: str, facts: dict[str, Fact]) -> list[str]:
    """Return the statements on what erasing or exchanging a label's subspace does; claims are beyond a random subspace alone."""
    pairs = facts["pairs"]
    erased, where, cue = pairs.verdict == "erase", f"the {PLACES[pairs.test]}", CUES[kind]
    first = facts.get("changed" if erased else "flips")
    what = f"**Erasing the {cue}** at {where}" if erased else f"**Exchanging the {cue}** at {where}"
    if first is None:
        return [f"{what} ({pairs.n}): no controls were run (--controls): what it does beyond a random subspace is not known."]
    outcome = "answers that change" if erased else "flips to the donor's label"
    says = {
        "more": f"the answer uses what the states there tell of the {cue}" if erased else f"the subspace carries the {cue}",
        "less": "the random subspace does more",
        "none": "it is not shown that more answers change" if erased else "it is not shown that the subspace carries it",
    }[first.verdict]
    layers = facts["layers"]
    at = f"at l = {layers.verdict}" if layers.verdict else "at no layer"
    units = "clips" if erased else f"{kind} pairs"
    statements = [
        f"{what} (primary outcome: {outcome} minus those with {DONORS[first.control]}, on the same {first.n} of {pairs.n} "
        f"{units}, {first.row.partition(', ')[2]}): {facts[f'{first.name}: real'].value:.2f} against "
        f"{facts[f'{first.name}: control'].value:.2f}, difference {say(first, '+.2f')}, {p_value(first.p)}: {says}. Layer by "
        f"layer that shows {at} ({layers.test}). Test: {first.test}; {scope(first)}."
    ]
    more = {"flips": "answers that are the label", "delta": "the label's logit", "margin": "the margin"} if erased else {}
    more |= {} if erased else {"delta": "the label's logit", "changed": "answers that change"}
    said = [f"{name} {say(facts[o], '+.2f')} ({p_value(facts[o].p)})" for o, name in more.items()]
    statements.append(f"**Beyond the random subspace**, the same way: {'; '.join(said)}.")
    if not erased:
        statements.append(_share_carried(facts))
    told = facts["told"]
    known = f"at l = {told.verdict}" if told.verdict else "at no layer"
    statements.append(
        f"**Does the subspace know the {cue}?** Learned from other texts and speakers it tells the label of {say(told)} at best "
        f"({told.row.partition(', ')[2]}), and more than chance ({told.control}) {known}; elsewhere no effect says nothing."
    )
    return statements


def _share_carried(facts: dict[str, Fact]) -> str:
    found = []
    for outcome, name in (("flips", "flips"), ("delta", "rise of the logit")):
        part = facts.get(f"carried: {outcome}")
        if part is not None and not pd.isna(part.value) and facts[outcome].verdict == "more":
            found.append(f"{say(part)} of the {name}")
    if not found:
        return "**Of what the whole state does** there, no share can be named: there is no effect of both to compare."
    return f"**Of what the whole state does** there, the subspace does {' and '.join(found)} (same pairs)."


def _primary(kind: str, facts: dict[str, Fact], prompts: pd.DataFrame | None) -> str:
    flips, layers = facts["flips"], facts["layers"]
    says = {
        "more": "the audio span carries it to the answer, beyond the control",
        "less": "the control donors flip more answers to it",
        "none": "it is not shown that the span carries it to the answer",
    }[flips.verdict]
    at = f"at l = {layers.verdict}" if layers.verdict else "at no layer"
    others = [f"{DONORS[f.control]} {say(f, '+.2f')} ({p_value(f.p)})" for name, f in facts.items() if name in OTHERS]
    beside = f" Against {', '.join(others)}." if others else ""
    return (
        f"**The donor's {CUES[kind]}** (primary outcome: flips to its label minus those by {DONORS[flips.control]}, on the "
        f"same {flips.n} of {facts['pairs'].n} {kind} pairs, {flips.row.partition(', ')[2]}): {facts['flips: real'].value:.2f} "
        f"against {facts['flips: control'].value:.2f}, difference {say(flips, '+.2f')}, {p_value(flips.p)}: {says}. Layer by "
        f"layer that shows {at} ({layers.test}).{beside} Test: {flips.test}; {scope(flips)}.{moved(prompts, primary_name(kind))}"
    )


def primary_name(kind: str, outcome: str = "flips") -> str:
    """Return how prompts.csv names an outcome over the control."""
    return f"{kind} pairs: {outcome} over control, mean of inner layers"


def _logit(kind: str, facts: dict[str, Fact], prompts: pd.DataFrame | None) -> str:
    delta = facts["delta"]
    text = (
        f"**Its logit**: {say(delta, '+.2f')} more than with {DONORS[delta.control]} (same pairs and layers, {p_value(delta.p)})."
    )
    text += moved(prompts, primary_name(kind, "delta"))
    half = facts["crossing"]
    if delta.verdict == "none" or pd.isna(half.value):
        why = "no effect on the logit beyond the control's is shown" if delta.verdict == "none" else half.verdict
        return f"{text} There is no layer to name from which it is lost: {why}."
    changed = facts["flip_from_base"]
    return (
        f"{text} What the patch adds is below half of that at l = 0 from l = {say(half, '.1f')} on ({half.test}); below half is "
        f"not gone: at {changed.row.partition(', ')[2]} {say(changed)} of the answers still change."
        f"{moved(prompts, f'{kind} pairs: below half from', '.1f')}"
    )


def _left(facts: dict[str, Fact]) -> list[str]:
    left = facts.get("nothing_left")
    if left is None:
        return []
    bound = left.test.rpartition(" ")[2]
    if pd.isna(left.value):
        never = f"at no layer before L is it shown that fewer than {bound} of the answers still change"
        return [f"**Nothing left?** {never.capitalize().replace(' l ', ' L ')} ({left.test})."]
    return [f"**Nothing left** from l = {left.value:.0f} on: fewer than {bound} of the answers still change ({left.test})."]
