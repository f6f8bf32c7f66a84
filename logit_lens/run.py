"""Experiment 1, logit lens: what an audio language model would answer at every layer, on clips whose words and voice disagree."""

import sys
from collections.abc import Sequence
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

from common import lock, processes
from common.clips.csvfile import read_table
from common.clips.manifest import Sample
from common.compute.rounding import noise_of
from common.default_model import settle
from common.plotting import FigureStyle
from common.run import command_line, run_folder, stages, terminal
from common.run.over_prompts import over_prompts
from common.run.settings import Chosen, Settings
from logit_lens.choose import choose_clips
from logit_lens.encoder.plots import plot_stages
from logit_lens.encoder.probe import stage_tables
from logit_lens.findings import headline, lens_findings
from logit_lens.fitted.probe import probe_tables
from logit_lens.options import OPTIONS, LensOptions
from logit_lens.plots import plot_lens
from logit_lens.summary import summary, units_of
from logit_lens.tables import lens_tables

if TYPE_CHECKING:
    from common.compute.session import Session  # torch, which drawing does without
    from logit_lens.rows import Files


def main(argv: list[str] | None = None) -> None:
    # 1. What is asked, checked before any model is put together or downloaded.
    args = command_line.argument_parser(__doc__, OPTIONS).parse_args(argv)
    settings = command_line.settings(args, command_line.command(HERE.name, argv))
    lens = LensOptions(args.lens, args.generate, args.probe)
    # 2. The model.
    model, below = settle(settings.model, redraw=args.redraw)
    settings = replace(settings, model=model)
    if args.plan:
        from logit_lens.plan import plan_run

        return print(plan_run(experiment(settings, lens), settings, lens))
    # 3. For each prompt: choose, open the model, set up, make the rows, end, draw (common/run/stages.py has their order).
    out = args.out or HERE / "outputs" / below / ("" if args.input == "audio" else args.input)
    with lock.held(out):
        over_prompts(experiment(settings, lens), settings, out, draw)


def experiment(settings: Settings, lens: LensOptions) -> stages.Experiment:
    options = {name: getattr(settings, name) for name in ("limit", "seed", "skip_bad", "layers")} | asdict(lens)
    chosen = partial(choose, limit=settings.limit, seed=settings.seed)
    return stages.Experiment(HERE.name, kind_of, options, chosen, partial(set_up, lens=lens, seed=settings.seed))


def choose(clips: list[Sample], labels: Sequence[str], *, limit: int | None, seed: int) -> Chosen:
    samples, counts = choose_clips(clips, limit=limit, seed=seed)
    return Chosen(samples, counts, samples)


def set_up(session: "Session", chosen: Chosen, run: run_folder.Run, *, lens: LensOptions, seed: int) -> stages.Prepared:
    from logit_lens.rows import work_of

    work, files = work_of(session, chosen.clips, run.out, **asdict(lens), seed=seed)
    title = f"{chosen.counts['clips']} conflict and {chosen.counts['congruent clips']} congruent clips x"
    return stages.Prepared(session, work, title, end=partial(end, session, chosen.clips, files, seed=seed))


def end(session: "Session", samples: list[Sample], files: "Files | None", run: run_folder.Run, *, seed: int) -> stages.Ended:
    """Record the states of random weights, where there are probes; return what noise did to the rows."""
    from logit_lens.fitted.recording import record_untrained

    more = record_untrained(session, samples, files, seed=seed) if files else []
    if not processes.is_leader():
        return {}, []
    noise, warnings = noise_of(read_table(run.rows))
    return noise, warnings + more


def results(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> stages.Results:
    probed, lacking = probe_tables(out, record, rows)
    staged, lacking_too = stage_tables(out, record, rows)
    tables = lens_tables(rows) | probed | staged
    lines = [*summary(lens_findings(tables), record["identity"].get("input", "audio")), *lacking, *lacking_too]
    following = terminal.following("activation_patching/run.py", record, command_line.DEFAULTS)
    return stages.Results(tables, units_of(record), lines, following)


def plot(run: Path, out: Path, style: FigureStyle) -> list[str]:
    return [*plot_lens(run, out, style), *plot_stages(run, out, style)]


def kind_of(intervention: None) -> stages.Kind:
    return stages.Kind("lens.csv", "sample_id", results, plot, headline, main="layers")


draw = partial(stages.draw, kind_of)

if __name__ == "__main__":
    command_line.main_of(main)
