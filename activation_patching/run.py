"""Experiment 2, activation patching: put one clip's audio states into another clip's run, at every layer."""

import sys
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from activation_patching.patching import build_all_pairs, clips_of, controls, patch_pairs, record_clips, summary
from activation_patching.plots import figure_names, plot_patching
from common import runs
from common.arguments import argument_parser, main_of, whole_number
from common.metrics import patch_layers
from common.samples import KINDS, conflict_clips, draw, read_manifest
from common.session import open_session


def run(argv: list[str] | None = None) -> None:
    parser = argument_parser(__doc__, out=HERE / "outputs")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what differs in a pair")
    parser.add_argument("--max-pairs", type=whole_number(1), default=1200, help="pairs of each kind, drawn with --seed")
    parser.add_argument("--pool", choices=("conflict", "all"), default="conflict", help="clips that pairs are built from")
    args = parser.parse_args(argv)
    began = time.time()

    clips = read_manifest(args.data)
    pool, dropped = conflict_clips(clips) if args.pool == "conflict" else (clips, Counter())
    drawn = draw(pool, args.limit, seed=args.seed)
    pairs, pair_counts = build_all_pairs(drawn, args.kinds, max_pairs=args.max_pairs, seed=args.seed)
    samples = clips_of(pairs)
    dropped.update({"over --limit": len(pool) - len(drawn), "in no pair": len(drawn) - len(samples)})
    session = open_session(args, samples)
    print(f"{len(pairs)} pairs of {len(samples)} clips x {session.describe(args.prompt)}")

    rows, identity = args.out / "patches.csv", runs.identify(args, clips, session)
    finished = runs.open_output(args.out, rows, identity, overwrite=args.overwrite)
    done = runs.finished_units(rows, "pair_id", session.layers)
    todo = [p for p in pairs if p.pair_id not in done]
    own = record_clips(session, todo)
    with tqdm(total=len(todo), desc="patching", unit="pair") as bar:
        for patched_rows in patch_pairs(session, todo, own):
            runs.append_rows(rows, patched_rows)
            bar.update(len(patched_rows) // session.layers)

    patches = runs.read_rows(rows)
    table = patch_layers(patches, seed=args.seed)
    table.to_csv(args.out / "layers.csv", index=False, float_format="%.6f")
    plot_patching(args.out, subtitle=runs.subtitle(args))
    if todo or not finished:
        counts = {"clips": len(samples), "dropped": dict(dropped), "pairs": pair_counts, "controls": controls(patches)}
        runs.close_output(args.out, identity, session, counts, began=began)
    print(summary(table), runs.files_written(args.out, rows.name, *(f for k in pair_counts for f in figure_names(k))), sep="\n")


if __name__ == "__main__":
    main_of(run)
