"""Experiment 1, logit lens: what an audio language model would answer at every layer, on clips whose words and voice disagree."""

import sys
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common.clips.samples import read_manifest
from common.patching.tracing import record
from common.running import identity, output, parallel, rows
from common.running.arguments import argument_parser, main_of
from common.running.prompts import over_prompts
from common.running.session import open_session
from logit_lens.choose import choose_clips
from logit_lens.plots import plot_lens
from logit_lens.rows import lens_rows
from logit_lens.tables import headline, lens_tables, summary


@over_prompts(headline, out=HERE / "outputs")
def main(argv: list[str] | None = None) -> None:
    args = argument_parser(__doc__, out=HERE / "outputs").parse_args(argv)

    clips = read_manifest(args.data)
    samples, counts = choose_clips(clips, limit=args.limit, seed=args.seed)
    session = open_session(args, samples)
    if parallel.is_leader():
        print(f"{counts['clips']} conflict and {counts['congruent clips']} congruent clips x {session.describe(args.prompt)}")

    path, settings = args.out / "lens.csv", identity.identify(args, clips, session)
    finished, done = output.begin(args, path, settings, "sample_id", session.layers)
    todo = [s for s in samples if s.sample_id not in done]
    for sample in tqdm(parallel.part_of(todo), desc="lens", unit="clip", disable=not parallel.is_leader()):
        _, lens_logits = record(session.lm, session.encode(sample))
        rows.append_rows(rows.own_part(path), lens_rows(session, sample, lens_logits))
    if not rows.complete(path, "sample_id", session.layers, order=[s.sample_id for s in samples]):
        return

    tables = lens_tables(rows.read_rows(path), seed=args.seed)
    output.write_tables(args.out, tables)
    figures = plot_lens(args.out, subtitle=output.subtitle(args))
    if todo or not finished:
        output.close_output(args.out, settings, session, counts, began=args.began)
    print(summary(tables), output.files_written(args.out, path, tables, figures), sep="\n")


if __name__ == "__main__":
    main_of(main)
