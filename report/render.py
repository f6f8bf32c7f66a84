"""Fill in the report's templates, where its sentences stand (templates/sentences.*.jinja)."""

import json
from collections.abc import Sequence
from decimal import ROUND_UP, Context
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.digests import digest
from report.language import formats, translation
from report.markdown import code, fenced, plain
from report.runs import Trouble
from report.study import Chapter

ONE_DIGIT_UP = Context(prec=1, rounding=ROUND_UP)  # of what is called a most
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
        "tiny": lambda difference: f"{ONE_DIGIT_UP.create_decimal(f'{difference:.3g}'):.0e}" if difference else "0",
        "fenced": fenced,
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
        squeezed(env.get_template(f"{name}.md.jinja").render(**told, tables=names["tables"], page=names["page"]))
        for name in ("report", "tables")
    )


def squeezed(text: str) -> str:
    """Return Markdown without the empty lines that templates leave behind: never two together, none within a list."""
    lines: list[str] = []
    for line in map(str.rstrip, text.splitlines()):
        if line.startswith("- ") and len(lines) > 1 and not lines[-1] and lines[-2].startswith("- "):
            lines.pop()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip() + "\n"
