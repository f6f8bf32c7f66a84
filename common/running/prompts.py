"""`--prompts all`: the same experiment over paraphrases and orders of the options, and how far its results move."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from common.model.prompts import variants
from common.plotting import COLORS, estimates
from common.running.memory import Shared
from common.running.output import read_record
from common.running.parallel import is_leader
from common.stats.intervals import holm


def over_prompts(
    args: argparse.Namespace,
    run: Callable[[argparse.Namespace, Shared | None, str, Path], None],
    draw: Callable[[argparse.Namespace, str, Path], None],
    headline: Callable[[Path], pd.DataFrame],
) -> None:
    """Run the prompt asked for, or draw its finished run again; with `--prompts all` each of its variants, and how far they move.

    Each variant has a folder of its own. `headline` reads the main results from that of a finished run (what, unit, value, lo,
    hi, kind, n); they end in prompts.csv and prompts.png.
    """
    several = args.prompts == "all"
    shared = Shared(getattr(args, "cache_gb", None)) if several and not args.redraw else None
    one = partial(draw, args) if args.redraw else partial(run, args, shared)
    folders = {n: args.out / "prompts" / n for n in variants(args.prompt)} if several else {args.prompt: args.out}
    for name, folder in folders.items():
        one(name, folder)
    if several and is_leader():
        table = corrected(pd.concat([headline(folder).assign(prompt=name) for name, folder in folders.items()]))
        table.to_csv(args.out / "prompts.csv", index=False, float_format="%.6f")
        marks = {record["mark"] for record in map(read_record, folders.values()) if record.get("mark")}
        plot_prompts(table, args.out / "prompts.png", mark="".join(marks))
        print(moved(table), f"written to {args.out}: prompts.csv, prompts.png", sep="\n")


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Return the results with `p_holm`: the p of the primary outcome corrected over kinds and prompts, where there is one."""
    if "p" not in table:
        return table
    tested = (table.p.notna() & table.unit.str.startswith("flips")).to_numpy()
    p_holm = np.full(len(table), np.nan)
    p_holm[tested] = holm(table.p.to_numpy()[tested])
    return table.assign(p_holm=p_holm)


def moved(table: pd.DataFrame) -> str:
    """Say how far each result moves over the prompts."""
    lines = [f"over {table.prompt.nunique()} prompts ({', '.join(table.prompt.unique())}):"]
    for what, rows in table.groupby("what", sort=False):
        found = rows.value.dropna()
        none = f", none in {len(rows) - len(found)}" if len(found) < len(rows) else ""
        tested = rows.p_holm.dropna() if "p_holm" in rows else rows.value[:0]
        p = f"; p at most {tested.max():.3g} (Holm over kinds and prompts)" if len(tested) else ""
        lines.append(f"  {what}: {found.min():.3g} to {found.max():.3g}{none}{p}" if len(found) else f"  {what}: none")
    return "\n".join(lines)


def plot_prompts(table: pd.DataFrame, path: Path, *, mark: str = "") -> None:
    """Draw a panel for each unit: the results under each prompt, with their intervals."""
    caption = f"n = {table.n.max():.0f}; 95 % intervals; prompts: paraphrases (-2, -3), options in other orders"
    caption += f"; {mark}" if mark else ""
    estimates(table, path, colors=COLORS | {"other": "#000000"}, caption=caption)
