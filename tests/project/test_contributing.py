"""CONTRIBUTING.md says what each file does, as the file itself does.

`python -m tests.project.test_contributing` writes the list anew.
"""

import ast
import re

from tests.helpers.prose import ROOT, inline

PAGE = ROOT / "CONTRIBUTING.md"
HEADING = "## What each file does\n"
PARTS = ("common", "logit_lens", "activation_patching", "report", "data")


def folders() -> list[str]:
    """Return every folder of code: the parts in their order, what lies in them by name."""
    return [str(d.relative_to(ROOT)) for part in PARTS for d in sorted({f.parent for f in (ROOT / part).rglob("*.py")})]


def listing() -> str:
    """Return a list for each folder with the first line of the docstring of each of its files."""
    lists = []
    for folder in folders():
        texts = {f.name: ast.get_docstring(ast.parse(f.read_text(encoding="utf-8"))) for f in (ROOT / folder).glob("*.py")}
        lines = [f"- `{name}`: {(text or '').splitlines()[0]}" for name, text in sorted(texts.items()) if name != "__init__.py"]
        lists.append("\n".join([f"**`{folder}/`**", "", *lines]))
    return "\n\n".join(lists) + "\n"


def test_the_list_says_what_the_files_say() -> None:
    assert PAGE.read_text(encoding="utf-8").split(HEADING)[1].split("\n\n", 1)[1] == listing()


def test_the_files_to_touch_are_there() -> None:
    named = [code for code in inline(PAGE.read_text(encoding="utf-8").split(HEADING)[0]) if re.search(r"/|\.\w+$", code)]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_what_was_renamed_is_there_under_its_new_name_alone() -> None:
    pairs = [line.split(",") for line in (ROOT / "tests/project/renamed.csv").read_text(encoding="utf-8").splitlines()[1:]]
    paths = [(before, after) for before, after in pairs if "/" in before]
    assert len(paths) > 100 and all((ROOT / after).is_file() and not (ROOT / before).exists() for before, after in paths)


if __name__ == "__main__":
    before, _, after = PAGE.read_text(encoding="utf-8").partition(HEADING)
    PAGE.write_text(before + HEADING + after.split("\n\n", 1)[0] + "\n\n" + listing(), encoding="utf-8")
