"""The steps of a run of either experiment: choose, open the model, make the rows, draw."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from common import processes
from common.clips.manifest import Sample
from common.compute.memory import PrefixCacheStore
from common.default_model import is_test_weight
from common.model.prompts import Question
from common.plotting import FigureStyle
from common.run import run_folder, terminal
from common.run.record import identify
from common.run.run_folder import Run, Work
from common.run.settings import Chosen, Settings

if TYPE_CHECKING:
    from common.compute.session import Session  # torch, which drawing does without

Ended = tuple[dict[str, Any], list[str]]  # what is known once all rows are there: further counts and warnings for run.json


@dataclass(frozen=True)
class Prepared:
    """What makes the rows: `work`, of as much as `title` says, with the figures of the checks that it has passed.

    `facts` are further ones for run.json. Every process calls `end` when the rows are there.
    """

    session: "Session"
    work: Work
    title: str
    checked: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    end: Callable[[Run], Ended] = lambda _: ({}, [])


@dataclass(frozen=True)
class Results:
    """The tables of a finished run by the names of their files, and what the terminal shows of it."""

    tables: dict[str, pd.DataFrame]
    units: str
    lines: list[str]
    following: str = "python report/build.py"


@dataclass(frozen=True)
class Kind:
    """What a kind of run leaves, and how it is shown: its `rows`, the column that names a `unit`, from these its `results`.

    `plot` draws the tables in a folder into another one. `headline` makes of the tables `main` the results that prompts compare.
    """

    rows: str
    unit: str
    results: Callable[[Path, dict[str, Any], pd.DataFrame], Results]
    plot: Callable[[Path, Path, FigureStyle], list[str]]
    headline: Callable[[dict[str, pd.DataFrame]], pd.DataFrame]
    main: str = "summary"


@dataclass(frozen=True)
class Experiment:
    """What a run does: `options` beside the settings for its record, the ways of patching that it may use, and two stages.

    `choose` takes the clips that the model can be given, and the labels; `set_up` the model, what was chosen, and the run.
    `kind_of` tells the kind of a run by its intervention, of which the lens has none. With `asks_again` a clip is asked several
    questions, which share its prefix cache.
    """

    name: str
    kind_of: Callable[[Any], Kind]
    options: dict[str, Any]
    choose: Callable[[list[Sample], Sequence[str]], Chosen]
    set_up: Callable[["Session", Chosen, Run], Prepared]
    engines: Sequence[str] = ()
    asks_again: bool = field(default=False, kw_only=True)


def run(experiment: Experiment, settings: Settings, prompt: str, out: Path, shared: PrefixCacheStore | None) -> None:
    """Make the rows of a prompt that are not in `out` yet."""
    began, question, kind = time.time(), settings.questions[prompt], experiment.kind_of(experiment.options.get("intervention"))
    name, data, clips = experiment.name, settings.data, settings.clips
    known = identify(name, model=settings.model, question=question, data=data, clips=clips, options=experiment.options)
    this = Run(out / kind.rows, kind.unit, known)
    if not run_folder.is_finished(this, overwrite=settings.overwrite):
        chosen = choose(experiment, settings, question)
        session = open_model(experiment, settings, question, chosen, this, shared)
        ready = experiment.set_up(session, chosen, this)
        make(this, ready, chosen, settings, prompt, began=began)


def choose(experiment: Experiment, settings: Settings, question: Question) -> Chosen:
    """Return what is chosen of the clips that the model can be given, and counted what is not."""
    clips, bad, warning = usable(settings, question)
    chosen = experiment.choose(clips, question.labels)
    counts = chosen.counts | {"dropped": chosen.counts["dropped"] | bad}
    return replace(chosen, counts=counts, warnings=(warning, *chosen.warnings), pool=clips)


def usable(settings: Settings, question: Question) -> tuple[list[Sample], Counter[str], str]:
    """Return the clips that the model can be given, a count of the others by reason, and what is to be said of them."""
    if not settings.skip_bad:
        return settings.clips, settings.others, ""
    from common.compute.usable_clips import left_out, usable_clips

    clips, bad = usable_clips(settings.clips, settings.model, question)
    return clips, Counter({**settings.others, **bad}), left_out(bad, len(settings.clips))


def open_model(
    experiment: Experiment, settings: Settings, question: Question, chosen: Chosen, this: Run, shared: PrefixCacheStore | None
) -> "Session":
    """Return the model, checked on the chosen clips."""
    from common.compute.session import open_session

    form = run_folder.recorded_form(this, overwrite=settings.overwrite)
    ways: dict[str, Any] = {"engines": experiment.engines, "layers": settings.layers, "shared": shared}
    session = open_session(settings.model, question, chosen.clips, **ways, pool=chosen.pool, form=form)
    return session.warned(*chosen.warnings)


def make(this: Run, ready: Prepared, chosen: Chosen, settings: Settings, prompt: str, *, began: float) -> None:
    """Make the rows, and write the record of the finished run."""
    session = ready.session
    if processes.is_leader():
        print(f"{ready.title} {session.describe(prompt)}")
    this = this.known(session.identity())
    leads = run_folder.make_rows(this, ready.work, overwrite=settings.overwrite)
    counts, warnings = ready.end(this)
    if leads:
        asked = {"prompt_name": prompt, "command": settings.command, "test_weight": is_test_weight(settings.model.name)}
        facts = session.warned(*warnings).facts() | asked | ready.facts
        facts["self_check"] |= ready.checked
        run_folder.finish(this, facts, chosen.counts | counts, began=began)


def draw(kind_of: Callable[[Any], Kind], settings: Settings, out: Path) -> None:
    """Make tables and figures of the finished run in `out`, of the kind that its record names, and show what it found."""
    kind = kind_of(run_folder.read_record(out)["identity"].get("intervention"))
    record, rows = run_folder.finished_run(out, kind.rows)
    found = kind.results(out, record, rows)
    run_folder.write_tables(out, found.tables, record)
    figures = kind.plot(out, out, FigureStyle(formats=settings.formats, mark=run_folder.mark_of(record)))
    print(terminal.ended(record, found.units, found.lines, out=out, figures=figures, following=found.following))


def headline(kind_of: Callable[[Any], Kind], out: Path) -> pd.DataFrame:
    """Return the main results of the finished run in `out`."""
    kind = kind_of(run_folder.read_record(out)["identity"].get("intervention"))
    return kind.headline({kind.main: run_folder.read_table(out, kind.main)})
