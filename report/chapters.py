"""What the templates say of one study, in one language: sentences with the rows they come from, figures, tables, commands."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from activation_patching.facts import patching_facts
from common.stats.facts import Fact, spread
from logit_lens.facts import lens_facts

from activation_patching.plots import plot_patching
from common.clips.samples import Sample
from common.plotting import Look
from common.running.output import subtitle
from logit_lens.plots import plot_lens
from report import statements
from report.alignment import Alignment, alignment
from report.clips import described
from report.edits import Edited, edited
from report.inputs import EXPERIMENTS, Outputs, Study
from report.ladder import Ladder, ladder
from report.markdown import Say, checks, lens_tables, patching_tables, slug
from report.observations import beyond_prior, cells, stretches, telling_from
from report.published import published_beside
from report.wording.words import FIGURES, LANGUAGES

NO_OPTIONS = {"model_files", "data_files", "code", "versions", "tokens", "engine", "commit", "prompt"}
LENS_ORDER = (
    "winrate_curve_conflict.png",
    "margin_curve_conflict.png",
    "probe_curve.png",
    "congruent_curve.png",
    "lens_health.png",
)


@dataclass(frozen=True)
class Chapter:
    """A study as a template shows it: everything that is text is Markdown already, `figures` are files below the report."""

    name: str
    study: Study
    data: dict[str, Any]
    short: list[str]
    lens: list[str]
    lens_summary: str
    patching: dict[str, list[str]]
    patching_summary: str
    together: str
    figures: dict[str, list[tuple[str, str]]]
    tables: list[tuple[str, str]]
    published: str
    alignment: Alignment | None
    ladder: Ladder | None
    edits: list[Edited]
    checks: str
    commands: list[str]
    facts: dict[str, Fact]
    kinds: dict[str, dict[str, Fact]]


def wording_of(language: str) -> ModuleType:
    return import_module(f"report.wording.{language}")


def chapter(
    study: Study,
    name: str,
    samples: dict[str, Sample],
    texts: Mapping[str, Outputs],
    *,
    out: Path,
    folder: str,
    language: str,
    words: Mapping[str, str] | None,
) -> Chapter:
    """Return a study's chapter; draw its figures into `out`/`folder`, in Chinese where there are `words`.

    `texts` are the lens runs of the same clips given as text, by the name of that form.
    """
    wording, say = wording_of(language), LANGUAGES[language]
    facts = all_lens_facts(study.lens) if study.lens else {}
    kinds = all_patching_facts(study.patching) if study.patching else {}
    tables = _tables(study, name, say)
    places = {(experiment, csv): slug(heading) for experiment, csv, heading, _ in tables}
    lens = _with_rows(statements.lens_sentences(facts, wording), facts, "lens", "", places, say)
    patching = {
        kind: _with_rows(statements.patching_sentences(kind, of_kind, wording), of_kind, "patching", kind, places, say)
        for kind, of_kind in kinds.items()
    }
    short = [lens[n] for n in statements.SHORT if n in lens]
    short += [said[n] for said in patching.values() for n in ("flips",) if n in said]
    figures = _figures(study, out, folder, wording, words)
    runs = [*study.runs, *texts.values()]
    return Chapter(
        name=name,
        study=study,
        data=described(study, samples),
        short=short,
        lens=list(lens.values()),
        lens_summary=wording.lens_summary(facts) if facts else "",
        patching={kind: list(said.values()) for kind, said in patching.items()},
        patching_summary=wording.patching_summary(kinds) if kinds else "",
        together=wording.together(facts, kinds) if facts and kinds else "",
        figures=figures,
        tables=[(heading, text) for _, _, heading, text in tables],
        published=published_beside(study.lens.tables["layers"], study.lens.record, say) if study.lens else "",
        alignment=alignment(study.patching, out=out, folder=folder, words=words) if study.patching else None,
        ladder=ladder(study, texts, out=out, folder=folder, wording=wording, say=say, words=words),
        edits=edited(study.patching, wording=wording, out=out, folder=folder, words=words) if study.patching else [],
        checks=checks(runs, say),
        commands=[command(run) for run in runs],
        facts=facts,
        kinds=kinds,
    )


def all_lens_facts(run: Outputs) -> dict[str, Fact]:
    """Return the findings of a lens run, those that only the report has among them."""
    facts = lens_facts(run.tables)
    layers = run.tables["layers"]
    facts |= {f"margin_excess: stretch {i}": f for i, f in enumerate(stretches(layers, "margin_excess", unit="logits"))}
    facts |= {f.name: f for f in (*beyond_prior(layers), *telling_from(layers), *cells(run.tables["labels"]))}
    return facts | {f.name: f for what in ("voice_lead at l = L", "crossing") for f in spread(run.prompts, what)}


def all_patching_facts(run: Outputs) -> dict[str, dict[str, Fact]]:
    """Return the findings of a patching run by kind of pair."""
    found = {}
    for kind, facts in patching_facts(run.tables).items():
        over = (
            *(f"{kind} pairs: {o} over control, mean of inner layers" for o in ("flips", "delta")),
            f"{kind} pairs: below half from",
        )
        found[kind] = facts | {f.name: f for what in over for f in spread(run.prompts, what)}
    return found


def _with_rows(
    sentences: Mapping[str, str],
    facts: Mapping[str, Fact],
    experiment: str,
    kind: str,
    places: Mapping[tuple[str, str], str],
    say: Say,
) -> dict[str, str]:
    """Return each sentence with links to the tables' rows that it comes from."""
    uses = statements.LENS if experiment == "lens" else statements.PATCHING
    found = {}
    for name, text in sentences.items():
        rows = dict.fromkeys(facts[n].row for n in (name, *uses[name]) if n in facts)
        links = []
        for row in rows:
            csv, _, place = row.partition(", ")
            shown = ", ".join(filter(None, [csv, say(place)]))
            anchor = places.get((experiment, csv))
            title = "; ".join(filter(None, [say(kind), place])) or csv  # the page looks for the row by it
            links.append(f'[{shown}](#{anchor} "{title}")' if anchor else shown)
        found[name] = f"{text} ({'; '.join(links)})"
    return found


def _tables(study: Study, name: str, say: Say) -> list[tuple[str, str, str, str]]:
    """Return the tables of a study as (experiment, file, heading, table); headings differ, so that links find theirs."""
    found = []
    for run in study.runs:
        of_run = lens_tables(run, say) if run.experiment == "lens" else patching_tables(run, say)
        of_study = f"{name}: " if name else ""
        found += [(run.experiment, csv, f"{of_study}{EXPERIMENTS[run.experiment]} {csv}", text) for csv, text in of_run.items()]
    return found


def _figures(
    study: Study, out: Path, folder: str, wording: ModuleType, words: Mapping[str, str] | None
) -> dict[str, list[tuple[str, str]]]:
    """Draw the figures of a study; return them with captions by where they stand: lens, semantic, prosody, both."""
    found: dict[str, list[tuple[str, str]]] = {}
    (out / folder).mkdir(parents=True, exist_ok=True)
    for run in study.runs:
        look = Look(subtitle(run.record), words)
        names = (plot_lens if run.experiment == "lens" else plot_patching)(run.folder, out / folder, look)
        order = [n for n in LENS_ORDER if n in names] if run.experiment == "lens" else names
        for file in order:
            kind = next((k for k in ("semantic", "prosody") if file.endswith(f"_{k}.png")), "both")
            place = "lens" if run.experiment == "lens" else kind
            found.setdefault(place, []).append((f"{folder}/{file}", wording.CAPTIONS[file.replace(f"_{kind}.png", "_kind.png")]))
    return found


def command(run: Outputs) -> str:
    """Return the command that makes a run again, with every option that its rows depend on."""
    parts = ["python", f"{EXPERIMENTS[run.experiment]}/run.py", "--prompt", str(run.record["prompt_name"])]
    options = {name: value for name, value in run.identity.items() if name not in NO_OPTIONS}
    options |= dict(options.pop("rules", {}))
    options["input"] = options.get("input") if options.get("input") != "audio" else None  # the default; patching has no other
    if options.get("intervention") == "span":
        del options["intervention"], options["at"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is False and name.startswith("same_"):
            parts.append(flag.replace("--", "--no-", 1))
        elif name == "pairs_file" and value:
            parts += [flag, "FILE"]  # run.json has its digest alone
        elif value not in (None, False, [], ""):
            parts += [flag, *([] if value is True else map(str, value if isinstance(value, list) else [value]))]
    return shlex.join(parts)


def figure_words(language: str) -> Mapping[str, str] | None:
    """Return the words that figures are labelled with; None for those they are written in."""
    return FIGURES if language == "zh" else None
