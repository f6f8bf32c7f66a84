"""`--prompts all`: the same experiment over paraphrases and orders of the options, and how far its results move."""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from common.model.prompts import variants
from common.plotting import COLORS, estimates
from common.running.lock import held
from common.running.parallel import is_leader

Run = Callable[[list[str] | None], None]


def over_prompts(headline: Callable[[Path], pd.DataFrame], *, out: Path) -> Callable[[Run], Run]:
    """Make a script's `run` take `--prompts all`: one run for each variant of its prompt, each in a folder of its own.

    `headline` reads the main results of a finished run from its folder (what, unit, value, lo, hi, kind, n). They end in
    prompts.csv and prompts.png of --out, and how far each moved in a few lines; `out` is the script's default folder.
    """

    def take(run: Run) -> Run:
        @functools.wraps(run)
        def over(argv: list[str] | None = None) -> None:
            argv = sys.argv[1:] if argv is None else argv
            parser = argparse.ArgumentParser(add_help=False)
            parser.add_argument("--prompts", default="one")
            parser.add_argument("--prompt", default="speaker")
            parser.add_argument("--out", type=Path, default=out)
            parser.add_argument("-h", "--help", action="store_true")
            args, _ = parser.parse_known_args(argv)
            if args.help:
                return run(argv)
            with held(args.out):
                every(argv, args) if args.prompts == "all" else run(argv)

        def every(argv: list[str], args: argparse.Namespace) -> None:
            folders = {name: args.out / "prompts" / name for name in variants(args.prompt)}
            for name, folder in folders.items():
                run([*argv, "--prompts", "one", "--prompt", name, "--out", str(folder)])
            if is_leader():
                table = pd.concat([headline(folder).assign(prompt=name) for name, folder in folders.items()])
                table.to_csv(args.out / "prompts.csv", index=False, float_format="%.6f")
                plot_prompts(table, args.out / "prompts.png")
                print(moved(table), f"written to {args.out}: prompts.csv, prompts.png", sep="\n")

        return over

    return take


def moved(table: pd.DataFrame) -> str:
    """Say how far each result moves over the prompts."""
    lines = [f"over {table.prompt.nunique()} prompts ({', '.join(table.prompt.unique())}):"]
    for what, rows in table.groupby("what", sort=False):
        found = rows.value.dropna()
        none = f", none in {len(rows) - len(found)}" if len(found) < len(rows) else ""
        lines.append(f"  {what}: {found.min():.3g} to {found.max():.3g}{none}" if len(found) else f"  {what}: none")
    return "\n".join(lines)


def plot_prompts(table: pd.DataFrame, path: Path) -> None:
    """Draw a panel for each unit: the results under each prompt, with their intervals."""
    caption = f"n = {table.n.max():.0f}; 95 % intervals; prompts: paraphrases (-2, -3), options in other orders"
    estimates(table, path, colors=COLORS | {"other": "#000000"}, caption=caption)
