"""`--prompts all`: the same experiment over paraphrases and orders of the options, and how far its results move."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from common.model.prompts import variants
from common.plotting import COLORS, estimates
from common.running.parallel import is_leader
from common.stats.intervals import holm


def over_prompts(prompt: str, out: Path, run: Callable[[str, Path], None], headline: Callable[[Path], pd.DataFrame]) -> None:
    """Call `run` for each variant of a prompt with a folder of its own, then say how far the main results move.

    `headline` reads them from the folder of a finished run (what, unit, value, lo, hi, kind, n); they end in prompts.csv and
    prompts.png of `out`.
    """
    folders = {name: out / "prompts" / name for name in variants(prompt)}
    for name, folder in folders.items():
        run(name, folder)
    if is_leader():
        table = corrected(pd.concat([headline(folder).assign(prompt=name) for name, folder in folders.items()]))
        table.to_csv(out / "prompts.csv", index=False, float_format="%.6f")
        plot_prompts(table, out / "prompts.png")
        print(moved(table), f"written to {out}: prompts.csv, prompts.png", sep="\n")


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


def plot_prompts(table: pd.DataFrame, path: Path) -> None:
    """Draw a panel for each unit: the results under each prompt, with their intervals."""
    caption = f"n = {table.n.max():.0f}; 95 % intervals; prompts: paraphrases (-2, -3), options in other orders"
    estimates(table, path, colors=COLORS | {"other": "#000000"}, caption=caption)
