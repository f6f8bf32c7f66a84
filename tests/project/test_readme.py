"""The README is short, its commands exist, the Chinese one is in step; all pages have short sentences and links that hold."""

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import activation_patching.run
import data.check_manifest
import data.import_dataset
import logit_lens.run
import report.build
from tests.helpers.prose import PAGES, ROOT, commands, headings, inline, links, numbers, prose, sentences

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
SCRIPTS = {
    "logit_lens/run.py": logit_lens.run.main,
    "activation_patching/run.py": activation_patching.run.main,
    "report/build.py": report.build.main,
    "data/import_dataset.py": data.import_dataset.main,
    "data/check_manifest.py": data.check_manifest.main,
}
LONGEST = 25  # words of a sentence


class ParsedError(Exception):
    """Stops a script once its command line has been read."""


def read_by(main: Callable[[list[str]], object], argv: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """Return the parser with which a script has read its command line; SystemExit where it takes none of that."""
    parsers, own = [], argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser, given: list[str] | None = None) -> argparse.Namespace:
        parsers.append(parser)
        own(parser, given)
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(ParsedError):
            main(argv)
    return parsers[0]


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))


def test_readme_is_short() -> None:
    assert len(prose(ENGLISH).split()) <= 950
    assert len(numbers(ENGLISH)) <= 40


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sentences_are_short_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [s for s in sentences(text) if len(s.split()) > LONGEST] == []
    assert [t for t in links(text) if not (page.parent / t).exists()] == []


def test_the_chinese_readme_is_in_step() -> None:
    assert [h.split()[0] for h in headings(CHINESE)] == [h.split()[0] for h in headings(ENGLISH)]
    assert commands(CHINESE) == commands(ENGLISH)
    assert sorted(numbers(CHINESE)) == sorted(numbers(ENGLISH))


@pytest.mark.parametrize("command", commands(ENGLISH))
def test_commands_of_the_readme_are_taken(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = shlex.split(command)
    if program == "python":
        read_by(SCRIPTS[words[0]], words[1:], monkeypatch)
    elif program == "make":
        assert {*words} <= targets()
    elif program == "pip":
        assert words[:2] == ["install", "-r"] and (ROOT / words[2]).is_file()
    else:
        assert program in ("git", "cd")


@pytest.mark.parametrize("code", sorted({*inline(ENGLISH)}))
def test_what_the_readme_names_is_there(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = code.split()
    required = {"data/import_dataset.py": ["ESD", "folder"], "data/check_manifest.py": ["manifest.csv"]}
    if program == "make":
        assert {*words} <= targets()
    for script in (w for w in (program, *words) if w.endswith(".py")):
        assert (ROOT / script).is_file()
    parsers = [read_by(main, required.get(name, []), monkeypatch) for name, main in SCRIPTS.items()]
    known = {option for parser in parsers for option in parser._option_string_actions}
    assert {w for w in (program, *words) if w.startswith("--")} - {"--nproc_per_node"} <= known
