"""The stages of `--intervention components`: rows, tables, figure, summary."""

import argparse
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from activation_patching.choose import choose_pairs, clips_of, groups_of, half_of
from activation_patching.components.findings import component_effects, headline, heads_ablated, heads_together
from activation_patching.components.plots import plot_run
from activation_patching.components.tables import tables_of
from activation_patching.span.summary import units_of
from common import processes
from common.clips.csvfile import read_table
from common.clips.manifest import read_clips
from common.clips.pairs import CUES, Pair
from common.compute.memory import PrefixCacheStore
from common.plotting import FigureStyle
from common.run import command_line, run_folder, terminal
from common.run.record import identify

_SHOWN = 5  # of the strongest parts of each kind


def run(args: argparse.Namespace, shared: PrefixCacheStore | None, prompt: str, out: Path) -> None:
    began, model, question = time.time(), command_line.chosen_model(args), command_line.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels)
    choice = {"limit": args.limit, "seed": args.seed, "controls": False, **command_line.pair_options(args)}
    asked = command_line.recorded(choice) | {"intervention": args.intervention, "skip_bad": args.skip_bad, "layers": args.layers}
    identity = identify("activation_patching", model=model, question=question, data=args.data, clips=clips, options=asked)
    this = run_folder.Run(out / "components.csv", "patch_id", identity)
    if not run_folder.is_finished(this, overwrite=args.overwrite):
        from activation_patching.components.checks import no_attribution  # torch, which drawing does without
        from activation_patching.components.rows import blocks_of, maker, parts_of, patches_of
        from common.compute.session import open_session
        from common.compute.usable_clips import left_out, usable_clips

        every = len(clips)
        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, Counter())
        pairs, counts = choose_pairs(clips, labels=question.labels, **choice, intervention=args.intervention)
        counts["dropped"] |= {**others, **bad}
        form = run_folder.recorded_form(this, overwrite=args.overwrite)
        used = clips_of(pairs)
        session = open_session(model, question, used, engines=(), layers=args.layers, shared=shared, pool=clips, form=form)
        session = session.warned(left_out(bad, every), *counts.pop("warnings"))
        parts, half = parts_of(session), half_of(clips, seed=args.seed)
        of_recipient = groups_of(pairs, args.intervention)
        groups = [patches_of(group, parts, half) for group in of_recipient]
        session = session.warned(no_attribution(session, parts))
        make, checked = maker(session, groups, parts, cache_gb=args.cache_gb)
        if processes.is_leader():
            print(f"{len(pairs)} pairs of {counts['clips']} clips x parts of {session.describe(prompt)}")
        this = this.known(session.identity())
        work = run_folder.Work(make, groups, lambda patch: patch.name, blocks_of(session))
        leads = run_folder.make_rows(this, work, overwrite=args.overwrite)
        if _heads_together(this, leads, session, parts, of_recipient, half, args):
            facts = session.facts() | command_line.told(args, prompt)
            facts["self_check"] |= checked
            run_folder.finish(this, facts, counts, began=began)
    if processes.is_leader():
        draw(args, prompt, out)


def _heads_together(
    this: run_folder.Run,
    leads: bool,
    session: Any,
    parts: Any,
    groups: list[list[Pair]],
    half: dict[str, int],
    args: argparse.Namespace,
) -> bool:
    """Make the rows of the strongest heads put together, and taken out of clips; return True to the process that goes on.

    They are ranked by the rows of single heads. Nothing is made where the texts make no two halves.
    """
    from activation_patching.components.ablation_rows import SETS, Ablation, ablation_rows
    from activation_patching.components.rows import Patch
    from activation_patching.components.set_rows import ranked_heads, set_rows, steps

    ranked = processes.broadcast(ranked_heads(read_table(this.rows)) if leads else None)
    if not ranked:
        return leads
    told = {"parts": parts, "ranked": ranked, "cache_gb": args.cache_gb}
    together = [[Patch(p, "together", half[p.recipient.sample_id]) for p in group if p.kind in ranked] for group in groups]
    sets = run_folder.Work(partial(set_rows, session, **told), list(filter(None, together)), lambda p: p.name, steps(ranked))
    run_folder.make_rows(replace(this, rows=this.out / "sets.csv"), sets, overwrite=False)
    used = clips_of([pair for group in groups for pair in group])
    without = [[Ablation(s, kind, heads) for kind in ranked for heads in SETS] for s in used]
    make = partial(ablation_rows, session, half=half, samples=used, seed=args.seed, **told)
    ablated = replace(this, rows=this.out / "ablated.csv", unit="ablation_id")
    return run_folder.make_rows(ablated, run_folder.Work(make, without, lambda a: a.name, steps(ranked)), overwrite=False)


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = run_folder.finished_run(out, "components.csv")
    sets, ablated = (read_table(f) if f.exists() else None for f in (out / "sets.csv", out / "ablated.csv"))
    tables = tables_of(rows, sets, ablated)
    run_folder.write_tables(out, tables, record)
    figures = plot_run(out, out, FigureStyle(formats=command_line.figure_formats(args), mark=run_folder.mark_of(record)))
    following = "python report/build.py"
    print(terminal.ended(record, units_of(record), summary(tables), out=out, figures=figures, following=following))


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


def main_results(out: Path) -> pd.DataFrame:
    return headline({"strongest": run_folder.read_table(out, "strongest")})
