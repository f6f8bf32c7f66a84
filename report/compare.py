"""Runs side by side: their curves on one scale of depth, their main findings in one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from common.stats.facts import Fact, p_value, shown

from common.plotting import PALETTE, Look, curve, figure, level
from report.chapters import Chapter, wording_of
from report.markdown import Say, plain, table


def side_by_side(
    chapters: Sequence[Chapter], *, out: Path, folder: str, language: str, words: Mapping[str, str] | None
) -> list[tuple[str, str]]:
    """Draw the curves of several studies over l / L; return the figures with captions, none where there is one study."""
    captions, look = wording_of(language).CAPTIONS, Look(words=words)
    figures = []

    def draw(file: str, column: str, ylabel: str, level_name: str, tables: dict[str, pd.DataFrame]) -> None:
        if len(tables) < 2:
            return
        sizes = "\n".join(f"{name}: n = {int(t.n.iloc[0])}" for name, t in tables.items())
        with figure(
            out / folder / file, look, xlabel=look.say("relative depth l / L"), ylabel=look.say(ylabel), caption=sizes
        ) as axes:
            for (name, layers), color in zip(tables.items(), PALETTE * len(tables)):
                depth = layers.assign(layer=layers.layer / max(1, layers.layer.max()))
                curve(axes, depth, column, color=color, name=name.replace(", ", ",\n"))
            level(axes, 0, look.say(level_name))
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        figures.append((f"{folder}/{file}", captions[file]))

    lens = {c.name: c.study.lens.tables["layers"] for c in chapters if c.study.lens}
    draw("side_by_side_lens.png", "voice_lead", "voice minus words (share of clips)", "no lead", lens)
    for kind in ("semantic", "prosody"):
        patching = {c.name: c.study.patching.tables["layers"] for c in chapters if c.study.patching}
        of_kind = {name: t[(t.kind == kind) & (t.control == "none")] for name, t in patching.items()}
        of_kind = {name: t for name, t in of_kind.items() if len(t)}
        draw(f"side_by_side_{kind}.png", "flip_to_target", "flip rate (share of pairs)", "no effect", of_kind)
    return figures


def headlines(chapters: Sequence[Chapter], say: Say) -> str:
    """Return a table of the primary outcomes and the layers found, a row for each study."""
    kinds = list(dict.fromkeys(kind for c in chapters for kind in c.kinds))

    def cell(facts: Mapping[str, Fact], name: str, form: str) -> str:
        fact = facts.get(name)
        return shown(fact.value, fact.lo, fact.hi, form) if fact else "-"

    rows = []
    for c in chapters:
        cells = [cell(c.facts, "voice_lead", "+.2f"), cell(c.facts, "crossing", ".1f")]
        for kind in kinds:
            of_kind = c.kinds.get(kind, {})
            p = f", {p_value(of_kind['flips'].p)}" if "flips" in of_kind else ""
            cells += [cell(of_kind, "flips", "+.2f") + p, cell(of_kind, "crossing", ".1f")]
        rows.append([plain(c.name), *cells])
    of_kinds = [f"{say(kind)}: {say(what)}" for kind in kinds for what in ("difference", "below half from")]
    return table([say("study"), say("voice − words"), say("crossing"), *of_kinds], rows)
