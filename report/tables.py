"""The report's markdown tables, from the CSVs of both experiments and their run.json."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from common.stats.facts import p_value, stated


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lens_table(layers: pd.DataFrame) -> str:
    columns = {"margin": "+.2f", "win_semantic": ".2f", "win_prosody": ".2f", "win_other": ".2f", "voice_lead": "+.2f"}
    rows = [[str(int(r.layer)), *(stated(r, c, f) for c, f in columns.items())] for _, r in layers.iterrows()]
    return table(("l", "margin (logits)", "words win", "voice wins", "neither", "voice − words"), rows)


def patching_table(layers: pd.DataFrame) -> str:
    columns = {"flip_to_target": ".2f", "flip_from_base": ".2f", "delta_logit": "+.2f", "recovery": ".2f"}
    columns["flip_to_target_eligible"] = ".2f"
    rows = []
    for _, r in layers.iterrows():
        null = "" if pd.isna(r.directedness_null) else f" ({r.directedness_null:.2f} shuffled)"
        rows.append([str(int(r.layer)), *(stated(r, c, f) for c, f in columns.items()), stated(r, "directedness") + null])
    eligible = f"flip to target among {layers.n_eligible.iloc[0]:.0f} eligible"
    return table(("l", "flip to target", "flip from base", "Δ target logit", "recovery", eligible, "directedness"), rows)


def paired_table(paired: pd.DataFrame) -> str:
    """Return, per layer, flips minus those by each control donor, with the p of the first, and the same for the logit."""
    controls = list(paired.control_donor.unique())
    by = paired.set_index(["outcome", "control_donor", "layer"])
    rows = []
    for layer in sorted(paired.layer.unique()):
        first = by.loc["flips", controls[0], layer]
        p = "-" if pd.isna(first.p_holm) else p_value(first.p_holm).removeprefix("p ").removeprefix("= ")
        flips = [stated(by.loc["flips", c, layer], "difference", "+.2f") for c in controls]
        rows.append([str(int(layer)), flips[0], p, *flips[1:], stated(by.loc["delta", controls[0], layer], "difference", "+.2f")])
    sizes = paired.groupby("control_donor").n.first()
    names = [f"{c.replace('_', ' ')} (n = {sizes[c]:.0f})" for c in controls]
    return table(("l", f"flips − {names[0]}", "p (Holm)", *(f"flips − {n}" for n in names[1:]), f"Δ − {names[0]}"), rows)


def leave_out_table(without: pd.DataFrame, columns: dict[str, str]) -> str:
    """Return the main results without each label, beside those of all."""
    names = {"voice_lead": "voice − words", "win_prosody": "voice wins", "win_semantic": "words win"}
    names |= {"difference": "flips − control", "crossing": "crossing, l"}
    there = {c: form for c, form in columns.items() if c in without}
    rows = [[str(r.label), f"{r.n:.0f}", *(stated(r, c, f) for c, f in there.items())] for _, r in without.iterrows()]
    return table(("without", "n", *(names[c] for c in there)), rows)


def label_table(labels: pd.DataFrame) -> str:
    """Return the semantic x prosody table: whose label the answer is, in each cell, with intervals."""
    names = [c.removeprefix("answers_") for c in labels if c.startswith("answers_")]

    def cell(semantic: str, prosody: str) -> str:
        found = labels[(labels.semantic_label == semantic) & (labels.prosody_label == prosody)]
        if not len(found):
            return "-"
        r = found.iloc[0]
        if semantic == prosody:
            return f"right {stated(r, 'win_prosody')}"
        return f"w {stated(r, 'win_semantic')}, v {stated(r, 'win_prosody')}"

    rows = [[f"**{semantic}**", *(cell(semantic, prosody) for prosody in names)] for semantic in names]
    return table(("words \\ voice", *names), rows)


def answer_counts(labels: pd.DataFrame) -> str:
    """Return how often each label is the answer, over all clips."""
    counts = {c.removeprefix("answers_"): int(labels[c].sum()) for c in labels if c.startswith("answers_")}
    total = max(1, sum(counts.values()))
    return ", ".join(f"{label} {n / total:.2f}" for label, n in counts.items())


def setting(name: str, record: dict[str, Any]) -> list[str]:
    """Return one line of the table of runs."""
    identity, counts = record["identity"], record["counts"]
    pairs = [f"{of_kind['kept']} {kind} pairs" for kind, of_kind in counts.get("pairs", {}).items()]
    used = ", ".join([f"{counts['clips']} clips", *pairs])
    where = f"{identity['dtype']} on {identity['device']}, seed {identity['seed']}"
    versions = f"torch {identity['versions']['torch']}, transformers {identity['versions']['transformers']}"
    return [
        name,
        f"`{identity['model']}` ({record['model_class']})",
        used,
        where,
        versions,
        record["commit"],
        f"{record['seconds']:.0f} s",
    ]


def checks(records: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, record in records.items():
        figures = record["self_check"] | record["counts"].get("controls", {})
        rows += [[name, check, f"{figure:.1e}"] for check, figure in figures.items() if isinstance(figure, float)]
    return table(("run", "check", "largest difference of two logits"), rows)


def dropped(records: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, record in records.items():
        counts = record["counts"]
        lines.append(f"- {name}, clips left out: {_reasons(counts['dropped'])}")
        for kind, of_kind in counts.get("pairs", {}).items():
            lines.append(
                f"- {name}, {kind} pairs left out: {_reasons(of_kind['dropped'])}; the two clips share {of_kind['shared']}"
            )
    return "\n".join(lines)


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items() if n) or "none"
