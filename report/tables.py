"""The report's markdown tables, from the CSVs of both experiments and their run.json."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from common.clips.pairs import CONTROLS
from common.clips.samples import LABELS
from common.stats.landmarks import stated


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lens_table(layers: pd.DataFrame) -> str:
    columns = {"margin": "+.2f", "win_semantic": ".2f", "win_prosody": ".2f", "win_other": ".2f"}
    rows = [[str(int(r.layer)), *(stated(r, c, f) for c, f in columns.items())] for _, r in layers.iterrows()]
    return table(("l", "margin (logits)", "words win", "voice wins", "neither"), rows)


def patching_table(layers: pd.DataFrame) -> str:
    columns = {"flip_to_target": ".2f", "flip_from_base": ".2f", "delta_logit": "+.2f"}
    rows = [[str(int(r.layer)), *(stated(r, c, f) for c, f in columns.items())] for _, r in layers.iterrows()]
    return table(("l", "flip to target", "flip from base", "Δ target logit"), rows)


def label_table(labels: pd.DataFrame) -> str:
    """Return the semantic x prosody table: whose label the answer is, in each cell."""

    def cell(semantic: str, prosody: str) -> str:
        found = labels[(labels.semantic_label == semantic) & (labels.prosody_label == prosody)]
        if not len(found):
            return "-"
        r = found.iloc[0]
        return f"right {r.win_prosody:.2f}" if semantic == prosody else f"w {r.win_semantic:.2f}, v {r.win_prosody:.2f}"

    rows = [[f"**{semantic}**", *(cell(semantic, prosody) for prosody in LABELS)] for semantic in LABELS]
    return table(("words \\ voice", *LABELS), rows)


def answer_counts(labels: pd.DataFrame) -> str:
    """Return how often each label is the answer, over all clips."""
    counts = {label: int(labels[f"answers_{label}"].sum()) for label in LABELS}
    total = max(1, sum(counts.values()))
    return ", ".join(f"{label} {n / total:.2f}" for label, n in counts.items())


def tests_table(layers: pd.DataFrame) -> str:
    """Return, per layer, what the patch gains over the floor, whether it is more than chance, and how directed it is."""
    rows = [
        [
            str(int(r.layer)),
            stated(r, "flip_gain", "+.2f"),
            "-" if pd.isna(r.p_holm) else "< .001" if r.p_holm < 0.001 else f"{r.p_holm:.3f}",
            stated(r, "directedness"),
            stated(r, "recovery"),
            stated(r, "flip_to_target_eligible"),
        ]
        for _, r in layers.iterrows()
    ]
    eligible = f"flip to target among {layers.n_eligible.iloc[0]:.0f} eligible"
    return table(("l", "flips gained over floor", "p (Holm)", "directedness", "recovery", eligible), rows)


def controls_table(layers: pd.DataFrame) -> str:
    """Return what the same patch does with a control donor, at l = 0 and at the middle layer."""
    rows = []
    by_control = dict(list(layers.groupby("control", sort=False)))
    for control, of_control in ((c, by_control[c]) for c in ("none", *CONTROLS) if c in by_control):
        first, middle = of_control.iloc[0], of_control.iloc[len(of_control) // 2]
        figures = [stated(r, c, f) for r in (first, middle) for c, f in (("flip_to_target", ".2f"), ("delta_logit", "+.2f"))]
        rows.append(["the donor" if control == "none" else str(control).replace("_", " "), f"{first.n:.0f}", *figures])
    at = f"l = {layers.layer.max() // 2 + layers.layer.max() % 2:.0f}"
    return table(("donor", "n", "flip to target, l = 0", "Δ, l = 0", f"flip to target, {at}", f"Δ, {at}"), rows)


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
