"""Compare answers to a clip's audio, its transcript, and its transcript with the tone named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from activation_patching.span.effects import answered, matched
from common.plotting import COLORS, FigureStyle, figure, level, name_curves, points
from common.stats.findings import Estimate, estimate_of
from common.stats.layer_tables import Metric, gain, layer_table
from common.stats.units import clip_units, label_codes, labels_of
from logit_lens.plots import NAMES
from logit_lens.tables import OUTCOMES, conflict_rows
from report.runs import Outputs, Study

RUNGS = {"audio": "audio", "transcript": "transcript", "described": "transcript\nand tone"}


@dataclass(frozen=True)
class Ladder:
    """What the rungs show at l = L on the conflict clips that all of them have.

    `shares`: of each rung and outcome. `reads`: how much more often a label is the answer to transcripts whose words have it
    than to others; 0 where the model makes nothing of a text. `heard_minus_read`: of the words' label. `heard_minus_named`: of
    the voice's label; None where no run names the tone.
    """

    shares: Mapping[tuple[str, str], Estimate]
    reads: Estimate
    heard_minus_read: Estimate
    heard_minus_named: Estimate | None
    chance: float


def ladder(study: Study) -> Ladder | None:
    """Return the ladder of a study; None where it has no transcripts, or shares no clip with them."""
    if study.lens is None or "transcript" not in study.beside:
        return None
    runs: dict[str, Outputs] = {"audio": study.lens, **{name: study.beside[name] for name in RUNGS if name in study.beside}}
    conflict = {name: conflict_rows(run.rows) for name, run in runs.items()}
    clips, layers = (set.intersection(*(set(rows[c]) for rows in conflict.values())) for c in ("sample_id", "layer"))
    if not clips:
        return None
    units = {n: clip_units(rows[rows.sample_id.isin(clips) & rows.layer.isin(layers)]) for n, rows in conflict.items()}
    wins = {(name, o): (u.grid("outcome") == o).astype(float) for name, u in units.items() for o in OUTCOMES}
    metrics = {f"{name}: {o}": Metric(won, share=True) for (name, o), won in wins.items()}
    metrics["heard - read"] = gain(wins["audio", "semantic"] - wins["transcript", "semantic"])
    if "described" in runs:
        metrics["heard - named"] = gain(wins["audio", "prosody"] - wins["described", "prosody"])
    read, labels = units["transcript"], labels_of(study.lens.rows)
    words, said = label_codes(read.unit_rows.semantic_label, labels), answered(read, "winner")
    named = np.stack([words, np.full_like(words, -1), np.full_like(words, -1)], axis=1)
    found = matched(named, said, np.zeros_like(said))
    metrics["reads"] = Metric(found.to_target, down=found.to_third)
    row = layer_table(units["audio"], metrics).iloc[-1]
    return Ladder(
        shares={(name, o): estimate_of(row, f"{name}: {o}") for name, o in wins},
        reads=estimate_of(row, "reads"),
        heard_minus_read=estimate_of(row, "heard - read"),
        heard_minus_named=estimate_of(row, "heard - named") if "described" in runs else None,
        chance=1 / len(labels),
    )


def plot_ladder(found: Ladder, path: Path, style: FigureStyle) -> None:
    """Draw the shares of the outcomes on each rung."""
    rungs = list(dict.fromkeys(name for name, _ in found.shares))
    with figure(path, style) as (axes,):
        for place, (outcome, color) in enumerate(COLORS.items()):
            shares = pd.DataFrame([vars(found.shares[name, outcome]) for name in rungs])
            shares = shares.rename(columns={"low": "lo", "high": "hi"})
            at = [i + 0.08 * (place - 1) for i in range(len(rungs))]
            points(axes, at, shares, name=style.say(NAMES[outcome]), color=color, marker="os^"[place])
        level(axes, found.chance, style.say("chance"))
        axes.set_xticks(range(len(rungs)), [style.say(RUNGS[name]) for name in rungs])
        axes.set(xlim=(-0.4, len(rungs) - 0.6), ylim=(-0.03, 1.03), ylabel=style.say("win rate (share of clips)"))
        name_curves(axes)
