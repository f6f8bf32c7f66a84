"""What both experiments are asked: checked as far as that can be without a model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.clips.manifest import Sample
from common.model import ModelChoice
from common.model.prompts import Question


@dataclass(frozen=True)
class Settings:
    """A `model`, the `questions` by the names of their prompts, the clips of the manifest `data`, and how a run goes about them.

    `others` counts the clips that are left out for their labels. `several`: each prompt has a run of its own. `formats` are those
    of figures. To `redraw` a finished run no clips are read.
    """

    model: ModelChoice
    questions: dict[str, Question]
    data: Path
    clips: list[Sample]
    others: Counter[str]
    limit: int | None
    seed: int
    skip_bad: bool
    layers: Sequence[int] | None
    several: bool
    overwrite: bool
    redraw: bool
    formats: tuple[str, ...]
    command: str

    @property
    def question(self) -> Question:
        """The question of the prompt that was asked for, itself no variant."""
        return next(iter(self.questions.values()))


@dataclass(frozen=True)
class Chosen:
    """The clips that a run hears, `counts` of what is kept and dropped, and the `units` of its work, as `set_up` takes them."""

    clips: list[Sample]
    counts: dict[str, Any]
    units: Any
    warnings: tuple[str, ...] = ()
    pool: list[Sample] = field(default_factory=list)  # all clips that the run could use
