"""The stages of `--intervention knockout`: rows, tables, figure, summary."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from activation_patching.free_text.tables import free_text_summary, free_text_tables
from activation_patching.knockout.findings import SHOWN, headline, routes
from activation_patching.knockout.plots import plot_run
from activation_patching.knockout.tables import tables_of
from activation_patching.knockout.windows import Curve, window_names
from common.clips.manifest import Sample, choose_speaking, conflict_clips, draw
from common.clips.pairs import CUES
from common.run import terminal
from common.run.run_folder import Run, Work
from common.run.settings import Chosen, Settings
from common.run.stages import Ended, Kind, Prepared, Results

if TYPE_CHECKING:
    from common.compute.session import Session


def steps(settings: Settings, around: Sequence[int], generate: int) -> tuple[dict[str, Any], Any, Any]:
    """Return what is asked for, and the stages that choose and set up."""
    windows = window_names(around)
    drawn: Any = {"limit": settings.limit, "seed": settings.seed}
    ready = partial(set_up, windows=windows, generate=generate, seed=settings.seed)
    return {"intervention": "knockout", "windows": windows} | drawn, partial(choose, **drawn), ready


def choose(clips: list[Sample], labels: Sequence[str], *, limit: int | None, seed: int) -> Chosen:
    conflict, dropped = conflict_clips(clips)
    drawn = draw(conflict, limit, seed=seed)
    dropped += Counter({"over --limit": len(conflict) - len(drawn)})
    return Chosen(drawn, {"clips": len(drawn), "dropped": dict(dropped)}, drawn)


def set_up(session: "Session", chosen: Chosen, this: Run, *, windows: Sequence[str], generate: int, seed: int) -> Prepared:
    from activation_patching.knockout.rows import curves_of, edges_of, maker, positions  # torch, which drawing does without

    where, edges = positions(session.first), edges_of(session)
    keys = {"prefix without position 0": max(0, where.audio.start - 1), "audio": len(where.audio)}
    if not where.control:
        session = session.warned(
            f"no control: the prompt has {keys['prefix without position 0']} tokens before the audio to hide"
        )
    groups = curves_of(chosen.units, edges, windows)
    make, checked = maker(session, groups)
    work = Work(make, groups, lambda curve: curve.name, session.layers)
    title = f"{len(groups)} clips x {len(edges)} edges x {len(windows)} windows x"
    names = choose_speaking(chosen.units, generate, seed=seed)
    speaking = [group for group in groups if group[0].sample.sample_id in names]
    return Prepared(session, work, title, checked, {"keys_hidden": keys}, partial(end, session, speaking))


def end(session: "Session", speaking: list[list[Curve]], this: Run) -> Ended:
    """Let clips go on in free text; what is hidden from the last token stays hidden from what is said behind it."""
    from activation_patching.free_text.rows import speak
    from activation_patching.knockout.rows import of_cuts

    def ask(group: list[Curve]) -> Any:
        return of_cuts(session, session.encode(group[0].sample), group)

    return speak(session, this, speaking, lambda curve: curve.name, ask), []


def results(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> Results:
    tables = tables_of(rows) | free_text_tables(out, rows, unit="curve_id", answer="pred_cut", keys=("edge", "window"))
    units = f"{record['counts']['clips']} conflict clips · prompt {record['prompt_name']}"
    return Results(tables, units, summary(tables) + free_text_summary(tables))


def summary(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return the rows of the terminal's table: how far answers depend on each cue, by either route alone."""
    rows = [terminal.header("dependence")]
    for f in routes(tables):
        rows += [
            terminal.estimate(f"{CUES[f.kind]}: {what}", getattr(f, name) if f.enough else None) for name, what in SHOWN.items()
        ]
        rows.append(terminal.estimate(f"{CUES[f.kind]}: direct minus through", f.direct_minus_through if f.enough else None))
    return rows


KIND = Kind("knockout.csv", "curve_id", results, plot_run, headline)
