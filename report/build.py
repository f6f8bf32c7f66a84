"""Build the report from the runs of both experiments: report.md and report.html, in English and in Chinese.

It reads rows, tables and run.json, needs no model, and joins only runs of the same model, prompt, clips and labels.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from common.errors import InputError  # noqa: E402
from common.plotting import chinese_font  # noqa: E402
from report.chapters import chapter, figure_words  # noqa: E402
from report.clips import encoded, read_samples  # noqa: E402
from report.closer import about, clips_shown, closer_look  # noqa: E402
from report.compare import headlines, side_by_side  # noqa: E402
from report.inputs import names_of, read_studies  # noqa: E402
from report.markdown import slug  # noqa: E402
from report.render import report_html, report_md  # noqa: E402
from report.wording.words import LANGUAGES  # noqa: E402

AUDIO = 6_500_000  # bytes of a page that audio may take, in base64


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--lens", type=Path, nargs="+", default=[ROOT / "logit_lens" / "outputs"], metavar="DIR", help="of logit_lens/run.py")
    patching = [ROOT / "activation_patching" / "outputs"]
    add("--patching", type=Path, nargs="+", default=patching, metavar="DIR", help="of activation_patching/run.py")
    add("--out", type=Path, default=HERE, metavar="DIR", help="folder for the report and its figures/")
    add("--lang", choices=tuple(LANGUAGES), help="one language only (default: both)")
    add("--note", default="", metavar="TEXT", help="what the model has seen of the clips in training: it stands with the limits")
    add("--no-audio", action="store_true", help="leave the clips' audio out of the page")
    args = parser.parse_args(argv)
    try:
        for file in build(args.lens, args.patching, args.out, [args.lang] if args.lang else list(LANGUAGES), audio=not args.no_audio):
            print(f"written: {file}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def build(lens: list[Path], patching: list[Path], out: Path, languages: list[str], *, audio: bool) -> list[Path]:
    """Write the report into `out` in each language; return the files. Raises InputError where there is nothing to report."""
    studies, troubles = read_studies(lens, patching)
    names = names_of(studies)
    sets, looks = {}, []
    samples = []
    for study, name in zip(studies, names):
        known, strange = read_samples(study)
        look = closer_look(study, name)
        samples.append(known)
        looks.append(look)
        troubles += [t for t in strange if t not in troubles]
        told = sets.setdefault(look["set"], {"about": {}, "audio": {}})
        shown = [n for n in clips_shown(look) if n in known and n not in told["about"]]
        told["about"] |= about(known, shown)
        if audio:
            told["audio"] |= encoded((known[n] for n in shown), budget=AUDIO // len({str(s.first.identity["data"]) for s in studies}))
    data = {"studies": looks, "sets": sets}
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for language in languages:
            words = figure_words(language) if chinese_font() else None
            end = "" if language == "en" else f".{language}"
            base = "figures" if language == "en" else f"figures/{language}"
            chapters = [
                chapter(s, n, k, out=out, folder=f"{base}/{slug(n)}".rstrip("/"), language=language, words=words)
                for s, n, k in zip(studies, names, samples)
            ]
            figures = side_by_side(chapters, out=out, folder=base, language=language, words=words)
            compared = {"figures": figures, "table": headlines(chapters, LANGUAGES[language]) if len(chapters) > 1 else ""}
            text = report_md(chapters, troubles, compared, language=language, page=f"report{end}.html")
            (out / f"report{end}.md").write_text(text, encoding="utf-8")
            (out / f"report{end}.html").write_text(report_html(text, data, out=out, language=language), encoding="utf-8")
            written += [out / f"report{end}.md", out / f"report{end}.html"]
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    return written


if __name__ == "__main__":
    main()
