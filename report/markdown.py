"""Write Markdown: escaped texts, and tables of the runs' CSVs."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from common.run.run_folder import read_table
from common.stats.findings import NAN, Estimate
from report.language import Say, decimals, interval
from report.runs import Outputs


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


_STEPS = 3  # of layers that a table shows: the first, the last, and some between; the CSV has all
# What tables.md shows of each CSV: the columns that say which row it is, and those of numbers, with their headings.
SHOWN: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "lens layers": (
        ("layer",),
        {"win_semantic": "words", "win_prosody": "voice", "win_other": "neither", "voice_lead": "voice − words"}
        | {"margin": "margin (logits)", "mass": "labels' probability"},
    ),
    "crossover": (("side", "reason"), {"crossing": "leads from layer"}),
    "congruent": (("layer",), {"accuracy": "congruent clips right"}),
    "generated": (("n",), {"agreement": "same as the first token", "no_label": "no label named"}),
    "decoding": (
        ("label",),
        {"accuracy": "probe", "unanswered": "probe − answered", "beyond_permuted": "beyond permuted labels"}
        | {"beyond_random_weights": "beyond random weights", "beyond_duration_and_level": "beyond duration and level"},
    ),
    "stages": (
        ("label", "stage"),
        {"accuracy": "probe", "beyond_permuted": "beyond permuted labels", "drop": "loss since the stage before"}
        | {"unanswered": "probe − answered"},
    ),
    "summary": (
        ("kind", "control", "baseline", "reason"),
        {"to_target": "to target", "to_third": "to third", "effect": "effect", "effect_logit": "effect (logits)"}
        | {"from_base": "from base", "half_effect_layer": "half-effect layer", "minus_random": "minus random subspace"},
    ),
    "free_text": (
        ("kind", "layer"),
        {"agreement": "same as the first token", "word_agreement": "same whole word", "no_label": "no label named"}
        | {"hedge": "several labels named"},
    ),
    "beyond_label": (("n",), {"beyond_label": "changed, minus same-text donor"}),
    "patching layers": (
        ("kind", "control", "layer"),
        {"flip_to_target": "to target", "flip_from_base": "from base", "delta_logit": "Δ logit", "decoded": "decoded"},
    ),
    "effects": (("kind", "control", "layer"), {"effect": "effect", "effect_logit": "effect (logits)"}),
    "knockout summary": (
        ("kind",),
        {"untouched": "untouched", "direct": "direct route alone", "through_question": "through the question alone"}
        | {"direct_minus_through": "direct minus through", "logit_direct": "share of the logit kept: direct"}
        | {"logit_through_question": "share of the logit kept: through", "logit_direct_minus_through": "direct minus through"}
        | {"half_effect_layer": "half-effect layer"},
    ),
    "strongest": (("kind", "part", "block"), {"effect_logit": "effect (logits)", "direct": "of that, by itself"}),
    "together": (("kind", "heads"), {"effect_logit": "effect (logits)", "share": "share of what all heads do"}),
    "ablation": (("carry", "kind", "heads"), {"effect": "change of dependence", "minus_random": "minus random heads"}),
    "chosen": (
        ("kind",),
        {"untouched": "untouched", "scaled": "scaled", "minus_random": "minus random subspace", "minus_direct": "minus direct"}
        | {"minus_readout": "minus the last block's output scaled", "minus_asked": "minus asked for"}
        | {"congruent_change": "congruent, change", "asked_other_change": "asked for the other, change"}
        | {"word_error_rate_change": "word error rate, change"},
    ),
    "erased": (("kind",), {"erased": "erased", "random": "random subspace erased", "minus_random": "minus random subspace"}),
}
BELOW = {"knockout": ("summary",), "components": ("strongest", "together", "ablation"), "scale": ("chosen", "erased")}
_MOST = 5  # of the strongest parts of each kind
ORDER = (
    "layers",
    "crossover",
    "congruent",
    "labels",
    "generated",
    "decoding",
    "stages",
    "summary",
    "beyond_label",
    "effects",
    "free_text",
)


def tables_of_run(run: Outputs, say: Say) -> dict[str, str]:
    """Return the tables of a run by the CSV that they are of."""
    order = [name for name in ORDER if name in run.tables and len(run.tables[name])]
    if run.experiment == "patching":
        order.sort(key=lambda name: name == "layers")  # the summary is asked for more often
    names = {name: f"{run.experiment} layers" if name == "layers" else name for name in order}
    return {f"{name}.csv": _shown(run.tables[name], shown, say) for name, shown in names.items()}


def tables_below(folder: Path, intervention: str, say: Say) -> dict[str, str]:
    """Return the main tables of a run below a patching run by the CSV that they are of."""
    found = {name: read_table(folder, name) for name in BELOW[intervention] if (folder / f"{name}.csv").is_file()}
    names = {name: f"{intervention} {name}" if name == "summary" else name for name in found}
    return {f"{name}.csv": _shown(found[name], shown, say) for name, shown in names.items() if len(found[name])}


def _shown(found: pd.DataFrame, name: str, say: Say) -> str:
    if name == "labels":
        return label_table(found, say)
    if name == "stages":
        found = found[(found.probe == "states") & ~(found.stage.str.fullmatch(r"h_\d*[1-9]"))]
    if name == "strongest":
        found = found.rename(columns={"layer": "block"}).groupby("kind", sort=False).head(_MOST)
    keys, numbers = SHOWN[name]
    if "layer" in keys:
        last = found.layer.max()
        found = found[(found.layer == last) | (found.layer % max(1, math.ceil(last / _STEPS)) == 0)]
    keys = tuple(c for c in keys if c in found and (c != "control" or found.control.nunique() > 1))
    wanted = {c: heading for c, heading in numbers.items() if c in found}
    rows = [[*(_key(row[c], say) for c in keys), *(stated(row, c) for c in wanted)] for _, row in found.iterrows()]
    headings = ["l" if c == "layer" else say(c) for c in (*keys, *wanted.values())]  # the page finds rows by "l"
    return table(headings, rows)


def stated(row: pd.Series, column: str) -> str:
    """Return a number of a table with its interval."""
    ends = Estimate(float(row[column]), float(row.get(f"{column}_lo", NAN)), float(row.get(f"{column}_hi", NAN)))
    digits = 1 if "layer" in column or column == "crossing" else 2
    within = interval(ends, digits)
    return decimals(ends, digits) + (f" [{within}]" if within != "–" else "")


def _key(value: object, say: Say) -> str:
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.0f}"
    return plain(say(str(value).replace("_", " ")) if isinstance(value, str) else value)


def label_table(labels: pd.DataFrame, say: Say) -> str:
    """Return the semantic x prosody table: whose label the answer is in each cell, with intervals, and of how many clips."""
    names = [c.removeprefix("answers_") for c in labels if c.startswith("answers_")]
    cells = {(r.semantic_label, r.prosody_label): r for _, r in labels.iterrows()}

    def cell(words: str, voice: str) -> str:
        if (words, voice) not in cells:
            return "–"
        row = cells[words, voice]
        if words == voice:
            return f"{say('right')} {stated(row, 'win_prosody')} (n {row.n})"
        return f"{say('words')} {stated(row, 'win_semantic')}, {say('voice')} {stated(row, 'win_prosody')} (n {row.n})"

    rows = [[f"**{plain(words)}**", *(cell(words, voice) for voice in names)] for words in names]
    return table((plain(say("words \\ voice")), *(plain(name) for name in names)), rows)


def checks(runs: Iterable[Outputs], say: Say) -> str:
    """Return how the self-checks of the runs came out, beside their tolerance."""
    rows = []
    for run in runs:
        measured = run.record.get("self_check", {})
        figures = measured | run.record.get("counts", {}).get("controls", {})
        tolerance = measured.get("tolerance", NAN)
        names = [n for n, v in figures.items() if isinstance(v, float) and " - " in n]
        rows += [[say(run.experiment), code(n), f"{figures[n]:.1e}", f"{tolerance:.1e}"] for n in names]
    return table([say(h) for h in ("run", "check", "largest difference of two logits", "tolerance")], rows)
