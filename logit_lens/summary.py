"""Write the terminal's summary of a lens run."""

from typing import Any

from common.run import terminal
from logit_lens.findings import LensFindings


def units_of(record: dict[str, Any]) -> str:
    """Return what the run is of: clips, and how they were given and asked about."""
    counts, given = record["counts"], record["identity"].get("input", "audio")
    form = "" if given == "audio" else f" · given as {given}"
    return f"{counts['clips']} conflict, {counts['congruent clips']} congruent clips{form} · prompt {record['prompt_name']}"


def summary(found: LensFindings, given: str = "audio") -> list[str]:
    """Return the rows of the table: what the clips are answered with at l = L, and from which layer the lens can read it.

    Clips `given` as text alone have no voice, so nothing is said of its label.
    """
    answers, reading = found.answers, found.reading
    rows = [terminal.header("share"), terminal.estimate("answer is the words' label", answers.words)]
    if given != "transcript":
        rows.append(terminal.estimate("answer is the voice's label", answers.voice))
        rows.append(terminal.estimate("neither", answers.neither))
    if found.congruent:
        rows.append(terminal.estimate("congruent clips right", found.congruent))
    if found.free_answers:
        rows.append(terminal.estimate("free answers name the same label", found.free_answers.agreement))
    first = "at no layer" if reading.first_layer is None else f"layer {reading.first_layer} of {reading.last_layer}"
    return [*rows, f"{'the lens can read the labels from':44}{first}"]
