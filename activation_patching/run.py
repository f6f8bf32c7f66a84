"""Experiment 2, activation patching: put one clip's audio states into another clip's run, at every layer."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from activation_patching.patching import choose_pairs, clips_of, controls, engines_for, groups_of, patch_pairs, summary
from activation_patching.plots import plot_patching
from common import parallel, runs
from common.arguments import argument_parser, main_of, whole_number
from common.engines import ALIGNMENTS
from common.metrics import patch_layers
from common.samples import KINDS, read_manifest
from common.session import open_session


def run(argv: list[str] | None = None) -> None:
    parser = argument_parser(__doc__, out=HERE / "outputs")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what differs in a pair")
    parser.add_argument("--max-pairs", type=whole_number(1), default=1200, help="pairs of each kind, drawn with --seed")
    parser.add_argument("--pool", choices=("conflict", "all"), default="conflict", help="clips that pairs are built from")
    parser.add_argument("--align", choices=ALIGNMENTS, default="splice", help="for spans of unequal length; splice needs none")
    parser.add_argument("--cache-gb", type=float, help="main memory for recorded clips (default: a quarter of what is free)")
    args = parser.parse_args(argv)
    began = time.time()

    clips = read_manifest(args.data)
    pairs, counts = choose_pairs(
        clips, pool=args.pool, limit=args.limit, kinds=args.kinds, max_pairs=args.max_pairs, seed=args.seed
    )
    session = open_session(args, clips_of(pairs), engines=engines_for(args.align))
    if parallel.leads():
        print(f"{len(pairs)} pairs of {counts['clips']} clips x {session.describe(args.prompt)}")

    rows, identity = args.out / "patches.csv", runs.identify(args, clips, session)
    finished, done = runs.begin(args, rows, identity, "pair_id", session.layers)
    todo = parallel.share(groups_of([p for p in pairs if p.pair_id not in done]))
    with tqdm(total=sum(map(len, todo)), desc="patching", unit="pair", disable=not parallel.leads()) as bar:
        for patched_rows in patch_pairs(session, todo, align=args.align, cache_gb=args.cache_gb):
            runs.append_rows(runs.own_part(rows), patched_rows)
            bar.update(len(patched_rows) // session.layers)
    if not runs.complete(rows, "pair_id", session.layers, order=[p.pair_id for p in pairs]):
        return

    patches = runs.read_rows(rows)
    table = patch_layers(patches, seed=args.seed)
    table.to_csv(args.out / "layers.csv", index=False, float_format="%.6f")
    figures = plot_patching(args.out, subtitle=runs.subtitle(args))
    if todo or not finished:
        runs.close_output(args.out, identity, session, counts | {"controls": controls(patches)}, began=began)
    print(summary(table), runs.files_written(args.out, rows.name, *figures), sep="\n")


if __name__ == "__main__":
    main_of(run)
