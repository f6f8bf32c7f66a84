"""The stages of a run of the lens: rows of clips, their tables, figures and findings."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from common import processes
from common.clips.csvfile import read_table
from common.clips.manifest import Sample
from common.compute.noise import noise_of
from common.run import command_line, terminal
from common.run.run_folder import Run, Work
from common.run.settings import Settings
from common.run.stages import Chosen, Ended, Experiment, Kind, Prepared, Results
from logit_lens.choose import choose_clips
from logit_lens.findings import headline, lens_findings
from logit_lens.fitted.probe import probe_tables
from logit_lens.options import LensOptions
from logit_lens.plots import plot_lens
from logit_lens.summary import summary, units_of
from logit_lens.tables import lens_tables

if TYPE_CHECKING:
    from common.compute.session import Session
    from logit_lens.rows import FileOfStates


def experiment(settings: Settings, lens: LensOptions) -> Experiment:
    options = {name: getattr(settings, name) for name in ("limit", "seed", "skip_bad", "layers")} | asdict(lens)
    chosen = partial(choose, limit=settings.limit, seed=settings.seed)
    return Experiment("logit_lens", KIND, options, chosen, partial(prepare, lens=lens, seed=settings.seed))


def choose(clips: list[Sample], labels: Sequence[str], *, limit: int | None, seed: int) -> Chosen:
    samples, counts = choose_clips(clips, limit=limit, seed=seed)
    return Chosen(samples, counts, samples)


def prepare(session: "Session", chosen: Chosen, this: Run, *, lens: LensOptions, seed: int) -> Prepared:
    from logit_lens.rows import maker  # torch, which drawing does without

    made = maker(session, chosen.clips, this.out, **asdict(lens), seed=seed)
    work = Work(made.make, [[s] for s in chosen.clips], lambda s: s.sample_id, session.layers, made.whole)
    title = f"{chosen.counts['clips']} conflict and {chosen.counts['congruent clips']} congruent clips x"
    return Prepared(session, work, title, end=partial(end, session, chosen.clips, made.states, seed=seed))


def end(session: "Session", samples: list[Sample], states: "FileOfStates | None", this: Run, *, seed: int) -> Ended:
    """Record the states of random weights, where there are probes; return what noise did to the rows."""
    from logit_lens.fitted.random_weights import record_untrained

    more = record_untrained(session, samples, states, seed=seed) if states else []
    if not processes.is_leader():
        return Ended()
    noise, warnings = noise_of(read_table(this.rows))
    return Ended(noise, (*warnings, *more))


def results(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> Results:
    probed, lacking = probe_tables(out, record, rows)
    tables = lens_tables(rows) | probed
    lines = [*summary(lens_findings(tables), record["identity"].get("input", "audio")), *lacking]
    following = terminal.following("activation_patching/run.py", record, command_line.DEFAULTS)
    return Results(tables, units_of(record), lines, following)


KIND = Kind("lens.csv", "sample_id", results, plot_lens, headline, main="layers")
