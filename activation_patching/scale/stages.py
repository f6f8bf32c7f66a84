"""The stages of `--intervention scale`: rows of clips, their tables, figures and findings."""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from activation_patching import options
from activation_patching.choose import half_of, held_out_clips
from activation_patching.intervention import InterventionSpec
from activation_patching.scale.curves import ASKS, curves_of
from activation_patching.scale.findings import headline, scale_effects
from activation_patching.scale.plots import plot_run
from activation_patching.scale.tables import tables_of
from common import files, processes
from common.clips.manifest import Sample, conflict_clips, read_clips
from common.clips.manifest import draw as draw_clips
from common.compute.memory import PrefixCacheStore
from common.digests import digest_of_files
from common.plotting import FigureStyle
from common.run import command_line, run_folder, terminal
from common.run.record import identify

if TYPE_CHECKING:
    from common.compute.session import Session
    from common.model.prompts import Question

FILE = "subspaces.safetensors"
CUES = {"semantic": "words", "prosody": "voice"}


def run(args: argparse.Namespace, shared: PrefixCacheStore | None, prompt: str, out: Path) -> None:
    began, model, question = time.time(), command_line.chosen_model(args), command_line.asked_question(args, prompt)
    clips, others = read_clips(args.data, args.labels)
    spec = options.chosen_intervention(args, len(question.labels))
    asked = recorded(spec, args.factors, args.subspaces) | {"limit": args.limit, "seed": args.seed}
    asked |= {"skip_bad": args.skip_bad, "layers": args.layers}
    identity = identify("activation_patching", model=model, question=question, data=args.data, clips=clips, options=asked)
    this = run_folder.Run(out / "scaled.csv", "curve_id", identity)
    if not run_folder.is_finished(this, overwrite=args.overwrite):
        from common.compute.session import open_session  # torch, which drawing does without
        from common.compute.usable_clips import left_out, usable_clips

        every = len(clips)
        clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, Counter())
        drawn, counts = choose(clips, args.limit, seed=args.seed)
        counts["dropped"] |= {**others, **bad}
        opened: dict[str, Any] = {"engines": spec.engines, "layers": args.layers, "shared": shared, "pool": clips}
        form = run_folder.recorded_form(this, overwrite=args.overwrite)
        session = open_session(model, question, drawn if args.subspaces else clips, form=form, **opened)
        session = session.warned(left_out(bad, every))
        questions = {name: command_line.asked_question(args, name) for name in prompts_for_cues(prompt)}
        session, work, checked, keep = set_up(
            session, clips, drawn, spec=spec, factors=asked["factors"], questions=questions, given=args.subspaces, seed=args.seed
        )
        if processes.is_leader():
            print(f"{len(drawn)} clips x factors {' '.join(f'{a:g}' for a in asked['factors'])} x {session.describe(prompt)}")
        this = this.known(session.identity())
        if run_folder.make_rows(this, work, overwrite=args.overwrite):
            keep(out / FILE, model=str(model.name), prompt=question.prompt)
            facts = session.facts() | command_line.told(args, prompt)
            facts["self_check"] |= checked
            run_folder.finish(this, facts, counts, began=began)
    if processes.is_leader():
        draw(args, prompt, out)


def recorded(spec: InterventionSpec, factors: Sequence[float], given: Path | None) -> dict[str, Any]:
    """Return what run.json keeps of what is asked for; given subspaces are known by what their file holds."""
    held = digest_of_files(given.parent, [given]) if given else None
    return {"intervention": "scale", "at": spec.at, "rank": spec.rank, "factors": sorted({*factors}), "subspaces": held}


def choose(clips: list[Sample], limit: int | None, *, seed: int) -> tuple[list[Sample], dict[str, Any]]:
    """Return `limit` conflict clips, which show what scaling gives, and as many congruent ones, which show what it costs."""
    conflict, _ = conflict_clips(clips)
    congruent = [s for s in clips if not s.conflict]
    drawn = draw_clips(conflict, limit, seed=seed) + draw_clips(congruent, limit, seed=seed)
    kept = Counter("conflict" if s.conflict else "congruent" for s in drawn)
    dropped = {"over --limit": len(clips) - len(drawn)}
    return drawn, {"clips": kept["conflict"], "congruent clips": kept["congruent"], "dropped": dropped}


def prompts_for_cues(prompt: str) -> list[str]:
    """Return the names of the prompts that ask for the words and for the voice, in the language of the run's own."""
    return [f"{name}{'-zh' if '-zh' in prompt else ''}" for name in ASKS.values()]


def set_up(
    session: "Session",
    clips: list[Sample],
    drawn: list[Sample],
    *,
    spec: InterventionSpec,
    factors: Sequence[float],
    questions: Mapping[str, "Question"],
    given: Path | None,
    seed: int,
) -> tuple["Session", run_folder.Work, dict[str, float], Callable[..., None]]:
    """Return the session, warned; the work; how far the identities are off; and what keeps the subspaces in a file.

    They are fitted on `clips`, or `given` by another run's file and then not kept again.
    """
    from activation_patching.scale import fits, rows  # torch, which drawing does without

    if given:
        fitted, warning = fits.given(given, session, drawn, at=spec.at)
        session = session.warned(warning)
    else:
        held_out = held_out_clips(clips, fits.own_pairs(drawn), seed=seed)
        fitted = fits.fit_all(session, held_out, at=spec.at, rank=spec.rank or 0, seed=seed)
    named = dict(zip(ASKS.values(), questions.values()))
    asked = rows.asked(session, named, drawn[0], half_of(clips, seed=seed), at=spec.at)
    groups = curves_of(drawn, factors)
    make, checked = rows.maker(asked, fitted, groups)

    def keep(path: Path, *, model: str, prompt: str) -> None:
        if not given:
            facts = fits.facts_of(session, clips, model=model, question=prompt, at=spec.at, rank=spec.rank or 0)
            fits.save(files.claim(path), fitted.all_clips, facts)

    return session, run_folder.Work(make, groups, lambda curve: curve.name, session.layers), checked, keep


def draw(args: argparse.Namespace, prompt: str, out: Path) -> None:
    record, rows = run_folder.finished_run(out, "scaled.csv")
    tables = tables_of(rows)
    run_folder.write_tables(out, tables, record)
    figures = plot_run(out, out, FigureStyle(formats=command_line.figure_formats(args), mark=run_folder.mark_of(record)))
    counts = record["counts"]
    units = f"{counts['clips']} conflict and {counts['congruent clips']} congruent clips · prompt {record['prompt_name']}"
    print(terminal.ended(record, units, summary(tables), out=out, figures=figures, following="python report/build.py"))


def summary(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return the rows of the terminal's table: of each cue what scaling gives, beside a random subspace, and what it costs."""
    found = scale_effects(tables)
    rows = [terminal.header("change")]
    for f in found:
        cue = CUES[f.kind]
        rows.append(terminal.estimate(f"{cue} made larger: answers with its label", f.gain))
        rows.append(terminal.estimate("  beyond a random subspace", f.minus_random))
        rows.append(terminal.estimate("  congruent clips right", f.congruent))
    return rows if found else ["nothing is chosen on one half of the texts for the other: no effect is estimated"]


def main_results(out: Path) -> pd.DataFrame:
    return headline({"chosen": run_folder.read_table(out, "chosen")})
