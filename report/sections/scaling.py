"""What a report says of a scale run: whether a cue that is made larger becomes the answer, and at what price."""

from dataclasses import dataclass
from pathlib import Path

from activation_patching.scale.findings import Erased, ScaleEffect, erasures, scale_effects
from common.run.run_folder import read_record, read_table


@dataclass(frozen=True)
class Scaling:
    """A scale run `at` the last position or the span: what it found, the voice first."""

    at: str
    effects: list[ScaleEffect]
    erased: list[Erased]


def scaling(folder: Path) -> Scaling:
    tables = {name: read_table(folder, name) for name in ("chosen", "erased")}
    at = str(read_record(folder)["identity"]["at"])
    return Scaling(at, sorted(scale_effects(tables), key=lambda f: f.kind), erasures(tables))
