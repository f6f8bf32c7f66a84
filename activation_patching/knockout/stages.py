"""The stages of `--intervention knockout`: rows, tables, figure, summary."""

import argparse
import time
from collections import Counter
from pathlib import Path

import pandas as pd

from activation_patching.knockout.findings import cut_effects, headline, routes
from activation_patching.knockout.plots import EDGES, WINDOWS, plot_run
from activation_patching.knockout.tables import tables_of
from activation_patching.knockout.windows import window_names
from common import processes
from common.clips.manifest import conflict_clips, read_clips
from common.clips.manifest import draw as draw_clips
from common.clips.pairs import CUES
from common.compute.memory import PrefixCacheStore
from common.plotting import FigureStyle
from common.run import command_line, run_folder, terminal
from common.run.record import identify


def run(args: argparse.Namespace, shared: PrefixCacheStore | None, prompt: str, out: Path) -> None:
    began, model, question = time.time(), command_line.chosen_model(args), command_line.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels)
    windows = window_names(args.windows)
    asked = {"intervention": args.intervention, "windows": windows, "limit": args.limit, "seed": args.seed}
    asked |= {"skip_bad": args.skip_bad, "layers": args.layers}
    this = run_folder.Run(
        out / "knockout.csv",
        "curve_id",
        identify("activation_patching", model=model, question=question, data=args.data, clips=clips, options=asked),
    )
    if not run_folder.is_finished(this, overwrite=args.overwrite):
        from activation_patching.knockout.rows import curves_of, edges_of, maker, positions  # torch, which drawing does without
        from common.compute.session import open_session
        from common.compute.usable_clips import left_out, usable_clips

        every = len(clips)
        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, Counter())
        conflict, dropped = conflict_clips(clips)
        drawn = draw_clips(conflict, args.limit, seed=args.seed)
        dropped += Counter({"over --limit": len(conflict) - len(drawn)}) + Counter({**others, **bad})
        form = run_folder.recorded_form(this, overwrite=args.overwrite)
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
        if processes.is_leader():
            print(f"{len(drawn)} clips x {len(edges)} edges x {len(windows)} windows x {session.describe(prompt)}")
        this = this.known(session.identity())
        work = run_folder.Work(make, groups, lambda curve: curve.name, session.layers)
        if run_folder.make_rows(this, work, overwrite=args.overwrite):
            facts = session.facts() | command_line.told(args, prompt) | {"keys_hidden": keys}
            facts["self_check"] |= checked
            run_folder.finish(this, facts, {"clips": len(drawn), "dropped": dict(dropped)}, began=began)
    if processes.is_leader():
        draw(args, prompt, out)


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = run_folder.finished_run(out, "knockout.csv")
    tables = tables_of(rows)
    run_folder.write_tables(out, tables, record)
    figures = plot_run(out, out, FigureStyle(formats=command_line.figure_formats(args), mark=run_folder.mark_of(record)))
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
    return headline({"summary": run_folder.read_table(out, "summary")})
