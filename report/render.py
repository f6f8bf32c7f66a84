"""Fill in the templates: Markdown from the chapters, and from that one page with everything in it."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from common.running.identity import digest
from report.chapters import Chapter, wording_of
from report.inputs import Trouble
from report.markdown import code, fenced, plain, slug
from report.wording.words import LANGUAGES, PAGE

TEMPLATES = Path(__file__).resolve().parent / "templates"


def report_md(
    chapters: Sequence[Chapter], troubles: Sequence[Trouble], compared: Mapping[str, Any], *, language: str, page: str, note: str
) -> str:
    """Return the report in Markdown. Whatever comes from a run or a manifest goes through `plain` or `code`."""
    say = LANGUAGES[language]
    env = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True)
    env.filters |= {
        "plain": plain,
        "code": code,
        "say": say,
        "fenced": fenced,
        "reasons": lambda counts: ", ".join(f"{n} {plain(say(reason))}" for reason, n in counts.items() if n) or say("none"),
        "versions": lambda versions: ", ".join(f"{name} {number}" for name, number in versions.items()),
        "code_digest": lambda run: digest(json.dumps(run.identity["code"], sort_keys=True)),
    }
    sentences = wording_of(language).TROUBLES
    text = env.get_template(f"report.{language}.md").render(
        chapters=chapters,
        troubles=[sentences[t.name].format(**{k: plain(v) for k, v in t.values.items()}) for t in troubles],
        compared=compared,
        page=page,
        note=note,
        reference=any(str(c.study.first.identity["model"]).endswith("data/reference_model") for c in chapters),
        prompts=any(run.prompts is not None for c in chapters for run in c.study.runs),
    )
    return _squeezed(text)


def _squeezed(text: str) -> str:
    """Return Markdown without the empty lines that templates leave behind, never two together."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines).strip() + "\n"


def report_html(text: str, data: Mapping[str, Any], *, out: Path, language: str, page: str) -> str:
    """Return the report as one page that asks for nothing: figures, audio and numbers are in it. `text` is its Markdown."""
    words = {key: PAGE[key] if language == "zh" else key for key in PAGE}
    tokens, parser = _tokens(text, out, page)
    body = parser.renderer.render(tokens, parser.options, {})
    body = (
        body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>").replace("[!CAUTION]\n", "")
    )
    before, tables = body.rsplit("<h2", 1)
    contents = [
        (t.attrs["id"], tokens[i + 1].content) for i, t in enumerate(tokens) if t.type == "heading_open" and t.tag == "h2"
    ]
    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    packed = json.dumps({**data, "words": words}, ensure_ascii=False, separators=(",", ":"))
    for letter, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        packed = packed.replace(letter, escaped)
    return env.get_template("page.html").render(
        language={"en": "en", "zh": "zh-Hans"}[language],
        title=next(t.content for i, t in enumerate(tokens) if i and tokens[i - 1].type == "heading_open"),
        before=Markup(before),
        tables=Markup("<h2" + tables),
        contents=contents,
        words=words,
        data=Markup(packed),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )


def _tokens(text: str, out: Path, page: str) -> tuple[list[Token], MarkdownIt]:
    """Return the parsed Markdown with anchors at its headings and its figures as data; HTML in it stays text."""
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
            elif inner.attrs.get("href") == page:
                inner.attrs["href"] = "#closer"
    return tokens, parser
