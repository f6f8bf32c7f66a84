"""Experiment 2, activation patching: put one clip's audio states into another clip's run, at every layer."""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from activation_patching.choose import choose_pairs, clips_of, engines_for, groups_of
from activation_patching.plots import plot_patching
from activation_patching.tables import controls, headline, patch_tables, summary
from common.clips.samples import read_clips
from common.patching import ALIGNMENTS
from common.plotting import Look
from common.running import arguments, lock, output, parallel
from common.running.identity import identify
from common.running.noise import noise_of
from common.running.prompts import over_prompts


def main(argv: list[str] | None = None) -> None:
    parser = arguments.argument_parser(__doc__, out=HERE / "outputs")
    arguments.add_pair_rules(parser)
    add = parser.add_argument_group("patching").add_argument
    add("--align", choices=ALIGNMENTS, default="splice", help="for spans of unequal length; splice (default) needs none")
    add("--controls", type=arguments.fraction, default=1.0, metavar="SHARE", help="of the pairs, with control donors too (1)")
    add("--cache-gb", type=float, metavar="GB", help="main memory for recorded clips (default: a quarter of what is free)")
    args = parser.parse_args(argv)
    one = partial(draw if args.redraw else run, args)
    with lock.held(args.out):
        over_prompts(args.prompt, args.out, one, headline) if args.prompts == "all" else one(args.prompt, args.out)


def run(args: argparse.Namespace, prompt: str, out: Path) -> None:
    began, model, question = time.time(), arguments.chosen_model(args), arguments.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels)
    choice = {"limit": args.limit, "seed": args.seed, "controls": args.controls, **arguments.pair_options(args)}
    options = arguments.recorded(choice) | {"align": args.align, "skip_bad": args.skip_bad}
    identity = identify("activation_patching", model=model, question=question, data=args.data, clips=clips, options=options)
    this = output.Run(out / "patches.csv", "pair_id", identity)
    if not output.is_finished(this, overwrite=args.overwrite):
        from activation_patching.rows import patch_pairs  # torch, which drawing does without
        from activation_patching.spans import check_spans
        from common.model.usable import usable_clips
        from common.running.session import open_session

        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, {})
        pairs, counts = choose_pairs(clips, **choice)
        counts["dropped"] |= {**others, **bad}
        session = open_session(model, question, clips_of(pairs), engines=engines_for(args.align))
        check_spans(session, pairs, args.align)
        session = session.warned(*counts.pop("warnings"))
        if parallel.is_leader():
            print(f"{len(pairs)} pairs of {counts['clips']} clips x {session.describe(prompt)}")
        this = this.known(session.identity())
        make = partial(patch_pairs, session, of=len(pairs), earlier=this.rows, align=args.align, cache_gb=args.cache_gb)
        work = output.Work(make, groups_of(pairs), lambda p: p.pair_id, session.layers)
        if output.make_rows(this, work, overwrite=args.overwrite):
            rows = output.read_rows(this.rows)
            noise, warnings = noise_of(rows, engine=session.engine)
            facts = session.warned(*warnings).facts() | {"prompt_name": prompt}
            output.finish(this, facts, counts | controls(rows) | noise, began=began)
    if parallel.is_leader():
        draw(args, prompt, out)


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = output.finished_run(out, "patches.csv")
    tables = patch_tables(rows, seed=record["identity"]["seed"])
    output.write_tables(out, tables)
    plot_patching(out, out, Look(output.subtitle(record), svg=args.svg))
    print(summary(tables), f"written to {out}", sep="\n")


if __name__ == "__main__":
    arguments.main_of(main)
