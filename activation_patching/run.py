"""Experiment 2, activation patching: put one clip's audio states into another clip's run, at every layer."""

import sys
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from activation_patching.choose import choose_pairs, clips_of, engines_for, groups_of
from activation_patching.plots import plot_patching
from activation_patching.rows import patch_pairs
from activation_patching.tables import controls, headline, patch_tables, summary
from common.clips.pairs import KINDS
from common.clips.samples import read_manifest
from common.patching import ALIGNMENTS
from common.running import identity, output, parallel, rows
from common.running.arguments import argument_parser, fraction, main_of, whole_number
from common.running.prompts import over_prompts
from common.running.session import open_session


@over_prompts(headline, out=HERE / "outputs")
def main(argv: list[str] | None = None) -> None:
    parser = argument_parser(__doc__, out=HERE / "outputs")
    add = parser.add_argument
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what differs in a pair")
    add("--max-pairs", type=whole_number(1), default=1200, help="pairs of each kind, drawn with --seed")
    add("--pool", choices=("conflict", "all"), default="conflict", help="clips that pairs are built from")
    add("--align", choices=ALIGNMENTS, default="splice", help="for spans of unequal length; splice needs none")
    add("--controls", type=fraction, default=0.1, help="share of the pairs that are patched with control donors too")
    add("--cache-gb", type=float, help="main memory for recorded clips (default: a quarter of what is free)")
    args = parser.parse_args(argv)

    clips = read_manifest(args.data)
    pairs, counts = choose_pairs(clips, args)
    session = open_session(args, clips_of(pairs), engines=engines_for(args.align))
    if parallel.is_leader():
        print(f"{len(pairs)} pairs of {counts['clips']} clips x {session.describe(args.prompt)}")

    path, settings = args.out / "patches.csv", identity.identify(args, clips, session)
    finished, done = output.begin(args, path, settings, "pair_id", session.layers)
    todo = parallel.part_of([g for g in groups_of(pairs) if not done.issuperset(p.pair_id for p in g)])
    with tqdm(total=sum(map(len, todo)), desc="patching", unit="pair", disable=not parallel.is_leader()) as bar:
        for patched_rows in patch_pairs(session, todo, align=args.align, cache_gb=args.cache_gb):
            rows.append_rows(rows.own_part(path), patched_rows)
            bar.update(len(patched_rows) // session.layers)
    if not rows.complete(path, "pair_id", session.layers, order=[p.pair_id for p in pairs]):
        return

    patches = rows.read_rows(path)
    tables = patch_tables(patches, seed=args.seed)
    output.write_tables(args.out, tables)
    figures = plot_patching(args.out, subtitle=output.subtitle(args))
    if todo or not finished:
        output.close_output(args.out, settings, session, counts | controls(patches), began=args.began)
    print(summary(tables["layers"], tables["release_layer"]), output.files_written(args.out, path, tables, figures), sep="\n")


if __name__ == "__main__":
    main_of(main)
