"""Experiment 1, logit lens: what an audio language model would answer at every layer, on clips whose words and voice disagree."""

import sys
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common import parallel, runs
from common.arguments import argument_parser, main_of
from common.robustness import over_prompts
from common.samples import read_manifest
from common.session import open_session
from common.tracing import record
from logit_lens.lens import choose_clips, headline, lens_rows, lens_tables, summary
from logit_lens.plots import plot_lens


@over_prompts(headline, out=HERE / "outputs")
def run(argv: list[str] | None = None) -> None:
    args = argument_parser(__doc__, out=HERE / "outputs").parse_args(argv)

    clips = read_manifest(args.data)
    samples, counts = choose_clips(clips, limit=args.limit, seed=args.seed)
    session = open_session(args, samples)
    if parallel.leads():
        print(f"{counts['clips']} conflict and {counts['congruent clips']} congruent clips x {session.describe(args.prompt)}")

    rows, identity = args.out / "lens.csv", runs.identify(args, clips, session)
    finished, done = runs.begin(args, rows, identity, "sample_id", session.layers)
    todo = [s for s in samples if s.sample_id not in done]
    for sample in tqdm(parallel.share(todo), desc="lens", unit="clip", disable=not parallel.leads()):
        _, lens_logits = record(session.lm, session.encode(sample))
        runs.append_rows(runs.own_part(rows), lens_rows(session, sample, lens_logits))
    if not runs.complete(rows, "sample_id", session.layers, order=[s.sample_id for s in samples]):
        return

    tables = lens_tables(runs.read_rows(rows), seed=args.seed)
    runs.write_tables(args.out, tables)
    figures = plot_lens(args.out, subtitle=runs.subtitle(args))
    if todo or not finished:
        runs.close_output(args.out, identity, session, counts, began=args.began)
    print(summary(tables["layers"], tables["decision_layer"]), runs.files_written(args.out, rows, tables, figures), sep="\n")


if __name__ == "__main__":
    main_of(run)
