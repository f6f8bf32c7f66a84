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

from activation_patching import component_run, knockout_run, options
from activation_patching.choose import choose_pairs, clips_of, groups_of, unseen_clips
from activation_patching.findings import headline
from activation_patching.plots import plot_run
from activation_patching.summary import summary, units_of
from activation_patching.tables import tables_of
from common.clips.csvfile import read_table
from common.clips.samples import read_clips
from common.plotting import Look
from common.running import arguments, lock, output, parallel, terminal
from common.running.default_model import settle
from common.running.identity import identify
from common.running.memory import Shared
from common.running.noise import noise_of, own_run_differences
from common.running.prompts import over_prompts


def main(argv: list[str] | None = None) -> None:
    parser = arguments.argument_parser(__doc__)
    arguments.add_pair_rules(parser)
    options.add_patching(parser)
    args = parser.parse_args(argv)
    below = settle(args)
    if args.plan:
        from activation_patching.plan import plan_run  # torch, which drawing does without

        return print(plan_run(args))
    args.command = arguments.command(HERE.name, argv)
    args.out = args.out or HERE / "outputs" / below / ("" if args.intervention == "span" else args.intervention)
    options.check_alone(args)
    others = {"knockout": knockout_run, "components": component_run}
    stages: Any = others.get(args.intervention, sys.modules[__name__])
    with lock.held(args.out):
        over_prompts(args, stages.run, stages.draw, stages.main_results)


def run(args: argparse.Namespace, shared: Shared | None, prompt: str, out: Path) -> None:
    began, model, question = time.time(), arguments.chosen_model(args), arguments.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels)
    how = options.chosen_intervention(args, len(question.labels))
    choice = {"limit": args.limit, "seed": args.seed, "controls": args.controls, **arguments.pair_options(args)}
    asked = arguments.recorded(choice) | {**asdict(how), "skip_bad": args.skip_bad, "layers": args.layers}
    identity = identify("activation_patching", model=model, question=question, data=args.data, clips=clips, options=asked)
    this = output.Run(out / "patches.csv", "pair_id", identity)
    if not output.is_finished(this, overwrite=args.overwrite):
        from activation_patching.edit_rows import maker  # torch, which drawing does without
        from common.model.usable import left_out, usable_clips
        from common.running.session import open_session

        every = len(clips)
        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, Counter())
        pairs, counts = choose_pairs(clips, labels=question.labels, **choice, intervention=how.intervention)
        counts["dropped"] |= {**others, **bad}
        unseen = None if how.whole_span else unseen_clips(clips, pairs, seed=args.seed)
        used = unseen.clips if unseen else clips_of(pairs)
        measured: dict[str, Any] = {"pool": clips, "form": output.recorded_form(this, overwrite=args.overwrite)}
        session = open_session(model, question, used, engines=how.engines, layers=args.layers, shared=shared, **measured)
        session = session.warned(left_out(bad, every), *counts.pop("warnings"))
        if parallel.is_leader():
            print(f"{len(pairs)} pairs of {counts['clips']} clips x {session.describe(prompt)}")
        this = this.known(session.identity())
        groups = groups_of(pairs, how.intervention)
        make, checked = maker(session, groups, how, unseen, seed=args.seed, earlier=this.rows, cache_gb=args.cache_gb)
        work = output.Work(make, groups, lambda p: p.pair_id, session.layers)
        if output.make_rows(this, work, overwrite=args.overwrite):
            rows = read_table(this.rows)
            noise, warnings = noise_of(rows, engine=session.engine)
            facts = session.warned(*warnings).facts() | arguments.told(args, prompt)
            facts["self_check"] |= checked  # of edits
            output.finish(this, facts, counts | own_run_differences(rows) | noise, began=began)
    if parallel.is_leader():
        draw(args, prompt, out)


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = output.finished_run(out, "patches.csv")
    tables = tables_of(rows)
    output.write_tables(out, tables, record)
    figures = plot_run(out, out, Look(formats=arguments.figure_formats(args), mark=output.mark_of(record)))
    found = summary(tables, record["identity"]["intervention"])
    print(terminal.ended(record, units_of(record), found, out=out, figures=figures, following="python report/build.py"))


def main_results(out: Path) -> pd.DataFrame:
    return headline({"summary": output.read_table(out, "summary")})


if __name__ == "__main__":
    arguments.main_of(main)
