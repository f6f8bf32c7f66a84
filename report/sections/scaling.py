"""What a report says of a scale run: whether a cue that is made larger becomes the answer, and at what price."""

from dataclasses import dataclass
from pathlib import Path

from activation_patching.scale.findings import ScaleEffect, scale_effects
from common.run.run_folder import read_record, read_table


@dataclass(frozen=True)
class Scaling:
    """A scale run `at` the last position or the span: what it found, the voice first."""

    at: str
    effects: list[ScaleEffect]


def scaling(folder: Path) -> Scaling:
    found = scale_effects({"chosen": read_table(folder, "chosen")})
    return Scaling(str(read_record(folder)["identity"]["at"]), sorted(found, key=lambda f: f.kind))
