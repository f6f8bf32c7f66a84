"""Write the report as one HTML page that needs no other file."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from common.plotting import WIDTH
from report.language import Say, texts, translation
from report.markdown import slug
from report.page.svg import inline
from report.render import TEMPLATES, file_names

PAGE = 5_900_000  # bytes: audio takes what the rest leaves
DATA = '<script type="application/json" id="closer-data">'  # in page.html
BOXES = {"[!CAUTION]": "Caution", "[!NOTE]": "Note"}
Block = list[Token]  # a heading, a paragraph, a table, ... from its opening to its close


def report_html(report: str, tables: str, data: Mapping[str, Any], *, out: Path, language: str) -> str:
    """Return the page: title and verdict, three clips, the first page, the closer look, the chapters, the tables."""
    say, names = translation(language), file_names(language)
    places = {names["page"]: "#closer", names["tables"]: "#all-tables"}
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    writer = _Writer(parser, out, places, say)
    blocks = writer.blocks(report)
    method = max(i for i, block in enumerate(blocks) if _anchor(block) == slug(say("Method")))
    head = list(takewhile(lambda block: not (_picture(block) or block[0].type == "table_open"), blocks))
    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    env.globals["_"] = say
    page = env.get_template("page.html").render(
        language={"en": "en", "zh": "zh-Hans"}[language],
        title=blocks[0][1].content,
        head=writer.html(head),
        first=writer.html(blocks[len(head) : method]),
        chapters=[(_narrow(chapter), chapter) for chapter in map(writer.html, _sections(blocks[method:]))],
        tables=writer.folded(writer.blocks(tables)),
        contents=[(_anchor(block), block[1].content) for block in blocks[method:] if block[0].tag == "h2"],
        picks=any(study["picks"] for study in data["studies"]),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )
    return page.replace(DATA, DATA + _packed(data, language, room=PAGE - len(page.encode())), 1)


def _packed(data: Mapping[str, Any], language: str, *, room: int) -> str:
    """Return the data of the page as JSON that no tag can end, with as much audio as there is room for."""
    sets = {name: {**of_set, "audio": {}} for name, of_set in data["sets"].items()}
    packed = {**data, "sets": sets, "words": texts(language) or {}}
    room -= len(_json(packed).encode())
    for name, of_set in data["sets"].items():
        for clip, sound in of_set["audio"].items():
            room -= len(clip) + len(sound) + 32
            if room < 0:
                return _json(packed)
            sets[name]["audio"][clip] = sound
    return _json(packed)


def _json(data: Mapping[str, Any]) -> str:
    packed = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for letter, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        packed = packed.replace(letter, escaped)
    return packed


class _Writer:
    """Writes blocks of Markdown as HTML; HTML in them stays text. `places` are the anchors of other files of the report."""

    def __init__(self, parser: MarkdownIt, out: Path, places: Mapping[str, str], say: Say) -> None:
        self.parser, self.out, self.places, self.say = parser, out, places, say
        self.figures = 0

    def blocks(self, text: str) -> list[Block]:
        """Return the blocks of a file, with anchors at its headings, and links within the page."""
        found: list[Block] = []
        for token in self.parser.parse(text):
            if token.level == 0 and token.nesting >= 0:
                found.append([])
            found[-1].append(token)
            for link in (t for t in token.children or [] if t.type == "link_open"):
                file, _, anchor = str(link.attrs["href"]).partition("#")
                link.attrs["href"] = f"#{anchor}" if anchor and file in self.places else self.places.get(file, link.attrs["href"])
        for block in (b for b in found if b[0].type == "heading_open"):
            block[0].attrs["id"] = slug("".join(t.content for t in block[1].children or []))
        return found

    def html(self, blocks: Sequence[Block]) -> Markup:
        """Return blocks as HTML: a picture with the caption behind it as a figure, tables in boxes that scroll."""
        found, left = [], list(blocks)
        while left:
            block = left.pop(0)
            if _picture(block):
                found.append(self._figure(block, left.pop(0) if left and _caption(left[0]) else None))
            elif block[0].type == "table_open":
                found.append(f'<div class="scroll">{self._rendered(block)}</div>')
            elif block[0].type == "blockquote_open":
                found.append(self._box(block))
            else:
                found.append(self._rendered(block))
        return Markup("".join(found))

    def folded(self, blocks: Sequence[Block]) -> Markup:
        """Return the file of tables as HTML, each table folded under its heading."""
        found, left = [], list(blocks)
        while left:
            block = left.pop(0)
            if left and left[0][0].type == "table_open":
                heading, table = self._rendered([*block[1:2]]), self.html([left.pop(0)])
                found.append(f'<details id="{escape(_anchor(block))}"><summary>{heading}</summary>{table}</details>')
            else:
                block[0].tag = block[-1].tag = "h2" if block[0].tag == "h1" else block[0].tag
                found.append(self._rendered(block))
        return Markup("".join(found))

    def _rendered(self, tokens: Block) -> str:
        return str(self.parser.renderer.render(tokens, self.parser.options, {}))

    def _figure(self, block: Block, caption: Block | None) -> str:
        image = (block[1].children or [])[0]
        self.figures += 1
        drawing = (self.out / unquote(str(image.attrs["src"]))).with_suffix(".svg")
        plot = inline(drawing, image.content, f"plot{self.figures}")
        said = f"<figcaption>{self._rendered(caption[1:2])}</figcaption>" if caption else ""
        return f'<figure><div class="scroll">{plot}</div>{said}</figure>\n'

    def _box(self, block: Block) -> str:
        """Return a blockquote as a box with a title in place of the forge's mark for one."""
        first = next(token for token in block if token.type == "inline")
        kind, *rest = first.children or []
        if kind.content not in BOXES:
            return self._rendered(block)
        first.children = rest[1:]  # without the break of the line
        title = escape(self.say(BOXES[kind.content]))
        return f'<aside class="box {BOXES[kind.content].lower()}"><strong>{title}</strong>{self._rendered(block[1:-1])}</aside>\n'


def _anchor(block: Block) -> str:
    return str(block[0].attrs.get("id", ""))


def _picture(block: Block) -> bool:
    return block[0].type == "paragraph_open" and [t.type for t in block[1].children or []] == ["image"]


def _caption(block: Block) -> bool:
    kinds = [t.type for t in block[1].children or []] if block[0].type == "paragraph_open" else []
    return kinds[:1] == ["em_open"] and kinds[-1:] == ["em_close"]


def _narrow(chapter: str) -> bool:
    """Return whether a chapter has a figure, and all of one panel's width: then it stands beside another."""
    widths = [float(width) for width in re.findall(r'<svg viewBox="0 0 ([\d.]+)', chapter)]
    return bool(widths) and max(widths) < 1.5 * 72 * WIDTH


def _sections(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return blocks by the headings that they stand under."""
    found: list[list[Block]] = []
    for block in blocks:
        if block[0].type == "heading_open":
            found.append([])
        found[-1].append(block)
    return found
