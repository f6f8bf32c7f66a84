"""The stages of `--intervention components`: rows, tables, figure, summary."""

from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from activation_patching.choose import PairChoice, choose, clips_of, groups_of, half_of, speaking_pairs
from activation_patching.components.findings import component_effects, headline, heads_ablated, heads_together
from activation_patching.components.plots import plot_run
from activation_patching.components.tables import tables_of
from activation_patching.free_text.tables import free_text_summary, free_text_tables
from activation_patching.intervention import InterventionSpec
from activation_patching.span.summary import units_of
from common import processes
from common.clips.csvfile import read_table
from common.clips.pairs import CUES, Pair
from common.run import run_folder, terminal
from common.run.run_folder import Run, Work
from common.run.settings import Chosen
from common.run.stages import Ended, Kind, Prepared, Results

if TYPE_CHECKING:
    from common.compute.session import Session

_SHOWN = 5  # of the strongest parts of each kind


def steps(
    choice: PairChoice, spec: InterventionSpec, generate: int, *, cache_gb: float | None
) -> tuple[dict[str, Any], Any, Any]:
    """Return what is asked for, and the stages that choose and set up."""
    ready = partial(set_up, generate=generate, seed=choice.seed, cache_gb=cache_gb)
    return choice.record() | {"intervention": spec.intervention}, partial(choose, choice=choice, spec=spec), ready


def set_up(session: "Session", chosen: Chosen, this: Run, *, generate: int, seed: int, cache_gb: float | None) -> Prepared:
    """Return the work on pairs, a part at a time; `generate` of each kind go on in free text."""
    from activation_patching.components.checks import no_attribution  # torch, which drawing does without
    from activation_patching.components.rows import blocks_of, maker, of_parts, parts_of, patches_of
    from activation_patching.free_text.rows import speak

    (pairs, _), half, parts = chosen.units, half_of(chosen.pool, seed=seed), parts_of(session)
    groups = groups_of(pairs, "components")
    patches = [patches_of(group, parts, half) for group in groups]
    session = session.warned(no_attribution(session, parts))
    make, checked = maker(session, patches, parts, cache_gb=cache_gb)
    work = Work(make, patches, lambda patch: patch.name, blocks_of(session))
    speaking = {pair.pair_id for pair in speaking_pairs(pairs, generate, seed=seed)}
    of_pairs = [list(same) for group in patches for _, same in groupby(group, lambda patch: patch.pair.pair_id)]
    speaking_patches = [same for same in of_pairs if same[0].pair.pair_id in speaking]

    def end(this: Run) -> Ended:
        make_heads_together(session, parts, groups, half, this, seed=seed, cache_gb=cache_gb)
        at_blocks, ask = replace(session, layers=blocks_of(session)), partial(of_parts, session, parts)
        return speak(at_blocks, this, speaking_patches, lambda patch: patch.name, ask), []

    title = f"{len(pairs)} pairs of {chosen.counts['clips']} clips x parts of"
    return Prepared(session, work, title, checked, end=end)


def make_heads_together(
    session: "Session",
    parts: Any,
    groups: list[list[Pair]],
    half: dict[str, int],
    this: Run,
    *,
    seed: int,
    cache_gb: float | None,
) -> None:
    """Make the rows of the strongest heads put together, and taken out of clips.

    They are ranked by the rows of single heads. Nothing is made where the texts make no two halves.
    """
    from activation_patching.components.rows import Patch
    from activation_patching.components.set_rows import SETS, Ablation, ablation_rows, ranked_heads, set_rows, steps

    ranked = processes.broadcast(ranked_heads(read_table(this.rows)) if processes.is_leader() else None)
    if ranked:
        told = {"parts": parts, "ranked": ranked, "cache_gb": cache_gb}
        together = [[Patch(p, "together", half[p.recipient.sample_id]) for p in group if p.kind in ranked] for group in groups]
        sets = Work(partial(set_rows, session, **told), list(filter(None, together)), lambda p: p.name, steps(ranked))
        run_folder.make_rows(replace(this, rows=this.out / "sets.csv"), sets, overwrite=False)
        used = clips_of([pair for group in groups for pair in group])
        without = [[Ablation(s, kind, heads) for kind in ranked for heads in SETS] for s in used]
        make = partial(ablation_rows, session, half=half, samples=used, seed=seed, **told)
        ablated = replace(this, rows=this.out / "ablated.csv", unit="ablation_id")
        run_folder.make_rows(ablated, Work(make, without, lambda a: a.name, steps(ranked)), overwrite=False)


def results(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> Results:
    sets, ablated = (read_table(f) if f.exists() else None for f in (out / "sets.csv", out / "ablated.csv"))
    tables = tables_of(rows, sets, ablated)
    tables |= free_text_tables(out, rows, unit="patch_id", answer="pred_patch", keys=("kind", "part"))
    return Results(tables, units_of(record), summary(tables) + free_text_summary(tables))


def summary(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return the rows of the terminal's table: the strongest parts of each kind, of texts that did not choose them."""
    found = component_effects(tables)
    rows = [terminal.header("logits")]
    for kind, cue in CUES.items():
        for f in [f for f in found if f.kind == kind][:_SHOWN]:
            rows.append(terminal.estimate(f"{cue}: {f.part.replace('_', ' ')} of block {f.layer}", f.effect_logit))
    for h in heads_together(tables):
        if h.half:
            rows.append(terminal.estimate(f"{CUES[h.kind]}: {h.heads} of {h.of} heads, share of all heads", h.share))
    for a in heads_ablated(tables):
        if a.carry == a.kind:
            rows.append(terminal.estimate(f"{CUES[a.kind]} without these, minus random ones", a.minus_random))
    return rows if found else ["too few pairs: no part is chosen on one half of the texts and estimated on the other"]


KIND = Kind("components.csv", "patch_id", results, plot_run, headline, main="strongest")
