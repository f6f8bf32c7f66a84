"""`--plan`: estimate time and memory of a logit lens run."""

from common.model.generation import MOST_TOKENS
from common.run.plan import Cost, Plan, checks_seconds, open_plan, tell, written
from common.run.settings import Settings
from common.run.stages import Experiment, choose
from logit_lens.options import LensOptions
from logit_lens.rows import layers_of


def plan_run(experiment: Experiment, settings: Settings, lens: LensOptions) -> str:
    """Return what the run that is asked for would be given and would take. Raises InputError as the run does."""
    question = settings.question
    chosen = choose(experiment, settings, question)
    plan = open_plan(settings.model, question, chosen.clips, engines=(), layers=settings.layers)
    return tell(plan, cost_of(plan, len(chosen.clips), lens), chosen.counts, prompts=len(settings.questions))


def cost_of(plan: Plan, clips: int, lens: LensOptions) -> Cost:
    """Return what the rows of so many clips take: one is made with the code of the run."""

    def one_clip() -> list[dict[str, object]]:
        return next(layers_of(plan.session, [[plan.clip]]))

    run_seconds = plan.weightless.seconds(one_clip)
    _, row_bytes = written(one_clip)
    runs = clips * (1 + (lens.lens == "tuned") + lens.probe) + lens.generate * MOST_TOKENS / 4
    layers = len(plan.session.layers)
    states = 2 * 2 * clips * layers * plan.session.lm.model.config.get_text_config().hidden_size * 4 if lens.probe else 0
    seconds = runs * run_seconds + checks_seconds(plan, clips, run_seconds)
    return Cost(seconds, clips * layers, row_bytes, files=states)
