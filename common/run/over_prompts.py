"""`--prompts all`: the same experiment over paraphrases and orders of the options, and how far its results move."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from common.compute.memory import PrefixCacheStore
from common.files import check
from common.plotting import FigureStyle, estimates
from common.processes import is_leader
from common.run.run_folder import mark_of, read_record, write_tables
from common.run.settings import Settings
from common.run.stages import Experiment, headline, run
from common.stats.findings import spreads


def over_prompts(
    experiment: Experiment,
    settings: Settings,
    out: Path,
    draw: Callable[[Settings, Path], None],
    *,
    cache_gb: float | None = None,
) -> None:
    """Run the prompt asked for, or draw its finished run again; with `--prompts all` each of its variants, and how far they move.

    Each variant has a folder of its own. The main results of each end in prompts.csv and prompts.png.
    """
    several = settings.several
    shared = PrefixCacheStore(cache_gb) if (several or experiment.asks_again) and not settings.redraw else None
    folders = {name: out / "prompts" / name if several else out for name in settings.questions}
    for folder in folders.values():
        check(folder)  # all of them before any work
    for name, folder in folders.items():
        if not settings.redraw:
            run(experiment, settings, name, folder, shared)
        if is_leader():
            draw(settings, folder)
    if several and is_leader():
        table = pd.concat([headline(experiment.kind_of, folder).assign(prompt=name) for name, folder in folders.items()])
        write_tables(out, {"prompts": table})
        marks = {mark_of(read_record(folder)) for folder in folders.values()}
        estimates(table, out / "prompts.png", FigureStyle(formats=settings.formats, mark="".join(sorted(marks))))
        print(moved(table), f"written to {out}: prompts.csv, prompts.png", sep="\n")


def moved(table: pd.DataFrame) -> str:
    """Say how far each result moves over the prompts, and in how many its interval excludes 0."""
    lines = [f"over {table.prompt.nunique()} prompts ({', '.join(table.prompt.unique())}):"]
    for found in spreads(table):
        shown = "" if found.what.endswith("layer") else f", not 0 in {found.shown} of {found.prompts}"
        lines.append(f"  {found.what}: {found.least:.2f} to {found.most:.2f}{shown}")
    return "\n".join(lines)
