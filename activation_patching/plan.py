"""`--plan`: estimate time and memory of an activation patching run."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from activation_patching.choose import PairChoice, choose, clips_of, groups_of
from activation_patching.exchange.edits import at_last, at_span
from activation_patching.exchange.rows import MAX_EDITED_ROWS
from activation_patching.intervention import InterventionSpec
from activation_patching.scale.fits import made_up
from activation_patching.span.patch import Clip, OwnRun, Patched, by_splice, by_sweep, donor_of, own_runs
from activation_patching.span.rows import MAX_ROWS, pair_rows
from common.clips.pairs import Pair
from common.compute.activation_cache import ActivationCache
from common.compute.memory import cache_bytes
from common.model.encoding import before_last
from common.patching.rerun import put
from common.run.plan import Cost, Plan, checks_seconds, open_plan, tell, written
from common.run.run_folder import Run
from common.run.settings import Settings
from common.run.stages import Experiment, usable
from common.run.stages import choose as choose_units
from common.tracing.trace import own_logits, states_at

_NOT_COUNTED = {"scale": "the fit of the subspaces", "components": "heads that are patched together"}
_QUICK = 1.0  # seconds of a pass for one pair up to which a full pass is timed as well


def plan_run(settings: Settings, spec: InterventionSpec, choice: PairChoice, *, cache_gb: float | None) -> str:
    """Return what the run that is asked for would be given and would take. Raises InputError as the run does."""
    question = settings.question
    clips, bad, _ = usable(settings, question)
    chosen = choose(clips, question.labels, choice=choice, spec=spec)
    pairs, _ = chosen.units
    counts = chosen.counts | {"dropped": chosen.counts["dropped"] | bad, "pairs with their controls": len(pairs)}
    plan = open_plan(settings.model, question, clips_of(pairs), engines=spec.engines, layers=settings.layers)
    cost = cost_of(plan, groups_of(pairs, spec.intervention), spec, budget=cache_bytes(cache_gb))
    return tell(plan, cost, counts, prompts=len(settings.questions))


def cost_of(plan: Plan, groups: Sequence[list[Pair]], spec: InterventionSpec, *, budget: int) -> Cost:
    """Return what the rows of groups of pairs take: a few clips and pairs are run with the code of the run."""
    session, largest = plan.session, max(groups, key=len)
    pairs = [pair for group in groups for pair in group]
    most = _most_at_once(plan, spec)
    own = Recorded(plan, [clip for pair in largest[:most] for clip in (donor_of(pair), (pair.recipient, False))], spec)
    first = plan.weightless.seconds(partial(_patch, plan, own, largest[:1], spec))
    full = plan.weightless.seconds(partial(_patch, plan, own, largest[:most], spec)) if most > 1 and first < _QUICK else None
    seconds = sum(_group_seconds(len(group), most, min(most, len(largest)), first, full) for group in groups)
    run_seconds = plan.weightless.seconds(lambda: Recorded(plan, [(plan.clip, False)], spec))
    recorded, held = _recordings(plan, groups, spec, own.whole(_turn(largest[0], spec)), budget=budget)
    row_seconds, row_bytes = written(lambda: _rows(plan, largest[0]))
    seconds += recorded * run_seconds + len(pairs) * row_seconds
    seconds += checks_seconds(plan, len(clips_of(pairs)), run_seconds)
    beside = "" if spec.whole_span else "learning what the states decode of the labels is not counted"
    return Cost(seconds, len(pairs) * len(session.layers), row_bytes, held, beside=beside)


def plan_units(experiment: Experiment, settings: Settings) -> str:
    """Return the plan of a run whose units are made by themselves: the run's own code makes the rows of its first group."""
    question = settings.question
    chosen = choose_units(experiment, settings, question)
    engines = experiment.engines
    plan = open_plan(settings.model, question, chosen.clips, engines=engines, layers=settings.layers, whole=True)
    fit = {"fit": made_up} if experiment.options["intervention"] == "scale" else {}
    work = experiment.set_up(plan.session, chosen, Run(Path("rows.csv"), "", {}), **fit).work
    made: list[list[dict[str, Any]]] = []
    seconds = plan.weightless.seconds(lambda: made.extend(work.make(work.groups[:1])))
    of_first, units = len(work.groups[0]), sum(map(len, work.groups))
    write_seconds, row_bytes = written(lambda: made[0])
    run_seconds = plan.weightless.seconds(lambda: own_logits(plan.session.lm, plan.session.first))
    before = checks_seconds(plan, len(chosen.pool), run_seconds)
    lacks = [_NOT_COUNTED.get(experiment.options["intervention"]), "free text" if experiment.options.get("generate") else None]
    beside = ", ".join(f"without {what}" for what in lacks if what)
    seconds = before + (seconds + write_seconds) * units / of_first
    cost = Cost(seconds, units * len(work.layers), row_bytes, beside=beside, timed="one clip or pair, with made-up weights")
    return tell(plan, cost, chosen.counts, prompts=len(settings.questions))


class Recorded:
    """The own runs of a few clips on the weightless model, to be asked for as those of a run are (see ActivationCache)."""

    def __init__(self, plan: Plan, clips: Sequence[Clip], spec: InterventionSpec) -> None:
        view = before_last if spec.at == "last" else None
        own = own_runs(plan.session, clips, budget=10**15, view=view)
        self._runs = {clip: _filled(plan, own.whole(clip)) for clip in dict.fromkeys(clips)}

    def whole(self, clip: Clip) -> OwnRun:
        return self._runs[clip]

    light = whole


def _filled(plan: Plan, run: OwnRun) -> OwnRun:
    """Return a run in which blocks that are not there have kept what those have that stand in for them."""
    cache = tuple(run.trace.cache[block] for block in plan.weightless.stand_in)
    return replace(run, trace=replace(run.trace, cache=cache))


def _turn(pair: Pair, spec: InterventionSpec) -> Clip:
    """Return the clip whose whole run the pairs of a group are made over."""
    return donor_of(pair) if spec.whole_span else (pair.recipient, False)


def _most_at_once(plan: Plan, spec: InterventionSpec) -> int:
    """Return how many pairs go into one pass."""
    if plan.session.engine != "splice":
        return 1
    return max(1, (MAX_ROWS if spec.whole_span else MAX_EDITED_ROWS) // len(plan.session.layers))


def _patch(plan: Plan, recorded: Recorded, pairs: list[Pair], spec: InterventionSpec) -> None:
    """Patch pairs of one group in one pass, as the run does."""
    session, own = plan.session, cast(ActivationCache[Clip, OwnRun], recorded)
    if spec.whole_span and session.engine == "splice":
        by_splice(session, own, pairs, len(pairs))
    elif spec.whole_span:
        by_sweep(session, own, pairs, spec.align, len(session.layers))
    elif spec.at == "last":
        trace = own.whole(_turn(pairs[0], spec)).trace
        at_last(session, trace, [put(dict(zip(trace.layers, trace.tail)))] * len(pairs), len(pairs))
    else:
        clip = session.encode(pairs[0].recipient)
        at_span(session, clip, [put(states_at(session.lm, clip, clip.span))] * len(pairs), len(session.layers))


def _group_seconds(pairs: int, most: int, timed: int, first: float, full: float | None) -> float:
    """Return what a group's passes take, on a straight line between a pass of one pair and a `full` one of `timed` pairs."""
    step = first if full is None or timed == 1 else (full - first) / (timed - 1)
    passes = [most] * (pairs // most) + [pairs % most] * (pairs % most > 0)
    return sum(first + step * (n - 1) for n in passes)


def _recordings(plan: Plan, groups: Sequence[list[Pair]], spec: InterventionSpec, run: OwnRun, *, budget: int) -> tuple[int, int]:
    """Return how often a clip is recorded, and the most bytes of recordings, by the run's own rules of what is kept.

    On a CPU the whole of a run and what is light of it have their tail in common.
    """
    spliced, light = plan.session.engine == "splice", run.trace.recipient().nbytes
    whole = run.trace.nbytes - (light if plan.session.lm.device.type == "cpu" else 0)
    made, most = 0, 0

    def make(clip: Clip) -> int:
        nonlocal made
        made += 1
        return whole

    turns = [_turn(group[0], spec) for group in groups] if spliced else []
    own: ActivationCache[Clip, int] = ActivationCache(
        make, light=lambda _: light, store=int, size=int, turns=turns, budget=budget
    )
    for group in groups:
        if spliced:
            own.whole(_turn(group[0], spec))
        for pair in group:
            own.light((pair.recipient, False))
            if not (spliced and spec.whole_span):
                own.light(donor_of(pair))
            most = max(most, own.bytes)
    return made, most


def _rows(plan: Plan, pair: Pair) -> list[dict[str, Any]]:
    session, shape = plan.session, (len(plan.session.layers), len(plan.session.readout.labels))
    found = Patched(torch.randn(shape), str(session.engine), 1.2345678e-05, 1.2345678e-05, "", torch.randn(shape[1]))
    answer = session.readout.labels[0]
    return pair_rows(pair, found, pred_donor=answer, readout=session.readout, layers=session.layers, reach=0)
