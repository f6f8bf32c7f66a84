"""`--prompts all`: the same experiment over paraphrases and orders of the options, and how far its results move."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from common.compute.memory import PrefixCacheStore
from common.files import check
from common.model.prompts import variants
from common.plotting import FigureStyle, estimates
from common.processes import is_leader
from common.run.command_line import figure_formats
from common.run.run_folder import mark_of, read_record, write_tables
from common.stats.findings import spreads


def over_prompts(
    args: argparse.Namespace,
    run: Callable[[argparse.Namespace, PrefixCacheStore | None, str, Path], None],
    draw: Callable[[argparse.Namespace, str, Path], None],
    headline: Callable[[Path], pd.DataFrame],
) -> None:
    """Run the prompt asked for, or draw its finished run again; with `--prompts all` each of its variants, and how far they move.

    Each variant has a folder of its own. `headline` reads the main results from that of a finished run (what, unit, value, lo,
    hi, kind, n); they end in prompts.csv and prompts.png.
    """
    several = args.prompts == "all"
    shared = PrefixCacheStore(getattr(args, "cache_gb", None)) if several and not args.redraw else None
    one = partial(draw, args) if args.redraw else partial(run, args, shared)
    folders = {n: args.out / "prompts" / n for n in variants(args.prompt)} if several else {args.prompt: args.out}
    for folder in folders.values():
        check(folder)  # all of them before any work
    for name, folder in folders.items():
        one(name, folder)
    if several and is_leader():
        table = pd.concat([headline(folder).assign(prompt=name) for name, folder in folders.items()])
        write_tables(args.out, {"prompts": table})
        marks = {mark_of(read_record(folder)) for folder in folders.values()}
        estimates(table, args.out / "prompts.png", FigureStyle(formats=figure_formats(args), mark="".join(sorted(marks))))
        print(moved(table), f"written to {args.out}: prompts.csv, prompts.png", sep="\n")


def moved(table: pd.DataFrame) -> str:
    """Say how far each result moves over the prompts, and in how many its interval excludes 0."""
    lines = [f"over {table.prompt.nunique()} prompts ({', '.join(table.prompt.unique())}):"]
    for found in spreads(table):
        shown = "" if found.what.endswith("layer") else f", not 0 in {found.shown} of {found.prompts}"
        lines.append(f"  {found.what}: {found.least:.2f} to {found.most:.2f}{shown}")
    return "\n".join(lines)
