"""Experiment 2, activation patching: put one clip's audio states into another clip's run, at every layer."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
if HERE.parent / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import prepare

prepare(__file__)

from activation_patching import options
from activation_patching.choose import PairChoice
from activation_patching.components import stages as components
from activation_patching.intervention import InterventionSpec
from activation_patching.knockout import stages as knockout
from activation_patching.span import stages as span
from common.run import command_line, lock, stages
from common.run.default_model import settle
from common.run.over_prompts import over_prompts
from common.run.run_folder import read_record
from common.run.settings import Settings


def main(argv: list[str] | None = None) -> None:
    # 1. What is asked, checked before any model is put together or downloaded.
    parser = command_line.argument_parser(__doc__)
    options.add_pairs(parser)
    options.add_patching(parser)
    args = parser.parse_args(argv)
    spec, choice = options.chosen_intervention(args), options.chosen_pairs(args)
    settings = command_line.settings(args, command_line.command(HERE.name, argv))
    experiment = experiment_of(settings, spec, choice, windows=args.windows, cache_gb=args.cache_gb)
    # 2. The model.
    model, below = settle(settings.model, redraw=args.redraw)
    settings = replace(settings, model=model)
    if args.plan:
        from activation_patching.plan import plan_run  # torch, which drawing does without

        return print(plan_run(settings, spec, choice, cache_gb=args.cache_gb))
    # 3. The run of each prompt: choose, open the model, prepare, make the rows, draw (common/run/stages.py).
    out = args.out or HERE / "outputs" / below / ("" if spec.whole_span else spec.intervention)
    each = partial(stages.run, experiment, draw)
    with lock.held(out):
        over_prompts(settings, out, run=each, draw=draw, headline=headline, cache_gb=args.cache_gb)


def experiment_of(
    settings: Settings, spec: InterventionSpec, choice: PairChoice, *, windows: list[int], cache_gb: float | None
) -> stages.Experiment:
    """Return what a run of the intervention does."""
    if spec.intervention == "knockout":
        return knockout.experiment(settings, windows)
    if spec.intervention == "components":
        return components.experiment(settings, choice, cache_gb=cache_gb)
    return span.experiment(settings, spec, choice, cache_gb=cache_gb)


def kind_of(out: Path) -> stages.Kind:
    """Return the kind of the run in `out`: its record says which intervention that was."""
    intervention = read_record(out)["identity"].get("intervention")
    return {"knockout": knockout.KIND, "components": components.KIND}.get(intervention, span.KIND)


def draw(settings: Settings, out: Path) -> None:
    stages.draw(kind_of(out), settings, out)


def headline(out: Path) -> pd.DataFrame:
    return stages.headline(kind_of(out), out)


if __name__ == "__main__":
    command_line.main_of(main)
