"""List what a scale run asks of each clip: which subspace, which factor, which question."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.clips.manifest import Sample
from common.clips.pairs import KINDS, OTHER

OWN, CONTROLS = "none", ("random_subspace", "permuted_labels")  # the cue's own subspace, and those of its rank and norm
RUN = "run"  # asked as the run asks
TRANSCRIBED = "transcribed.csv"  # what the model writes down of scaled clips
Place = tuple[int, float]  # a layer and a factor
ASKS = {"semantic": "words", "prosody": "voice"}  # the prompt that asks for a cue


@dataclass(frozen=True)
class Curve:
    """What becomes of a clip's answer over the layers where the part in a cue's subspace is multiplied by 1 + `factor`.

    `kind`: whose subspace, the words' ("semantic") or the voice's ("prosody"). `control`: a subspace in its place. `asked`: the
    run's own question, or the one for the other cue.
    """

    sample: Sample
    kind: str
    control: str
    factor: float
    asked: str

    @property
    def name(self) -> str:
        return f"{self.sample.sample_id}|{self.kind}|{self.control}|{self.factor:g}|{self.asked}"


def curves_of(samples: Sequence[Sample], factors: Sequence[float]) -> list[list[Curve]]:
    """Return the curves of each clip. Congruent clips have those of the cues' own subspaces alone: they show what these cost."""
    groups = []
    for sample in samples:
        for_all = [(kind, OWN, RUN) for kind in KINDS]
        for_conflict = [(kind, control, RUN) for kind in KINDS for control in CONTROLS]
        for_conflict += [(kind, OWN, ASKS[OTHER[kind]]) for kind in KINDS]
        wanted = for_all + for_conflict if sample.conflict else for_all
        groups.append([Curve(sample, kind, control, a, asked) for kind, control, asked in wanted for a in factors if a])
    return groups
