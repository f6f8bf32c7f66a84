"""Experiment 1, logit lens: what an audio language model would answer at every layer, on clips whose words and voice disagree."""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
if HERE.parent / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import prepare

prepare(__file__)

from common import processes
from common.clips.csvfile import read_table
from common.clips.manifest import read_clips
from common.compute.memory import PrefixCacheStore
from common.compute.noise import noise_of
from common.plotting import FigureStyle
from common.run import command_line, lock, run_folder, terminal
from common.run.default_model import settle
from common.run.over_prompts import over_prompts
from common.run.record import identify
from logit_lens.choose import choose_clips
from logit_lens.findings import headline, lens_findings
from logit_lens.fitted.probe import probe_tables
from logit_lens.options import add_options
from logit_lens.plots import plot_lens
from logit_lens.stages.plots import plot_stages
from logit_lens.stages.tables import stage_tables
from logit_lens.summary import summary, units_of
from logit_lens.tables import lens_tables


def main(argv: list[str] | None = None) -> None:
    parser = command_line.argument_parser(__doc__)
    add_options(parser)
    args = parser.parse_args(argv)
    below = settle(args)
    if args.plan:
        from logit_lens.plan import plan_run  # torch, which drawing does without

        return print(plan_run(args))
    args.command = command_line.command(HERE.name, argv)
    args.out = args.out or HERE / "outputs" / below / ("" if args.input == "audio" else args.input)
    with lock.held(args.out):
        over_prompts(args, run, draw, main_results)


def run(args: argparse.Namespace, shared: PrefixCacheStore | None, prompt: str, out: Path) -> None:
    began, model, question = time.time(), command_line.chosen_model(args), command_line.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels, texts=args.input != "audio" and not args.skip_bad)
    options = {name: getattr(args, name) for name in ("limit", "seed", "skip_bad", "layers", "lens", "generate", "probe")}
    identity = identify("logit_lens", model=model, question=question, data=args.data, clips=clips, options=options)
    this = run_folder.Run(out / "lens.csv", "sample_id", identity)
    if not run_folder.is_finished(this, overwrite=args.overwrite):
        from common.compute.session import open_session
        from common.compute.usable_clips import left_out, usable_clips  # torch, which drawing does without
        from logit_lens.fitted.random_weights import record_untrained
        from logit_lens.rows import maker

        every = len(clips)
        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, Counter())
        samples, counts = choose_clips(clips, limit=args.limit, seed=args.seed)
        counts["dropped"] |= {**others, **bad}
        form = run_folder.recorded_form(this, overwrite=args.overwrite)
        session = open_session(model, question, samples, engines=(), layers=args.layers, shared=shared, pool=clips, form=form)
        session = session.warned(left_out(bad, every))
        if processes.is_leader():
            print(f"{counts['clips']} conflict and {counts['congruent clips']} congruent clips x {session.describe(prompt)}")
        made = maker(session, samples, out, lens=args.lens, generate=args.generate, probe=args.probe, seed=args.seed)
        work = run_folder.Work(made.make, [[s] for s in samples], lambda s: s.sample_id, session.layers, made.whole)
        finished = run_folder.make_rows(this := this.known(session.identity()), work, overwrite=args.overwrite)
        more = record_untrained(session, samples, made.states, seed=args.seed) if made.states else []
        if finished:
            rows = read_table(this.rows)
            noise, warnings = noise_of(rows)
            facts = session.warned(*warnings, *more).facts() | command_line.told(args, prompt)
            run_folder.finish(this, facts, counts | noise, began=began)
    if processes.is_leader():
        draw(args, prompt, out)


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = run_folder.finished_run(out, "lens.csv")
    probed, lacking = probe_tables(out, record, rows)
    staged, lacking_too = stage_tables(out, record, rows)
    run_folder.write_tables(out, tables := lens_tables(rows) | probed | staged, record)
    style = FigureStyle(formats=command_line.figure_formats(args), mark=run_folder.mark_of(record))
    figures = [*plot_lens(out, out, style), *plot_stages(out, out, style)]
    following = terminal.following("activation_patching/run.py", record, command_line.DEFAULTS)
    found = [*summary(lens_findings(tables), record["identity"].get("input", "audio")), *lacking, *lacking_too]
    print(terminal.ended(record, units_of(record), found, out=out, figures=figures, following=following))


def main_results(out: Path) -> pd.DataFrame:
    return headline({"layers": run_folder.read_table(out, "layers")})


if __name__ == "__main__":
    command_line.main_of(main)
