"""Gather what a report is filled in with: findings, figures and tables of the runs on one model."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from activation_patching.components.plots import plot_run as plot_components
from activation_patching.free_text.tables import FreeText, free_text
from activation_patching.knockout.findings import Routes
from activation_patching.knockout.plots import plot_run as plot_knockout
from activation_patching.scale.plots import plot_run as plot_scale
from activation_patching.span.findings import ExchangeEffect, SpanEffect, exchange_effects, span_effects
from activation_patching.span.plots import plot_exchange
from common.clips.manifest import Sample
from common.clips.pairs import CUES
from common.plotting import FigureStyle, estimates, figure
from common.run.run_folder import mark_of, read_record
from common.stats.findings import Count, Estimate, Spread, fixed, over, spreads
from logit_lens.encoder.findings import StageDecoding, stage_decodings
from logit_lens.encoder.plots import plot_stages
from logit_lens.findings import LensFindings, Reading, lens_findings
from logit_lens.plots import draw_win_rates, plot_probe
from report.language import Say
from report.markdown import checks, slug, tables_below, tables_of_run
from report.page.clips import described
from report.runs import EXPERIMENTS, Outputs, Study, checks_of
from report.sections.figures import plot_alignments, plot_panel
from report.sections.ladder import Ladder, ladder, plot_ladder
from report.sections.published import published_beside
from report.sections.routes import Carriers, carriers, routes_of, run_below
from report.sections.scaling import Scaling, scaling

LONGEST = 90  # letters of a question that a title has room for


class Row(NamedTuple):
    """A row of the first page's table: an `outcome`, its `estimate`, digits, n of what; and the table's row that it is from."""

    outcome: str
    values: Mapping[str, object]
    estimate: Estimate | None
    digits: int
    unit: str
    anchor: str
    place: str


class Exchanged(NamedTuple):
    """A run that exchanged a subspace `at` a place: what it found, and the name of its figure."""

    at: str
    effects: list[ExchangeEffect]
    figure: str


@dataclass(frozen=True)
class Chapter:
    """A study as the templates show it; `figures` are files below the report, by what they show."""

    name: str
    study: Study
    data: dict[str, Any]
    lens: LensFindings | None
    stages: tuple[StageDecoding, ...]
    spans: dict[str, SpanEffect]
    spoken: FreeText | None  # under patches
    tuned: Reading | None
    level: LensFindings | None  # of the clips at one level
    ladder: Ladder | None
    exchanges: list[Exchanged]
    routes: list[Routes]
    carriers: Carriers | None
    scaling: Scaling | None
    spreads: list[Spread]
    alignment: tuple[str, int, float] | None
    published: str
    below: list[str]  # commands of runs that lie below those of the study
    figures: dict[str, str]
    tables: list[tuple[str, str]]
    over: tuple[Count, ...]
    fixed: tuple[Count, ...]
    checks: dict[str, Any]

    @property
    def model(self) -> str:
        return "/".join(Path(str(self.study.first.identity["model"])).parts[-2:])

    @property
    def parameters(self) -> float | None:
        return self.study.first.record.get("parameters")

    @property
    def prompt(self) -> str:
        return Path(str(self.study.first.record["prompt_name"])).name

    @property
    def question(self) -> str:
        """Return the question of the prompt; "" where it has none that a title has room for."""
        asked = re.search(r"[^.!。！}\n]*[?？]", str(self.study.first.record["prompt_text"]).replace("{audio}", ""))
        return asked[0].strip() if asked and len(asked[0]) <= LONGEST else ""

    @property
    def labels_asked(self) -> bool:
        """Tell whether the prompt names all labels."""
        return all(label in str(self.study.first.record["prompt_text"]) for label in self.data["labels"])

    @property
    def several_prompts(self) -> bool:
        return any(run.prompts is not None for run in self.study.runs)

    @property
    def tuned_itself(self) -> bool:
        return self.study.lens is not None and self.study.lens.identity.get("lens") == "tuned"

    @property
    def test_weight(self) -> bool:
        return bool(self.study.first.record.get("test_weight"))

    @property
    def runs(self) -> list[Outputs]:
        return [*self.study.runs, *self.study.beside.values()]

    @property
    def commands(self) -> list[str]:
        return [*(str(run.record["command"]) for run in self.runs if "command" in run.record), *self.below]

    @property
    def rows(self) -> list[Row]:
        """Return the five rows of the first page: two answers, two effects, and where half of one is gone."""
        rows, of_name = [], f"{self.name}: " if self.name else ""
        layers, summary = (
            slug(f"{of_name}{EXPERIMENTS[e]} {csv}.csv") for e, csv in (("lens", "layers"), ("patching", "summary"))
        )
        if self.lens:
            answers, at = self.lens.answers, f"l = {self.lens.reading.last_layer}"
            for what, found in (("words'", answers.words), ("voice's", answers.voice)):
                rows.append(Row(f"answer is the {what} label", {}, found, 2, "{n} clips", layers, at))
        halves = [f for f in self.spans.values() if f.half_effect_layer] or list(self.spans.values())
        for kind, f in self.spans.items():
            what = f"effect of the donor's {_cue(kind)}, layers {{first}}–{{last}}"
            ends = {"first": f.layers[0], "last": f.layers[1]}
            rows.append(Row(what, ends, f.effect if f.enough else None, 2, "{n} pairs", summary, kind))
        for f in halves[: 1 if self.lens else 2]:
            what = f"half of the {_cue(f.kind, owner=True)} effect is gone by layer"
            rows.append(Row(what, {}, f.half_effect_layer, 1, "{n} pairs", summary, f.kind))
        return rows


def _cue(kind: str, *, owner: bool = False) -> str:
    return CUES[kind] + ({"semantic": "'", "prosody": "'s"}[kind] if owner else "")


def chapter(
    study: Study, name: str, samples: dict[str, Sample], *, out: Path, folder: str, style: FigureStyle, say: Say
) -> Chapter:
    """Return a study's chapter; draw its figures into `out`/`folder`."""
    style = replace(style, mark=mark_of(study.first.record))
    (out / folder).mkdir(parents=True, exist_ok=True)
    figures: dict[str, str] = {}

    def draw(name: str, plot: Callable[..., Any], *what: Any) -> Any:
        figures[name] = f"{folder}/{name}.png"
        return plot(*what, out / figures[name], style)

    draw("panel", plot_panel, study)
    lens = lens_findings(study.lens.tables) if study.lens else None
    if study.lens and plot_probe(study.lens.folder, out / folder, style):
        figures["probe"] = f"{folder}/probe_curve.png"
    if study.lens and plot_stages(study.lens.folder, out / folder, style):
        figures["stages"] = f"{folder}/encoder_curve.png"
    if (rungs := ladder(study)) is not None:
        draw("ladder", plot_ladder, rungs)
    tuned = study.beside.get("tuned")
    if tuned:
        draw("tuned", _plot_tuned, tuned)
    prompts = [run.prompts for run in study.runs if run.prompts is not None]
    if prompts:
        draw("prompts", estimates, pd.concat(prompts))
    plots = {"knockout": plot_knockout, "components": plot_components, "scale": plot_scale}
    places = {name_of: run_below(study, name_of) for name_of in plots}
    for name_of, place in places.items():
        if place is not None:
            file, *_ = plots[name_of](place, out / folder, style)
            figures[name_of] = f"{folder}/{file}"
    aligned = draw("align", plot_alignments, study.patching) if study.patching else None
    spans = sorted(span_effects(study.patching.tables), key=lambda f: f.kind != "semantic") if study.patching else []
    scope = (study.lens or study.first).tables["layers"].iloc[-1]
    return Chapter(
        name=name,
        study=study,
        data=described(study, samples),
        lens=lens,
        stages=stage_decodings(study.lens.tables.get("stages", pd.DataFrame())) if study.lens else (),
        spans={f.kind: f for f in spans},
        spoken=free_text(study.patching.tables) if study.patching else None,
        tuned=lens_findings(tuned.tables).reading if tuned else None,
        level=lens_findings(study.beside["level"].tables) if "level" in study.beside else None,
        ladder=rungs,
        exchanges=_exchanges(study, figures, out=out, folder=folder, style=style),
        routes=routes_of(places["knockout"]) if places["knockout"] else [],
        carriers=carriers(places["components"]) if places["components"] else None,
        scaling=scaling(places["scale"]) if places["scale"] else None,
        spreads=[found for table in prompts for found in spreads(table)],
        alignment=aligned,
        published=published_beside(study.lens, say) if study.lens else "",
        below=[str(read_record(place)["command"]) for place in places.values() if place],
        figures=figures,
        tables=_tables(study, name, {name_of: place for name_of, place in places.items() if place}, say),
        over=over(scope),
        fixed=tuple(count for count in fixed(scope) if count.name != "sources"),
        checks=_checked([*study.runs, *study.beside.values()]),
    )


def _plot_tuned(run: Outputs, path: Path, style: FigureStyle) -> None:
    with figure(path, style) as (axes,):
        draw_win_rates(axes, run.tables["layers"], run.tables["congruent"], style)


def _exchanges(study: Study, figures: dict[str, str], *, out: Path, folder: str, style: FigureStyle) -> list[Exchanged]:
    found = []
    for name, run in study.beside.items():
        if run.experiment == "patching":
            place = f"{folder}/{slug(name)}"
            (out / place).mkdir(parents=True, exist_ok=True)
            (file,) = plot_exchange(run.tables["layers"], out / place, style)
            figures[name] = f"{place}/{file}"
            found.append(Exchanged(str(run.identity["at"]), exchange_effects(run.tables), name))
    return found


def _tables(study: Study, name: str, below: Mapping[str, Path], say: Say) -> list[tuple[str, str]]:
    """Return the tables of a study and of the runs `below` it with their headings, which all differ; self-checks last."""
    of_study = f"{name}: " if name else ""
    found = []
    for place, run in [*(("", run) for run in study.runs), *study.beside.items()]:
        where = f"{of_study}{EXPERIMENTS[run.experiment]} {f'{place}/' if place else ''}"
        some = tables_of_run(run, say)
        kept = some if not place else {csv: some[csv] for csv in ("summary.csv", "layers.csv") if csv in some}
        found += [(f"{where}{csv}", text) for csv, text in kept.items()]
    for intervention, folder in below.items():
        where = f"{of_study}{EXPERIMENTS['patching']} {intervention}/"
        found += [(f"{where}{csv}", text) for csv, text in tables_below(folder, intervention, say).items()]
    return [*found, (f"{of_study}{say('self-checks')}", checks([*study.runs, *study.beside.values()], say))]


def _checked(runs: Sequence[Outputs]) -> dict[str, Any]:
    """Return how many self-checks there are, how many failed, and the largest difference."""
    measured = [(run.record.get("self_check", {}), checks_of(run)) for run in runs]
    values = [(float(m[c]), float(m.get("tolerance", 0))) for m, names in measured for c in names if c in m]
    off = sum(not value <= tolerance for value, tolerance in values)
    return {"count": len(values), "failed": off, "largest": max((v for v, _ in values), default=0.0)}
