"""Experiment 1, logit lens: what an audio language model would answer at every layer, on clips whose words and voice disagree."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
if HERE.parent / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import prepare

prepare(__file__)

from common.run import command_line, lock, stages
from common.run.default_model import settle
from common.run.over_prompts import over_prompts
from common.run.settings import Settings
from logit_lens.options import LensOptions, add_options
from logit_lens.stages import KIND, experiment


def main(argv: list[str] | None = None) -> None:
    # 1. What is asked, checked before any model is put together or downloaded.
    parser = command_line.argument_parser(__doc__)
    add_options(parser)
    args = parser.parse_args(argv)
    settings = command_line.settings(args, command_line.command(HERE.name, argv))
    options = LensOptions(args.lens, args.generate, args.probe)
    # 2. The model.
    model, below = settle(settings.model, redraw=args.redraw)
    settings = replace(settings, model=model)
    if args.plan:
        from logit_lens.plan import plan_run  # torch, which drawing does without

        return print(plan_run(settings, options))
    # 3. The run of each prompt: choose, open the model, prepare, make the rows, draw (common/run/stages.py).
    out = args.out or HERE / "outputs" / below / ("" if args.input == "audio" else args.input)
    each = partial(stages.run, experiment(settings, options), draw)
    with lock.held(out):
        over_prompts(settings, out, run=each, draw=draw, headline=partial(stages.headline, KIND))


def draw(settings: Settings, out: Path) -> None:
    stages.draw(KIND, settings, out)


if __name__ == "__main__":
    command_line.main_of(main)
