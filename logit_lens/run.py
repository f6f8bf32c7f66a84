"""Experiment 1, logit lens: what an audio language model would answer at every layer, on clips whose words and voice disagree."""

import argparse
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
if HERE.parent / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import prepare

prepare(__file__)

from common.clips.csvfile import read_table
from common.clips.samples import read_clips
from common.plotting import Look
from common.running import arguments, lock, output, parallel, terminal
from common.running.default_model import settle
from common.running.identity import identify
from common.running.memory import Shared
from common.running.noise import noise_of
from common.running.prompts import over_prompts
from logit_lens.choose import choose_clips, choose_speaking
from logit_lens.findings import headline, lens_findings
from logit_lens.options import add_options
from logit_lens.plots import plot_lens
from logit_lens.probe import probe_tables
from logit_lens.summary import summary, units_of
from logit_lens.tables import lens_tables


def main(argv: list[str] | None = None) -> None:
    parser = arguments.argument_parser(__doc__)
    add_options(parser)
    args = parser.parse_args(argv)
    below = settle(args)
    if args.plan:
        from logit_lens.plan import plan_run  # torch, which drawing does without

        return print(plan_run(args))
    args.command = arguments.command(HERE.name, argv)
    args.out = args.out or HERE / "outputs" / below / ("" if args.input == "audio" else args.input)
    with lock.held(args.out):
        over_prompts(args, run, draw, main_results)


def run(args: argparse.Namespace, shared: Shared | None, prompt: str, out: Path) -> None:
    began, model, question = time.time(), arguments.chosen_model(args), arguments.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels, texts=args.input != "audio" and not args.skip_bad)
    options = {name: getattr(args, name) for name in ("limit", "seed", "skip_bad", "layers", "lens", "generate", "probe")}
    identity = identify("logit_lens", model=model, question=question, data=args.data, clips=clips, options=options)
    this = output.Run(out / "lens.csv", "sample_id", identity)
    if not output.is_finished(this, overwrite=args.overwrite):
        from common.model.usable import left_out, usable_clips  # torch, which drawing does without
        from common.running.session import open_session
        from logit_lens.rows import layers_of
        from logit_lens.tuned import tuned_lens
        from logit_lens.untrained import open_states, record_untrained

        every = len(clips)
        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, Counter())
        samples, counts = choose_clips(clips, limit=args.limit, seed=args.seed)
        counts["dropped"] |= {**others, **bad}
        form = output.recorded_form(this, overwrite=args.overwrite)
        session = open_session(model, question, samples, engines=(), layers=args.layers, shared=shared, pool=clips, form=form)
        session = session.warned(left_out(bad, every))
        if parallel.is_leader():
            print(f"{counts['clips']} conflict and {counts['congruent clips']} congruent clips x {session.describe(prompt)}")
        maps = tuned_lens(session, samples) if args.lens == "tuned" else None
        speaking = choose_speaking(samples, args.generate, seed=args.seed)
        states, whole = open_states(session, samples, out) if args.probe else (None, set)
        make = partial(layers_of, session, maps=maps, speaking=speaking, states=states and states[0])
        work = output.Work(make, [[s] for s in samples], lambda s: s.sample_id, session.layers, whole)
        finished = output.make_rows(this := this.known(session.identity()), work, overwrite=args.overwrite)
        more = record_untrained(session, samples, states, seed=args.seed) if states else []
        if finished:
            rows = read_table(this.rows)
            noise, warnings = noise_of(rows)
            facts = session.warned(*warnings, *more).facts() | arguments.told(args, prompt)
            output.finish(this, facts, counts | noise, began=began)
    if parallel.is_leader():
        draw(args, prompt, out)


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = output.finished_run(out, "lens.csv")
    probed, lacking = probe_tables(out, record, rows)
    output.write_tables(out, tables := lens_tables(rows) | probed, record)
    figures = plot_lens(out, out, Look(formats=arguments.figure_formats(args), mark=output.mark_of(record)))
    following = terminal.following("activation_patching/run.py", record, arguments.DEFAULTS)
    found = [*summary(lens_findings(tables), record["identity"].get("input", "audio")), *lacking]
    print(terminal.ended(record, units_of(record), found, out=out, figures=figures, following=following))


def main_results(out: Path) -> pd.DataFrame:
    return headline({"layers": output.read_table(out, "layers")})


if __name__ == "__main__":
    arguments.main_of(main)
