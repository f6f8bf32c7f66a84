"""Fill in the templates: Markdown from the chapters, and from that one page with everything in it."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from common.running.identity import digest
from report.chapters import Chapter
from report.inputs import Trouble
from report.language import formats, texts, translation
from report.markdown import code, plain, slug

TEMPLATES = Path(__file__).resolve().parent / "templates"


class Compared(NamedTuple):
    """Several studies side by side: a table, and a figure by its name."""

    table: str
    figures: dict[str, str]


def file_names(language: str) -> dict[str, str]:
    """Return the names of the report, its tables and its page in a language."""
    end = "" if language == "en" else f".{language}"
    return {"report": f"report{end}.md", "tables": f"tables{end}.md", "page": f"report{end}.html"}


def environment(language: str) -> Environment:
    """Return what fills in the Markdown templates; whatever comes from a run or a manifest goes through `plain` or `code`."""
    say = translation(language)
    options: Any = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    env = Environment(loader=FileSystemLoader(TEMPLATES), **options)
    env.globals |= {"_": say, "language": language}
    env.filters |= formats(language) | {
        "plain": plain,
        "code": code,
        "say": say,
        "oneline": lambda text: " ".join(str(text).split()).replace("。 ", "。"),
        "tiny": lambda difference: f"{difference:.0e}" if difference else "0",
        "fenced": lambda text: text.replace("```", "'''"),
        "reasons": lambda counts: ", ".join(f"{n} {plain(say(reason))}" for reason, n in counts.items() if n) or say("none"),
        "versions": lambda versions: ", ".join(f"{name} {number}" for name, number in versions.items()),
        "code_digest": lambda run: digest(json.dumps(run.identity["code"], sort_keys=True)),
    }
    return env


def report_md(
    chapters: Sequence[Chapter], troubles: Sequence[Trouble], compared: Compared | None, *, language: str, note: str
) -> tuple[str, str]:
    """Return the report and its tables in Markdown."""
    env, names = environment(language), file_names(language)
    told = {"chapters": chapters, "troubles": troubles, "compared": compared, "note": note}
    return tuple(  # type: ignore[return-value]
        _squeezed(env.get_template(f"{name}.md.jinja").render(**told, tables=names["tables"], page=names["page"]))
        for name in ("report", "tables")
    )


def _squeezed(text: str) -> str:
    """Return Markdown without the empty lines that templates leave behind: never two together, none within a list."""
    lines: list[str] = []
    for line in map(str.rstrip, text.splitlines()):
        if line.startswith("- ") and len(lines) > 1 and not lines[-1] and lines[-2].startswith("- "):
            lines.pop()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip() + "\n"


def report_html(report: str, tables: str, data: Mapping[str, Any], *, out: Path, language: str) -> str:
    """Return the report as one page that asks for nothing: figures, audio and numbers are in it."""
    say, names = translation(language), file_names(language)
    places = {names["page"]: "#closer", names["tables"]: f"#{slug(say('Tables'))}"}
    tokens, parser = _tokens(f"{report}\n#{tables}", out, places)  # the tables' title becomes a chapter's
    body = parser.renderer.render(tokens, parser.options, {}).replace("<table>", '<div class="scroll"><table>')
    body = body.replace("</table>", "</table></div>").replace("[!CAUTION]\n", "").replace("[!NOTE]\n", "")
    before, after = body.rsplit("<h2", 1)
    contents = [
        (t.attrs["id"], tokens[i + 1].content) for i, t in enumerate(tokens) if t.type == "heading_open" and t.tag == "h2"
    ]
    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    env.globals["_"] = say
    packed = json.dumps({**data, "words": texts(language) or {}}, ensure_ascii=False, separators=(",", ":"))
    for letter, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        packed = packed.replace(letter, escaped)
    return env.get_template("page.html").render(
        language={"en": "en", "zh": "zh-Hans"}[language],
        title=next(t.content for i, t in enumerate(tokens) if i and tokens[i - 1].type == "heading_open"),
        before=Markup(before),
        tables=Markup("<h2" + after),
        contents=contents,
        data=Markup(packed),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )


def _tokens(text: str, out: Path, places: Mapping[str, str]) -> tuple[list[Token], MarkdownIt]:
    """Return the parsed Markdown with anchors at its headings and its figures as data; HTML in it stays text.

    `places` are the anchors of other files of the report, which are in the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = "".join(t.content for t in tokens[i + 1].children or [])
            token.attrs["id"] = slug(heading)
        for inner in token.children or []:
            if inner.type == "image":
                picture = (out / unquote(str(inner.attrs["src"]))).read_bytes()
                inner.attrs["src"] = f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
            elif inner.type == "link_open":
                file, _, anchor = str(inner.attrs["href"]).partition("#")
                inner.attrs["href"] = f"#{anchor}" if anchor and file in places else places.get(file, inner.attrs["href"])
    return tokens, parser
