"""Markdown: texts that are data and no markup, tables of the runs' CSVs."""

import re
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from common.stats.facts import p_value, stated
from report.inputs import Outputs

Say = Callable[[str], str]


def plain(text: object) -> str:
    """Return a text in which nothing is markup: neither Markdown's nor HTML's."""
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", " ".join(str(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: object) -> str:
    """Return a text as a span of code, with more backticks around it than in it; a bar would end a cell of a table."""
    if text is None:
        return "–"
    line = " ".join(str(text).split()).replace("|", "¦")
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if "`" in line else f"`{line}`"


def fenced(text: str) -> str:
    """Return a text as a block of code, to the letter, in a fence longer than any in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def slug(heading: str) -> str:
    """Return the anchor that a forge gives to a heading, so that links work there and in the page."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(found: pd.DataFrame, wanted: dict[str, tuple[str, str]], say: Say, *, keys: dict[str, str]) -> str:
    """Return a table of a CSV: `keys` (column -> heading) as text, `wanted` (column -> heading, format) with intervals."""
    wanted = {c: v for c, v in wanted.items() if c in found}
    rows = []
    for _, row in found.iterrows():
        cells = [_key(row[c], say) for c in keys]
        rows.append([*cells, *(p_value(row[c]) if form == "p" else stated(row, c, form) for c, (_, form) in wanted.items())])
    return table([say(h) for h in (*keys.values(), *(h for h, _ in wanted.values()))], rows)


def _key(value: object, say: Say) -> str:
    if isinstance(value, float):
        return "-" if pd.isna(value) else f"{value:.0f}"
    return plain(say(str(value).replace("_", " ")) if isinstance(value, str) else value)


LAYER = {"layer": "l"}
SHARE, SIGNED = ".2f", "+.2f"
LENS_LAYERS = {
    "margin": ("margin (logits)", SIGNED),
    "margin_excess": ("margin beyond prior", SIGNED),
    "win_semantic": ("words win", SHARE),
    "win_prosody": ("voice wins", SHARE),
    "win_other": ("neither", SHARE),
    "voice_lead": ("voice − words", SIGNED),
    "mass": ("labels' probability", SHARE),
}
DECISION = {"crossing": ("crossing", ".1f"), "decision_layer": ("shown from", ".0f")}
LEFT_OUT = {"voice_lead": ("voice − words", SIGNED), "margin": ("margin (logits)", SIGNED), "crossing": ("crossing", ".1f")}
PROBE = {
    "accuracy": ("probe", SHARE),
    "answered": ("answered", SHARE),
    "unsaid": ("probe − answer at L", SIGNED),
    "beyond_permuted": ("beyond dealt labels", SIGNED),
    "beyond_random_weights": ("beyond random weights", SIGNED),
    "beyond_duration_and_level": ("beyond duration, level", SIGNED),
}
GENERATED = {"agreement": ("as the first token", SHARE), "no_label": ("no label", SHARE)}
PATCH_LAYERS = {
    "flip_to_target": ("flip to target", SHARE),
    "flip_from_base": ("flip from base", SHARE),
    "delta_logit": ("Δ target logit", SIGNED),
    "directedness": ("directedness", SHARE),
    "directedness_null": ("shuffled targets", SHARE),
    "recovery": ("recovery", SHARE),
}
PAIRED = {
    "real": ("donor", SHARE),
    "control": ("control", SHARE),
    "difference": ("difference", SIGNED),
    "p_holm": ("p (Holm)", "p"),
}
RELEASE = {"crossing": ("below half from", ".1f"), "nothing_left": ("nothing left from", ".0f")}


def lens_tables(run: Outputs, say: Say) -> dict[str, str]:
    """Return the tables of a lens run by the CSV that they are of."""
    t = run.tables
    found = {
        "layers.csv": columns(t["layers"], LENS_LAYERS, say, keys=LAYER),
        "decision_layer.csv": columns(t["decision_layer"], DECISION, say, keys={"side": "side"}),
        "leave_out.csv": columns(t["leave_out"], LEFT_OUT, say, keys={"label": "without", "n": "n"}),
        "congruent.csv": columns(t["congruent"], {"accuracy": ("right", SHARE)}, say, keys=LAYER),
        "labels.csv": label_table(t["labels"], say),
    }
    if "generated" in t:
        found["generated.csv"] = columns(t["generated"], GENERATED, say, keys={"n": "n"})
    if "probe" in t and len(t["probe"]):
        states = t["probe"][t["probe"].probe == "states"]
        found["probe.csv"] = columns(states, PROBE, say, keys={"label": "label", "position": "position"} | LAYER)
    return found


def patching_tables(run: Outputs, say: Say) -> dict[str, str]:
    """Return the tables of a patching run by the CSV that they are of; of paired.csv the flips against the first control."""
    t, kind = run.tables, {"kind": "kind"}
    real = t["layers"][t["layers"].control == "none"]
    release = t["release_layer"][t["release_layer"].control == "none"]
    found = {
        "layers.csv": columns(real, PATCH_LAYERS, say, keys=kind | LAYER),
        "release_layer.csv": columns(release, RELEASE, say, keys=kind),
    }
    if len(t["transfer"]):
        primary = t["transfer"].control_donor[t["transfer"].primary].iloc[0]
        paired = t["paired"][(t["paired"].control_donor == primary) & (t["paired"].outcome == "flips")]
        of_all = {"outcome": "outcome", "control_donor": "control", "n": "pairs"}
        found |= {
            "transfer.csv": columns(t["transfer"], PAIRED, say, keys=kind | of_all),
            "paired.csv": columns(paired, PAIRED, say, keys=kind | LAYER | {"n": "pairs"}),
        }
        if "difference" in t["leave_out"]:
            left_out = {"difference": ("difference", SIGNED), "crossing": ("below half from", ".1f")}
            found["leave_out.csv"] = columns(t["leave_out"], left_out, say, keys=kind | {"label": "without", "n": "pairs"})
    return found


def label_table(labels: pd.DataFrame, say: Say) -> str:
    """Return the semantic x prosody table: whose label the answer is in each cell, with intervals, and of how many clips."""
    names = [c.removeprefix("answers_") for c in labels if c.startswith("answers_")]
    cells = {(r.semantic_label, r.prosody_label): r for _, r in labels.iterrows()}

    def cell(words: str, voice: str) -> str:
        if (words, voice) not in cells:
            return "-"
        row = cells[words, voice]
        if words == voice:
            return f"{say('right in')} {stated(row, 'win_prosody')} (n {row.n})"
        return f"{say('w')} {stated(row, 'win_semantic')}, {say('v')} {stated(row, 'win_prosody')} (n {row.n})"

    rows = [[f"**{plain(words)}**", *(cell(words, voice) for voice in names)] for words in names]
    return table((plain(say("words \\ voice")), *(plain(name) for name in names)), rows)


def answer_counts(labels: pd.DataFrame) -> str:
    """Return how often each label is the answer, over all clips."""
    counts = {c.removeprefix("answers_"): int(labels[c].sum()) for c in labels if c.startswith("answers_")}
    total = max(1, sum(counts.values()))
    return ", ".join(f"{plain(label)} {n / total:.2f}" for label, n in counts.items())


def checks(runs: Iterable[Outputs], say: Say) -> str:
    """Return how the self-checks of the runs came out, beside their tolerance."""
    rows = []
    for run in runs:
        measured = run.record.get("self_check", {})
        figures = measured | run.record.get("counts", {}).get("controls", {})
        tolerance = measured.get("tolerance", float("nan"))
        names = [n for n, v in figures.items() if isinstance(v, float) and " - " in n]
        given = run.identity.get("input", "audio")
        what = say(run.experiment) + ("" if given == "audio" else f" ({say(given)})")
        rows += [[what, plain(name), f"{figures[name]:.1e}", f"{tolerance:.1e}"] for name in names]
    return table([say(h) for h in ("run", "check", "largest difference of two logits", "tolerance")], rows)
