"""The stages of `--intervention knockout`: rows of clips, their tables, figure and findings."""

import argparse
import time
from collections import Counter
from pathlib import Path

import pandas as pd

from activation_patching.knockout_findings import cut_effects, headline, routes
from activation_patching.knockout_plots import EDGES, WINDOWS, plot_run
from activation_patching.knockout_tables import tables_of
from activation_patching.windows import window_names
from common.clips.samples import conflict_clips, read_clips
from common.clips.samples import draw as draw_clips
from common.plotting import Look
from common.running import arguments, output, parallel, terminal
from common.running.identity import identify
from common.running.memory import Shared

CUES = {"semantic": "words", "prosody": "voice"}


def run(args: argparse.Namespace, shared: Shared | None, prompt: str, out: Path) -> None:
    began, model, question = time.time(), arguments.chosen_model(args), arguments.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels)
    windows = window_names(args.windows)
    asked = {"intervention": args.intervention, "windows": windows, "limit": args.limit, "seed": args.seed}
    asked |= {"skip_bad": args.skip_bad, "layers": args.layers}
    this = output.Run(
        out / "knockout.csv",
        "curve_id",
        identify("activation_patching", model=model, question=question, data=args.data, clips=clips, options=asked),
    )
    if not output.is_finished(this, overwrite=args.overwrite):
        from activation_patching.knockout_rows import curves_of, edges_of, maker, positions  # torch, which drawing does without
        from common.model.usable import left_out, usable_clips
        from common.running.session import open_session

        every = len(clips)
        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, Counter())
        conflict, dropped = conflict_clips(clips)
        drawn = draw_clips(conflict, args.limit, seed=args.seed)
        dropped += Counter({"over --limit": len(conflict) - len(drawn)}) + Counter({**others, **bad})
        form = output.recorded_form(this, overwrite=args.overwrite)
        session = open_session(model, question, drawn, engines=(), layers=args.layers, shared=shared, pool=clips, form=form)
        session = session.warned(left_out(bad, every))
        where, edges = positions(session.first), edges_of(session)
        keys = {"prefix without position 0": max(0, where.audio.start - 1), "audio": len(where.audio)}
        if not where.control:
            session = session.warned(
                f"no control: the prompt has {keys['prefix without position 0']} tokens before the audio to hide"
            )
        groups = curves_of(drawn, edges, windows)
        make, checked = maker(session, groups)
        if parallel.is_leader():
            print(f"{len(drawn)} clips x {len(edges)} edges x {len(windows)} windows x {session.describe(prompt)}")
        this = this.known(session.identity())
        work = output.Work(make, groups, lambda curve: curve.name, session.layers)
        if output.make_rows(this, work, overwrite=args.overwrite):
            facts = session.facts() | arguments.told(args, prompt) | {"keys_hidden": keys}
            facts["self_check"] |= checked
            output.finish(this, facts, {"clips": len(drawn), "dropped": dict(dropped)}, began=began)
    if parallel.is_leader():
        draw(args, prompt, out)


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = output.finished_run(out, "knockout.csv")
    tables = tables_of(rows)
    output.write_tables(out, tables, record)
    figures = plot_run(out, out, Look(formats=arguments.figure_formats(args), mark=output.mark_of(record)))
    units = f"{record['counts']['clips']} conflict clips · prompt {record['prompt_name']}"
    print(terminal.ended(record, units, summary(tables), out=out, figures=figures, following="python report/build.py"))


def summary(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return the rows of the terminal's table: by how much less the answers depend on each cue, and what is shown of routes."""
    found = cut_effects(tables)
    rows = [terminal.header("change")]
    for f in (f for f in found if f.window == "up_to"):
        what = f"{CUES[f.kind]}: {EDGES[f.edge]}"
        rows.append(terminal.estimate(what, f.effect if f.enough else None))
    for route in routes(found):
        rows.append(f"routes, {WINDOWS[route.window]}: words by {route.words.edge}, voice by {route.voice.edge}")
    return rows if len(found) else ["no inner layer has rows: no effect is estimated"]


def main_results(out: Path) -> pd.DataFrame:
    return headline({"summary": output.read_table(out, "summary")})
