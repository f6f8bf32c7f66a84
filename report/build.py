"""Build the report in English and Chinese from the outputs of both experiments.

It reads rows, tables and run.json, and needs no model. Runs of the same model, prompt, clips and labels are read together, others
side by side. Runs in folders below them become chapters (logit_lens/README.md, activation_patching/README.md). What is missing,
partial or mixed up stands at the top. report.html is one file that loads nothing from anywhere.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
if ROOT / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import patient_streams, prepare

prepare(__file__)

from activation_patching.span.findings import span_effects
from common import files
from common.clips.manifest import Sample
from common.clips.pairs import CUES
from common.errors import InputError
from common.files import write_whole
from common.paths import given_path
from common.plotting import FigureStyle, families
from common.run.record import shown
from logit_lens.findings import lens_findings
from report.language import LANGUAGES, Say, decimals, interval, texts, translation
from report.markdown import plain, slug, table
from report.page.clips import encoded, read_samples
from report.page.html import PAGE, report_html
from report.page.inspector import about, clips_shown, closer_look
from report.render import Compared, file_names, report_md
from report.runs import Study, Trouble, names_of, read_studies
from report.sections.figures import plot_side_by_side
from report.study import Chapter, chapter


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--lens",
        type=given_path,
        nargs="+",
        default=[ROOT / "logit_lens" / "outputs"],
        metavar="DIR",
        help="outputs of logit_lens/run.py (default: its own)",
    )
    patching = [ROOT / "activation_patching" / "outputs"]
    outputs = "outputs of activation_patching/run.py (default: its own)"
    add("--patching", type=given_path, nargs="+", default=patching, metavar="DIR", help=outputs)
    add("--out", type=given_path, default=HERE, metavar="DIR", help="folder for the report and its figures/ (default: report/)")
    add("--lang", choices=LANGUAGES, help="one language only (default: both)")
    add("--note", default="", metavar="TEXT", help="what the model has seen of the clips in training: it stands with the limits")
    add(
        "--note-zh",
        default="",
        metavar="TEXT",
        help="the same in Chinese, for the report in Chinese (default: as --note says it)",
    )
    add("--no-audio", action="store_true", help="leave the clips' audio out of the page")
    args = parser.parse_args(argv)
    try:
        languages = [args.lang] if args.lang else LANGUAGES
        notes = {"en": args.note, "zh": args.note_zh or args.note}
        written = build(args.lens, args.patching, out=args.out, languages=languages, notes=notes, audio=not args.no_audio)
        print(closing(written, *read_studies(args.lens, args.patching)[0]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def closing(written: Sequence[Path], study: Study, *others: Study) -> str:
    """Return what the terminal shows: what the first study found, and where page and text are."""
    lines = []
    if study.lens and not study.first.record.get("test_weight"):
        answers = lens_findings(study.lens.tables).answers
        shares = (
            f"the words' {answers.words.value:.2f}, the voice's {answers.voice.value:.2f}, neither {answers.neither.value:.2f}"
        )
        lines.append(f"answers  {shares} of {answers.lead.n} conflict clips")
    if study.patching and not study.first.record.get("test_weight"):
        found = [
            f"the {CUES[f.kind]} {f.effect.value:.2f} [{f.effect.low:.2f}, {f.effect.high:.2f}]"
            for f in span_effects(study.patching.tables)
        ]
        lines.append(f"effects  of the donor's audio: {', '.join(found)}")
    lines += [f"more     {len(others)} other studies, a chapter each"] * bool(others)
    for name, kind in (("page", ".html"), ("text", ".md")):
        lines.append(f"{name:9}{', '.join(shown(f) for f in written if f.suffix == kind and f.name.startswith('report'))}")
    return "\n".join(lines)


def build(
    lens: Sequence[Path], patching: Sequence[Path], *, out: Path, languages: Sequence[str], notes: dict[str, str], audio: bool
) -> list[Path]:
    """Write the report of the runs' folders in each language; return its files. Raises InputError where there is none."""
    files.check(out)
    studies, troubles = read_studies(lens, patching)
    names = names_of(studies)
    clips, strange = zip(*map(read_samples, studies))
    troubles += dict.fromkeys(t for some in strange for t in some)
    data = page_data(studies, names, clips, audio=audio)
    written: list[Path] = []
    try:
        files.take(out)
        for language in languages:
            chapters = [(study, name, known) for study, name, known in zip(studies, names, clips)]
            written += _write(chapters, troubles, data, out=out, language=language, note=notes[language])
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    return written


def _write(
    studies: Sequence[tuple[Study, str, dict[str, Sample]]],
    troubles: Sequence[Trouble],
    data: dict[str, Any],
    *,
    out: Path,
    language: str,
    note: str,
) -> list[Path]:
    """Write the report, its tables and its page in one language, with its figures; return the files."""
    words = texts(language) if len(families()) > 1 else None  # a font that has Chinese
    style = FigureStyle(words, ("png", "svg"))  # for the Markdown, for the page
    say, folder = translation(language), "figures" if language == "en" else f"figures/{language}"
    out.mkdir(parents=True, exist_ok=True)
    chapters = [
        chapter(study, name, known, out=out, folder=f"{folder}/{slug(name)}".rstrip("/"), style=style, say=say)
        for study, name, known in studies
    ]
    compared = None
    if len(chapters) > 1:
        compared = Compared(side_by_side(chapters, say), {"side_by_side": f"{folder}/side_by_side.png"})
        plot_side_by_side({c.name: c.study for c in chapters}, out / compared.figures["side_by_side"], style)
    report, tables = report_md(chapters, troubles, compared, language=language, note=note)
    page = report_html(report, tables, data, out=out, language=language)
    names = file_names(language)
    written = []
    for kind, content in (("report", report), ("tables", tables), ("page", page)):
        written.append(out / names[kind])
        write_whole(written[-1], content)
    return written


def side_by_side(chapters: Sequence[Chapter], say: Say) -> str:
    """Return a table of the primary outcomes, a row for each study."""
    rows = []
    for c in chapters:
        found = [c.lens.answers.lead if c.lens else None]
        found += [c.spans[kind].effect if kind in c.spans and c.spans[kind].enough else None for kind in ("semantic", "prosody")]
        rows.append([plain(c.name), *(f"{decimals(f)} [{interval(f)}]" if f else "–" for f in found)])
    outcomes = ("voice − words", "effect of the words", "effect of the voice")
    return table([say("study"), *map(say, outcomes)], rows)


def page_data(studies: list[Study], names: list[str], clips: Sequence[dict[str, Sample]], *, audio: bool) -> dict[str, Any]:
    """Return what the page shows beside the report: each study's clips and pairs, and once for each manifest text and audio."""
    looks = [closer_look(study, name, of=len(studies)) for study, name in zip(studies, names)]
    known: dict[str, dict[str, Sample]] = {}
    for style, of_study in zip(looks, clips):
        known.setdefault(style["set"], {}).update({n: of_study[n] for n in clips_shown(style) if n in of_study})
    budget = PAGE // len(known)
    sets = {
        name: {"about": about(some), "audio": encoded(some.values(), budget=budget) if audio else {}}
        for name, some in known.items()
    }
    return {"studies": looks, "sets": sets}


if __name__ == "__main__":
    patient_streams()
    main()
