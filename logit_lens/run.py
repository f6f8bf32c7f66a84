"""Experiment 1, logit lens: what an audio language model would answer at every layer, on clips whose words and voice disagree."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common import parallel, runs
from common.arguments import argument_parser, main_of
from common.metrics import lens_layers
from common.samples import read_manifest
from common.session import open_session
from common.tracing import record
from logit_lens.lens import choose_clips, lens_rows, summary
from logit_lens.plots import FIGURES, plot_lens


def run(argv: list[str] | None = None) -> None:
    args = argument_parser(__doc__, out=HERE / "outputs").parse_args(argv)
    began = time.time()

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

    table = lens_layers(runs.read_rows(rows), seed=args.seed)
    table.to_csv(args.out / "layers.csv", index=False, float_format="%.6f")
    plot_lens(args.out, subtitle=runs.subtitle(args))
    if todo or not finished:
        runs.close_output(args.out, identity, session, counts, began=began)
    print(summary(table), runs.files_written(args.out, rows.name, *FIGURES), sep="\n")


if __name__ == "__main__":
    main_of(run)
