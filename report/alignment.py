"""The three alignments on the same pairs, from runs of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from activation_patching.tables import patch_layers
from common.plotting import COLORS, INK, PALETTE, Look, curve, figure, resampled
from common.running.output import finished_run
from report.inputs import Outputs

ALIGNMENTS = ("splice", "crop", "stretch")


@dataclass(frozen=True)
class Alignment:
    """What the alignments do to the same pairs: the `largest` difference of the flips to that of splice, and the figure."""

    prompt: str
    kind: str
    pairs: int
    largest: float
    figure: str


def alignment(run: Outputs, *, out: Path, folder: str, words: Mapping[str, str] | None) -> Alignment | None:
    """Draw the three alignments on the pairs that all of them have; None where the run's folder has not their runs in align/."""
    runs = {name: run.folder / "align" / name for name in ALIGNMENTS}
    if not all((path / "run.json").is_file() for path in runs.values()):
        return None
    read = {name: finished_run(path, "patches.csv") for name, path in runs.items()}
    rows = {name: found for name, (_, found) in read.items()}
    shared = set.intersection(*(set(r.pair_id[r.control == "none"]) for r in rows.values()))
    tables: dict[str, pd.DataFrame] = {n: patch_layers(r[r.pair_id.isin(shared)], seed=0) for n, r in rows.items()}
    first, look = tables["splice"].iloc[0], Look(words=words)
    caption = look.say(f"n = {{n}} {first.kind} pairs", n=int(first.n)) + "; " + resampled(first, look)
    xlabel = look.say("layer l (audio span of h_l is the donor's)")
    with figure(
        out / folder / "align_curve.png", look, xlabel=xlabel, ylabel=look.say("flip rate (share of pairs)"), caption=caption
    ) as axes:
        for (name, layers), style, color in zip(tables.items(), ("-", "--", ":"), (COLORS[first.kind], INK, PALETTE[4])):
            curve(axes, layers, "flip_to_target", color=color, name=name, style=style)
        axes.set_ylim(-0.03, 1.03)
    largest = max(float((t.flip_to_target - tables["splice"].flip_to_target).abs().max()) for t in tables.values())
    prompt = str(read["splice"][0]["prompt_text"])
    return Alignment(prompt, str(first.kind), int(first.n), largest, f"{folder}/align_curve.png")
