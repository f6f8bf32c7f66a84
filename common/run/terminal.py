"""What a run prints when it has ended: an aligned table of at most 100 columns."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.default_model import CAUTION
from common.run.record import shown
from common.stats.findings import Estimate

COLUMNS = 100
_NAMES = 9  # columns of the names at the left
_WHAT = 44  # columns of what is estimated


def ended(record: dict[str, Any], units: str, rows: Sequence[str], *, out: Path, figures: Sequence[str], following: str) -> str:
    """Return what a finished run says: model, units, the rows of its table, its figures, and the command that comes next."""
    identity = record["identity"]
    model = f"{identity['model']} · {record['blocks']} layers · {identity['dtype']} on {identity['device']} · self-checks passed"
    caution = _named("caution", CAUTION) if record.get("test_weight") else []
    lines = [*caution, *_named("model", model), *_named("units", units), "", *rows, ""]
    figures_at = _named("figures", f"{shown(out)}: {', '.join(figures)}")
    return "\n".join([*lines, *figures_at, *_named("next", following), *caution])


def header(unit: str) -> str:
    return f"{'':{_WHAT}}{unit:>10}   95 % interval"


def estimate(what: str, found: Estimate | None, form: str = ".2f", nothing: str = "not shown") -> str:
    """Return a row of the table: what is estimated, its value and its interval; `nothing` where there is none."""
    if found is None or found.value != found.value:
        return f"{what:{_WHAT}}{nothing:>10}"
    ends = f"   {found.low:{form}} to {found.high:{form}}" if found.low == found.low else ""
    return f"{what:{_WHAT}}{found.value:>10{form}}{ends}"


def following(script: str, record: dict[str, Any], defaults: dict[str, str]) -> str:
    """Return the command of another script about the same model, clips and prompt, without what is its default."""
    identity = record["identity"]
    asked = {"model": identity["model"], "data": identity["data"], "prompt": record["prompt_name"]}
    options = [f"--{name} {value}" for name, value in asked.items() if str(value) != defaults[name]]
    return " ".join([f"python {script}", *options])


def _named(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=f"{name:{_NAMES}}",
        subsequent_indent=" " * _NAMES,
        break_long_words=False,
        break_on_hyphens=False,
    )
