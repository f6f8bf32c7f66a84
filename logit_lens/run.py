"""Experiment 1, logit lens: what an audio language model would answer at every layer, on clips whose words and voice disagree."""

import sys
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common.clips.samples import read_manifest
from common.running import identity, output, parallel, rows
from common.running.arguments import argument_parser, main_of, model_options
from common.running.noise import noise_of
from common.running.prompts import over_prompts
from common.running.session import open_session
from logit_lens.choose import choose_clips
from logit_lens.plots import plot_lens
from logit_lens.rows import read_layers
from logit_lens.tables import headline, lens_tables, summary


@over_prompts(headline, out=HERE / "outputs")
def main(argv: list[str] | None = None) -> None:
    args = argument_parser(__doc__, out=HERE / "outputs").parse_args(argv)

    clips = read_manifest(args.data)
    samples, counts = choose_clips(clips, limit=args.limit, seed=args.seed)
    session = open_session(samples, engines=(), **model_options(args))
    if parallel.is_leader():
        print(f"{counts['clips']} conflict and {counts['congruent clips']} congruent clips x {session.describe(args.prompt)}")

    path, settings = args.out / "lens.csv", identity.identify(args, clips, session)
    finished, done = output.begin(args, path, settings, "sample_id", session.layers)
    todo = [s for s in samples if s.sample_id not in done]
    for sample in tqdm(parallel.part_of(todo), desc="lens", unit="clip", disable=not parallel.is_leader()):
        rows.append_rows(rows.own_part(path), read_layers(session, sample))
    if not rows.complete(path, "sample_id", session.layers, order=[s.sample_id for s in samples]):
        return

    lens = rows.read_rows(path)
    noise, warnings = noise_of(lens)
    tables = lens_tables(lens, seed=args.seed)
    output.write_tables(args.out, tables)
    figures = plot_lens(args.out, subtitle=output.subtitle(args))
    if todo or not finished:
        output.close_output(args.out, settings, session.warned(*warnings), counts | noise, began=args.began)
    print(*(f"warning: {w}" for w in warnings), sep="\n", end="\n" * bool(warnings))
    print(summary(tables["layers"], tables["decision_layer"]), output.files_written(args.out, path, tables, figures), sep="\n")


if __name__ == "__main__":
    main_of(main)
