"""Summarise knockout and components runs for the report."""

from dataclasses import dataclass
from pathlib import Path

from activation_patching.components.findings import (
    ComponentEffect,
    HeadsAblated,
    HeadsTogether,
    component_effects,
    heads_ablated,
    heads_together,
)
from activation_patching.knockout.findings import Routes, routes
from common.clips.pairs import KINDS
from common.errors import InputError
from common.run.run_folder import read_record, read_table
from report.runs import SHARED, Study


@dataclass(frozen=True)
class Carriers:
    """Of a components run: the strongest part for each cue, how many of the strongest heads make half of what all do (`halves`),
    and what becomes of the dependence on that cue `without` these.
    """

    strongest: list[ComponentEffect]
    halves: list[HeadsTogether]
    without: list[HeadsAblated]


def run_below(study: Study, name: str) -> Path | None:
    """Return the folder of a finished run of the same thing below a study's patching run; None where there is none."""
    folder = study.patching.folder / name if study.patching else None
    if study.patching is None or folder is None or not (folder / "run.json").is_file():
        return None
    try:
        record = read_record(folder)
    except InputError:
        return None
    own = study.patching.identity
    alike = all(record["identity"].get(key) == own.get(key) for key in SHARED)
    return folder if alike and record["finished"] and record["identity"].get("intervention") == name else None


def routes_of(folder: Path) -> list[Routes]:
    """Return what a knockout run shows of each cue that can be told."""
    return [f for f in routes({"summary": read_table(folder, "summary")}) if f.enough]


def carriers(folder: Path) -> Carriers:
    names = [name for name in ("strongest", "together", "ablation") if (folder / f"{name}.csv").is_file()]
    tables = {name: read_table(folder, name) for name in names}
    found = component_effects(tables)
    first = [next(f for f in found if f.kind == kind) for kind in KINDS if any(f.kind == kind for f in found)]
    without = [a for a in heads_ablated(tables) if a.carry == a.kind]
    return Carriers(first, [h for h in heads_together(tables) if h.half], without)
