"""The stages of a run that puts in a donor's span, or erases or exchanges what its states tell of a label."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from activation_patching.choose import HeldOutClips, PairChoice, choose_pairs, clips_of, groups_of, held_out_clips
from activation_patching.intervention import InterventionSpec
from activation_patching.span.findings import headline
from activation_patching.span.plots import plot_run
from activation_patching.span.summary import summary, units_of
from activation_patching.span.tables import tables_of
from common import processes
from common.clips.csvfile import read_table
from common.clips.manifest import Sample
from common.clips.pairs import Pair
from common.compute.noise import noise_of, own_run_differences
from common.run.run_folder import Run, Work
from common.run.settings import Settings
from common.run.stages import Chosen, Ended, Experiment, Kind, Prepared, Results

if TYPE_CHECKING:
    from common.compute.session import Session


@dataclass(frozen=True)
class Pairs:
    """The pairs of a run, and the clips that subspaces are learned from, if any are."""

    pairs: list[Pair]
    held_out: HeldOutClips | None


def experiment(settings: Settings, spec: InterventionSpec, choice: PairChoice, *, cache_gb: float | None) -> Experiment:
    options = choice.record() | {**asdict(spec), "skip_bad": settings.skip_bad, "layers": settings.layers}
    ready = partial(prepare, spec=spec, seed=settings.seed, cache_gb=cache_gb)
    return Experiment("activation_patching", KIND, options, partial(choose, spec=spec, choice=choice), ready, spec.engines)


def choose(clips: list[Sample], labels: Sequence[str], *, spec: InterventionSpec, choice: PairChoice) -> Chosen:
    pairs, counts = choose_pairs(clips, labels=labels, **vars(choice), intervention=spec.intervention)
    held_out = None if spec.whole_span else held_out_clips(clips, pairs, seed=choice.seed)
    warnings = tuple(counts.pop("warnings"))
    return Chosen(held_out.clips if held_out else clips_of(pairs), counts, Pairs(pairs, held_out), warnings)


def prepare(
    session: "Session", chosen: Chosen, this: Run, *, spec: InterventionSpec, seed: int, cache_gb: float | None
) -> Prepared:
    from activation_patching.subspace.rows import maker  # torch, which drawing does without

    pairs, held_out = chosen.units.pairs, chosen.units.held_out
    groups = groups_of(pairs, spec.intervention)
    make, checked = maker(session, groups, spec, held_out, seed=seed, earlier=this.rows, cache_gb=cache_gb)
    work = Work(make, groups, lambda pair: pair.pair_id, session.layers)
    title = f"{len(pairs)} pairs of {chosen.counts['clips']} clips x"
    return Prepared(session, work, title, checked, end=partial(end, engine=session.engine))


def end(this: Run, *, engine: str | None) -> Ended:
    """Return what noise did to the rows, and how far their ends are from the clips' own runs."""
    if not processes.is_leader():
        return Ended()
    rows = read_table(this.rows)
    noise, warnings = noise_of(rows, engine=engine)
    return Ended(own_run_differences(rows) | noise, tuple(warnings))


def results(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> Results:
    tables = tables_of(rows)
    return Results(tables, units_of(record), summary(tables, record["identity"]["intervention"]))


KIND = Kind("patches.csv", "pair_id", results, plot_run, headline)
