"""What a patching run found, in words; each statement is made here once, for the terminal and for the report."""

import pandas as pd

from common.stats.facts import Fact, moved, one_label, p_value, say, scope

CUES = {"prosody": "voice", "semantic": "words"}
DONORS = {
    "same_labels_donor": "a donor with the recipient's own labels",
    "random_donor": "a random donor",
    "silence": "silence",
}
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
