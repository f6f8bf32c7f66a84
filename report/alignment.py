"""The three alignments on the same pairs, from runs of their own."""

import json
from pathlib import Path

import pandas as pd

from activation_patching.tables import patch_layers
from common.plotting import COLORS, curve, figure, resampled


def align_figure(folder: Path, out: Path) -> str:
    """Draw the three alignments on the pairs that all of them have, if `folder` has their runs; return the section."""
    runs = {name: folder / "align" / name for name in ("splice", "crop", "stretch")}
    if not all((path / "run.json").is_file() for path in runs.values()):
        return ""
    rows = {name: pd.read_csv(path / "patches.csv", dtype={"control": str}) for name, path in runs.items()}
    shared = set.intersection(*(set(r.pair_id[r.control == "none"]) for r in rows.values()))
    tables = {name: patch_layers(r[r.pair_id.isin(shared)], seed=0) for name, r in rows.items()}
    first = tables["splice"].iloc[0]
    question = json.loads((runs["splice"] / "run.json").read_text(encoding="utf-8"))["prompt_text"].replace("{audio}", "")
    caption = f"the same {first.n} {first.kind} pairs, {first.n_texts} texts; {resampled(first.clusters)}"
    with figure(out / "figures" / "align_curve.png", ylabel="flip to target (share of pairs)", caption=caption) as axes:
        for (name, layers), style, color in zip(tables.items(), ("-", "--", ":"), (COLORS[first.kind], "#000000", "#E69F00")):
            curve(axes, layers, "flip_to_target", color=color, label=f"--align {name}", style=style)
        axes.set_ylim(-0.03, 1.03)
    largest = max(float((t.flip_to_target - tables["splice"].flip_to_target).abs().max()) for t in tables.values())
    text = (
        "A donor's span is seldom as long as the recipient's. Splice needs no alignment; crop puts the donor's first positions "
        "into the recipient's span, stretch interpolates the donor's over time to its length. Asked of the same "
        f"{first.kind} pairs (“{question}”), the three curves of flips differ by {largest:.2f} at most."
    )
    picture = "The three ways of putting a span of another length into the recipient's run."
    return f"### Does the alignment carry the result?\n\n{text}\n\n![{picture}](figures/align_curve.png)\n\n*{picture}*"
