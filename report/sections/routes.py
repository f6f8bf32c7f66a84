"""Summarise knockout and components runs for the report."""

from dataclasses import dataclass
from pathlib import Path

from activation_patching.components.findings import ComponentEffect, HeadsTogether, component_effects, heads_together
from activation_patching.knockout.findings import CutEffect, Routes, cut_effects, routes
from common.errors import InputError
from common.run.run_folder import read_record, read_table
from report.runs import SHARED, Study

WINDOW = "up_to"


@dataclass(frozen=True)
class Cuts:
    """Of a knockout run, cut in blocks up to l: what shows the `routes`, else the edge whose cut takes most of each cue away.

    `raised`: the cut after which answers depend more on a cue, by most. `until`: of each cue whose half-effect layer is told, the
    audio hidden from all behind it in the blocks from l on, beside which that of patching stands.
    """

    effects: list[CutEffect]
    raised: CutEffect | None
    until: list[CutEffect]
    routes: Routes | None


@dataclass(frozen=True)
class Carriers:
    """Of a components run: the strongest part for each cue, and how many of the strongest heads make half of what all do."""

    strongest: list[ComponentEffect]
    halves: list[HeadsTogether]


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


def cuts(folder: Path) -> Cuts:
    found = cut_effects({"summary": read_table(folder, "summary")})
    chosen = [f for f in found if f.window == WINDOW and f.enough and not f.edge.startswith("prefix")]
    strongest = [min((f for f in chosen if f.kind == kind), key=lambda f: f.effect.value) for kind in _kinds(chosen)]
    apart = next((r for r in routes(found) if r.window == WINDOW), None)
    raised = max((f for f in chosen if f.effect.side > 0), key=lambda f: f.effect.value, default=None)
    until = [f for f in found if (f.edge, f.window) == ("audio_to_all", "from") and f.enough and f.half_effect_layer]
    return Cuts([apart.words, apart.voice] if apart else strongest, raised, until, apart)


def carriers(folder: Path) -> Carriers:
    names = [name for name in ("strongest", "together") if (folder / f"{name}.csv").is_file()]
    tables = {name: read_table(folder, name) for name in names}
    found = component_effects(tables)
    first = [next(f for f in found if f.kind == kind) for kind in _kinds(found)]
    return Carriers(first, [h for h in heads_together(tables) if h.half])


def _kinds(found: list[CutEffect] | list[ComponentEffect]) -> list[str]:
    return [kind for kind in ("semantic", "prosody") if any(f.kind == kind for f in found)]
