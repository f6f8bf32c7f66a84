"""`--plan`: estimate time and memory of a logit lens run."""

import argparse

from common.clips.manifest import read_clips
from common.compute.usable_clips import usable_clips
from common.model.generation import MOST_TOKENS
from common.model.prompts import variants
from common.run import command_line
from common.run.plan import Cost, Plan, checks_seconds, open_plan, tell, written
from logit_lens.choose import choose_clips
from logit_lens.rows import layers_of


def plan_run(args: argparse.Namespace) -> str:
    """Return what the run that the command line asks for would be given and would take. Raises InputError as the run does."""
    model, question = command_line.chosen_model(args), command_line.asked_question(args, args.prompt)
    clips, others = read_clips(args.data, args.labels, texts=args.input != "audio" and not args.skip_bad)
    clips, bad = usable_clips(clips, model, question) if args.skip_bad else (clips, {})
    samples, counts = choose_clips(clips, limit=args.limit, seed=args.seed)
    counts["dropped"] |= {**others, **bad}
    plan = open_plan(model, question, samples, engines=(), layers=args.layers)
    prompts = len(variants(args.prompt)) if args.prompts == "all" else 1
    return tell(plan, cost_of(plan, len(samples), args), counts, prompts=prompts)


def cost_of(plan: Plan, clips: int, args: argparse.Namespace) -> Cost:
    """Return what the rows of so many clips take: one is made with the code of the run."""

    def one_clip() -> list[dict[str, object]]:
        return next(layers_of(plan.session, [[plan.clip]]))

    run_seconds = plan.weightless.seconds(one_clip)
    _, row_bytes = written(one_clip)
    runs = clips * (1 + (args.lens == "tuned") + args.probe) + args.generate * MOST_TOKENS / 4
    layers = len(plan.session.layers)
    states = 2 * 2 * clips * layers * plan.session.lm.model.config.get_text_config().hidden_size * 4 if args.probe else 0
    seconds = runs * run_seconds + checks_seconds(plan, clips, run_seconds)
    return Cost(seconds, clips * layers, row_bytes, files=states)
