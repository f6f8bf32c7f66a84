"""The stages of `--intervention scale`: rows of clips, their tables, figures and findings."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from activation_patching.choose import half_of, held_out_clips
from activation_patching.free_text.tables import free_text_summary, free_text_tables
from activation_patching.intervention import InterventionSpec
from activation_patching.scale.curves import ASKS, OWN, RUN, TRANSCRIBED, curves_of
from activation_patching.scale.findings import erasures, headline, scale_effects
from activation_patching.scale.plots import plot_run
from activation_patching.scale.tables import places_of, tables_of
from common import files, processes
from common.clips.csvfile import read_table
from common.clips.manifest import Sample, choose_speaking, conflict_clips, draw
from common.clips.pairs import CUES
from common.digests import digest_of_files
from common.model.prompts import fill_prompt, get_prompt
from common.run import terminal
from common.run.run_folder import Run, Work
from common.run.settings import Chosen, Settings
from common.run.stages import Ended, Kind, Prepared, Results

if TYPE_CHECKING:
    from activation_patching.scale.fits import Fits
    from common.compute.session import Session

FILE = "subspaces.safetensors"


def steps(
    settings: Settings, spec: InterventionSpec, factors: Sequence[float], given: Path | None, generate: int
) -> tuple[dict[str, Any], Any, Any, Sequence[str]]:
    """Return what is asked for, the stages that choose and set up, and the ways of patching; `given`: another run's subspaces."""
    factors = sorted({*factors})
    held = digest_of_files(given.parent, [given]) if given else None
    asked = {"intervention": "scale", "at": spec.at, "rank": spec.rank, "factors": factors, "subspaces": held}
    drawn: Any = {"limit": settings.limit, "seed": settings.seed}
    language = "-zh" if any("-zh" in name for name in settings.questions) else ""
    told: Any = {"spec": spec, "factors": factors, "language": language, "given": given, "generate": generate}
    ready = partial(set_up, **told, seed=settings.seed)
    return asked | drawn, partial(choose, given=given, **drawn), ready, spec.engines


def choose(clips: list[Sample], labels: Sequence[str], *, given: Path | None, limit: int | None, seed: int) -> Chosen:
    """Choose `limit` conflict clips, which show what scaling gives, and as many congruent ones, which show what it costs.

    All clips are heard where subspaces are fitted on them.
    """
    conflict, _ = conflict_clips(clips)
    congruent = [s for s in clips if not s.conflict]
    drawn = draw(conflict, limit, seed=seed) + draw(congruent, limit, seed=seed)
    kept = Counter("conflict" if s.conflict else "congruent" for s in drawn)
    counts = {"clips": kept["conflict"], "congruent clips": kept["congruent"]}
    return Chosen(drawn if given else clips, counts | {"dropped": {"over --limit": len(clips) - len(drawn)}}, drawn)


def set_up(
    session: "Session",
    chosen: Chosen,
    this: Run,
    *,
    spec: InterventionSpec,
    factors: Sequence[float],
    language: str,
    given: Path | None,
    generate: int,
    seed: int,
    fit: "Callable[..., Fits] | None" = None,
) -> Prepared:
    """Return the work on the clips; subspaces are fitted on all clips by `fit`, or `given` by another run's file.

    The cues' own subspaces, scaled in `generate` conflict clips, go on in free text.
    """
    from activation_patching.free_text.rows import speak  # torch, which drawing does without
    from activation_patching.scale import fits, rows
    from activation_patching.scale.transcribed_rows import transcribe

    clips, drawn = chosen.pool, chosen.units
    if given:
        fitted, warning = fits.given(given, session, drawn, at=spec.at)
        session = session.warned(warning)
    else:
        held_out = held_out_clips(clips, fits.own_pairs(drawn), seed=seed)
        fitted = (fit or fits.fit_all)(session, held_out, at=spec.at, rank=spec.rank or 0, seed=seed)
    question = session.question
    prompts = {name: fill_prompt(get_prompt(name + language), question.bare_words) for name in ASKS.values()}
    questions = {name: replace(question, prompt=prompt) for name, prompt in prompts.items()}
    asked = rows.asked(session, questions, drawn[0], half_of(clips, seed=seed), at=spec.at)
    groups = curves_of(drawn, factors)
    make, checked = rows.maker(asked, fitted, groups)
    title = f"{len(drawn)} clips x factors {' '.join(f'{a:g}' for a in factors)} x"
    work = Work(make, groups, lambda curve: curve.name, session.layers)
    names = choose_speaking(drawn, generate, seed=seed)
    of_clips = ([c for c in group if (c.control, c.asked) == (OWN, RUN)] for group in groups)
    speaking = [group for group in of_clips if group and group[0].sample.sample_id in names]

    def end(this: Run) -> Ended:
        if not given:
            keep_subspaces(session, fitted, clips, this, spec=spec)
        if not speaking:
            return {}, []
        facts = speak(session, this, speaking, lambda curve: curve.name, partial(rows.ask, session, fitted, at=spec.at))
        places = processes.broadcast(places_of(read_table(this.rows)) if processes.is_leader() else None)
        told = [group[0].sample for group in speaking]
        return facts | transcribe(session, this, fitted, told, places, factors, language=language, at=spec.at), []

    return Prepared(session, work, title, checked, end=end)


def keep_subspaces(session: "Session", fitted: "Fits", clips: list[Sample], this: Run, *, spec: InterventionSpec) -> None:
    """Write the subspaces that were fitted on all `clips` beside the rows."""
    from activation_patching.scale import fits

    if processes.is_leader():
        model, prompt = str(this.identity["model"]), session.question.prompt
        facts = fits.facts_of(session, clips, model=model, question=prompt, at=spec.at, rank=spec.rank or 0)
        fits.save(files.claim(this.out / FILE), fitted.all_clips, facts)


def results(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> Results:
    transcribed = read_table(out / TRANSCRIBED) if (out / TRANSCRIBED).exists() else None
    tables, counts = tables_of(rows, transcribed), record["counts"]
    tables |= free_text_tables(out, rows, unit="curve_id", answer="pred_scaled", keys=("kind", "factor"))
    units = f"{counts['clips']} conflict and {counts['congruent clips']} congruent clips · prompt {record['prompt_name']}"
    return Results(tables, units, summary(tables) + free_text_summary(tables))


def summary(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return the rows of the terminal's table: of each cue what scaling gives, beside a random subspace, and what it costs."""
    found = scale_effects(tables)
    rows = [terminal.header("change")]
    for e in erasures(tables):
        rows.append(terminal.estimate(f"{CUES[e.kind]} erased: its label, beyond random", e.minus_random))
    for f in found:
        cue = CUES[f.kind]
        rows.append(terminal.estimate(f"{cue} made larger: answers with its label", f.gain))
        rows.append(terminal.estimate("  beyond a random subspace", f.minus_random))
        rows.append(terminal.estimate("  congruent clips right", f.congruent))
        if f.word_errors:
            rows.append(terminal.estimate("  word error rate of what is said", f.word_errors))
    return rows if found else [*rows, "nothing is chosen on one half of the texts for the other: no effect is estimated"]


KIND = Kind("scaled.csv", "curve_id", results, plot_run, headline, main="chosen")
