"""Experiment 2, activation patching: put one clip's audio states into another clip's run, at every layer."""

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
if HERE.parent / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import prepare

prepare(__file__)

from activation_patching import options
from activation_patching.choose import PairChoice, choose, groups_of, speaking_pairs
from activation_patching.components import stages as components
from activation_patching.free_text.tables import free_text_summary, free_text_tables
from activation_patching.intervention import InterventionSpec
from activation_patching.knockout import stages as knockout
from activation_patching.scale import stages as scale
from activation_patching.span.findings import headline
from activation_patching.span.plots import plot_run
from activation_patching.span.summary import summary, units_of
from activation_patching.span.tables import tables_of
from common import lock, processes
from common.clips.csvfile import read_table
from common.clips.pairs import Pair
from common.compute.rounding import noise_of, own_run_differences
from common.default_model import settle
from common.run import command_line, run_folder, stages
from common.run.over_prompts import over_prompts
from common.run.settings import Chosen, Settings

if TYPE_CHECKING:
    from common.compute.session import Session  # torch, which drawing does without


def main(argv: list[str] | None = None) -> None:
    # 1. What is asked, checked before any model is put together or downloaded.
    args = command_line.argument_parser(__doc__, options.OPTIONS).parse_args(argv)
    spec, choice = options.chosen_intervention(args), options.chosen_pairs(args)
    settings = command_line.settings(args, command_line.command(HERE.name, argv))
    asked = {"windows": args.windows, "factors": args.factors, "subspaces": args.subspaces, "generate": args.generate}
    experiment = experiment_of(settings, spec, choice, **asked, cache_gb=args.cache_gb)
    # 2. The model.
    model, below = settle(settings.model, redraw=args.redraw)
    settings = replace(settings, model=model)
    if args.plan:
        from activation_patching.plan import plan_run, plan_units

        if spec.intervention in ("span", "exchange"):
            return print(plan_run(settings, spec, choice, cache_gb=args.cache_gb))
        return print(plan_units(experiment, settings))
    # 3. For each prompt: choose, open the model, set up, make the rows, end, draw (common/run/stages.py has their order).
    out = args.out or HERE / "outputs" / below / ("" if spec.whole_span else spec.intervention)
    with lock.held(out):
        over_prompts(experiment, settings, out, draw, cache_gb=args.cache_gb)


def experiment_of(
    settings: Settings,
    spec: InterventionSpec,
    choice: PairChoice,
    *,
    windows: list[int],
    factors: list[float],
    subspaces: Path | None,
    generate: int,
    cache_gb: float | None,
) -> stages.Experiment:
    """Return what a run of the intervention does."""
    asked: dict[str, Any]
    if spec.intervention == "knockout":
        asked, *work = knockout.steps(settings, windows, generate)
    elif spec.intervention == "components":
        asked, *work = components.steps(choice, spec, generate, cache_gb=cache_gb)
    elif spec.intervention == "scale":
        asked, *work = scale.steps(settings, spec, factors, subspaces, generate)
    else:
        asked = choice.record() | asdict(spec)
        ready = partial(set_up, spec=spec, seed=settings.seed, generate=generate, cache_gb=cache_gb)
        work = [partial(choose, choice=choice, spec=spec), ready, spec.engines]
    asked |= {"skip_bad": settings.skip_bad, "layers": settings.layers} | ({"generate": generate} if generate else {})
    return stages.Experiment(HERE.name, kind_of, asked, *work, asks_again=spec.intervention == "scale")


def set_up(
    session: "Session",
    chosen: Chosen,
    run: run_folder.Run,
    *,
    spec: InterventionSpec,
    seed: int,
    generate: int,
    cache_gb: float | None,
) -> stages.Prepared:
    """Return the work on pairs that are patched whole, or in a subspace; `generate` of each kind go on in free text."""
    from activation_patching.exchange.rows import maker

    pairs, held_out = chosen.units
    groups = groups_of(pairs, spec.intervention)
    make, checked, ask = maker(session, groups, spec, held_out, seed=seed, earlier=run.rows, cache_gb=cache_gb)
    work = run_folder.Work(make, groups, lambda pair: pair.pair_id, session.layers)
    title = f"{len(pairs)} pairs of {chosen.counts['clips']} clips x"
    speaking = speaking_pairs(pairs, generate, seed=seed)
    return stages.Prepared(session, work, title, checked, end=partial(end, session=session, speaking=speaking, ask=ask))


def end(run: run_folder.Run, *, session: "Session", speaking: list[Pair], ask: Callable[[Pair], Any]) -> stages.Ended:
    """Let pairs go on in free text; return what noise did to the rows, and how far their ends are from the clips' own runs."""
    from activation_patching.free_text.rows import speak

    counts = speak(session, run, [[p] for p in speaking], lambda p: p.pair_id, lambda group: ask(group[0]))
    if not processes.is_leader():
        return {}, []
    rows = read_table(run.rows)
    noise, warnings = noise_of(rows, engine=session.engine)
    return own_run_differences(rows) | noise | counts, warnings


def results(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> stages.Results:
    tables = tables_of(rows) | free_text_tables(out, rows, unit="pair_id", answer="pred_patch", keys=("kind",))
    lines = summary(tables, record["identity"]["intervention"]) + free_text_summary(tables)
    return stages.Results(tables, units_of(record), lines)


def kind_of(intervention: str) -> stages.Kind:
    """Return what a run of the intervention leaves, and how that is shown."""
    others = {"knockout": knockout.KIND, "components": components.KIND, "scale": scale.KIND}
    return others.get(intervention) or stages.Kind("patches.csv", "pair_id", results, plot_run, headline)


draw = partial(stages.draw, kind_of)

if __name__ == "__main__":
    command_line.main_of(main)
