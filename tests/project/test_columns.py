"""What no figure, no finding and no identity of a run reads is no column; and what went does not come back."""

import ast
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.runs import SCRIPTS

ROOT = Path(__file__).resolve().parents[2]
GONE = (
    *("_band_lo", "simultaneous", "fieller's crossing of words against three", "nothing_left", "equivalence test", "leave_out"),
    *("contrast_curve", "margin_excess", "win_prosody_excess", "win_semantic_excess", "directedness", "recovery", "_eligible"),
    *(
        "flip_gain",
        "delta_over_",
        "margin_spread",
        "_lo90",
        "_hi90",
        "code_length",
        "mcnemar",
        "holm(",
        "p_holm",
    ),
    *("margin_prior", "win_prosody_null", "span_and_tail", "lens_health", "paired_curve", "release_layer", "decision_layer"),
)
READERS = ("logit_lens", "activation_patching", "report", "common/run", "common/compute", "common/stats")
WRITERS = ("rows.py", "tables.py", "effects.py", "run.py", "options.py", "choose.py")
# Of rows: what tells them apart when a run goes on, or what a user looks up. Columns of these are no statistic.
OF_ROWS = {"sample_id", "recipient_id", "donor_id", "layer", "n", "pair_id"}


def tracked() -> list[Path]:
    folders = ("common", "logit_lens", "activation_patching", "report", "data", "tests", "README.md", "Makefile")
    kinds = {".py", ".md", ".jinja", ".js", ".html", ".po", ""}
    files = [f for name in folders for f in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))]
    skipped = ("outputs", "assembled", "base", "demo")
    return [f for f in files if f.is_file() and f.suffix in kinds and not set(f.relative_to(ROOT).parts) & {*skipped}]


@pytest.mark.parametrize("name", GONE)
def test_what_went_occurs_nowhere(name: str) -> None:
    found = [str(f.relative_to(ROOT)) for f in tracked() if f != Path(__file__) and name in f.read_text(encoding="utf-8").lower()]
    assert not found


def words_read() -> set[str]:
    """Return the words of the code and templates that read tables: attributes, and words within text constants."""
    found: set[str] = set()
    files = [f for place in READERS for f in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*"))]
    for file in (f for f in files if f.is_file() and f.name not in WRITERS):
        if file.suffix == ".py":
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute):
                    found.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(r"\w+", node.value))
        elif file.suffix in (".jinja", ".js"):
            found |= set(re.findall(r"\w+", file.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_column_is_read(name: str, finished: dict[str, Path]) -> None:
    read = words_read() | OF_ROWS
    for file in finished[name].glob("*.csv"):
        columns = {re.sub(r"_(lo|hi)$", "", c) for c in pd.read_csv(file)}
        kinds = {re.sub(r"^(logit|base|answers)_.*", r"\1_", c) for c in columns}
        kinds = {re.sub(r"^(recipient|donor|true)_", "", c) for c in kinds}
        unread = {c for c in kinds if c not in read and c.rstrip("_") not in read and c.removeprefix("n_") not in read}
        assert not unread, file.name
