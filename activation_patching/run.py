"""Experiment 2, activation patching: put one clip's audio states into another clip's run, at every layer."""

import argparse
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
if HERE.parent / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import prepare

prepare(__file__)

from activation_patching import options
from activation_patching.choose import choose_pairs, clips_of, groups_of, held_out_clips
from activation_patching.components import stages as components
from activation_patching.knockout import stages as knockout
from activation_patching.scale import stages as scale
from activation_patching.span.findings import headline
from activation_patching.span.plots import plot_run
from activation_patching.span.summary import summary, units_of
from activation_patching.span.tables import tables_of
from common import processes
from common.clips.csvfile import read_table
from common.clips.manifest import read_clips
from common.compute.memory import PrefixCacheStore
from common.compute.noise import noise_of, own_run_differences
from common.plotting import FigureStyle
from common.run import command_line, lock, run_folder, terminal
from common.run.default_model import settle
from common.run.over_prompts import over_prompts
from common.run.record import identify


def main(argv: list[str] | None = None) -> None:
    parser = command_line.argument_parser(__doc__)
    command_line.add_pair_rules(parser)
    options.add_patching(parser)
    args = parser.parse_args(argv)
    below = settle(args)
    if args.plan:
        from activation_patching.plan import plan_run  # torch, which drawing does without

        return print(plan_run(args))
    args.command = command_line.command(HERE.name, argv)
    args.out = args.out or HERE / "outputs" / below / ("" if args.intervention == "span" else args.intervention)
    options.check_alone(args)
    others = {"knockout": knockout, "components": components, "scale": scale}
    stages: Any = others.get(args.intervention, sys.modules[__name__])
    with lock.held(args.out):
        over_prompts(args, stages.run, stages.draw, stages.main_results)


def run(args: argparse.Namespace, shared: PrefixCacheStore | None, prompt: str, out: Path) -> None:
    began, model, question = time.time(), command_line.chosen_model(args), command_line.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels)
    how = options.chosen_intervention(args, len(question.labels))
    choice = {"limit": args.limit, "seed": args.seed, "controls": args.controls, **command_line.pair_options(args)}
    asked = command_line.recorded(choice) | {**asdict(how), "skip_bad": args.skip_bad, "layers": args.layers}
    identity = identify("activation_patching", model=model, question=question, data=args.data, clips=clips, options=asked)
    this = run_folder.Run(out / "patches.csv", "pair_id", identity)
    if not run_folder.is_finished(this, overwrite=args.overwrite):
        from activation_patching.subspace.rows import maker  # torch, which drawing does without
        from common.compute.session import open_session
        from common.compute.usable_clips import left_out, usable_clips

        every = len(clips)
        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, Counter())
        pairs, counts = choose_pairs(clips, labels=question.labels, **choice, intervention=how.intervention)
        counts["dropped"] |= {**others, **bad}
        held_out = None if how.whole_span else held_out_clips(clips, pairs, seed=args.seed)
        used = held_out.clips if held_out else clips_of(pairs)
        measured: dict[str, Any] = {"pool": clips, "form": run_folder.recorded_form(this, overwrite=args.overwrite)}
        session = open_session(model, question, used, engines=how.engines, layers=args.layers, shared=shared, **measured)
        session = session.warned(left_out(bad, every), *counts.pop("warnings"))
        if processes.is_leader():
            print(f"{len(pairs)} pairs of {counts['clips']} clips x {session.describe(prompt)}")
        this = this.known(session.identity())
        groups = groups_of(pairs, how.intervention)
        make, checked = maker(session, groups, how, held_out, seed=args.seed, earlier=this.rows, cache_gb=args.cache_gb)
        work = run_folder.Work(make, groups, lambda p: p.pair_id, session.layers)
        if run_folder.make_rows(this, work, overwrite=args.overwrite):
            rows = read_table(this.rows)
            noise, warnings = noise_of(rows, engine=session.engine)
            facts = session.warned(*warnings).facts() | command_line.told(args, prompt)
            facts["self_check"] |= checked  # of edits
            run_folder.finish(this, facts, counts | own_run_differences(rows) | noise, began=began)
    if processes.is_leader():
        draw(args, prompt, out)


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = run_folder.finished_run(out, "patches.csv")
    tables = tables_of(rows)
    run_folder.write_tables(out, tables, record)
    figures = plot_run(out, out, FigureStyle(formats=command_line.figure_formats(args), mark=run_folder.mark_of(record)))
    found = summary(tables, record["identity"]["intervention"])
    print(terminal.ended(record, units_of(record), found, out=out, figures=figures, following="python report/build.py"))


def main_results(out: Path) -> pd.DataFrame:
    return headline({"summary": run_folder.read_table(out, "summary")})


if __name__ == "__main__":
    command_line.main_of(main)
