"""Pairs of clips, recipient and donor, and the control donors that stand beside them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.clips.audio import read_clip
from common.clips.csvfile import csv_rows
from common.clips.drawing import blocks_of, cap, count_pairs, draw_pairs
from common.clips.samples import Sample, draw
from common.errors import InputError

_LABELS_OF = {  # kind -> the label that the two clips of a pair have in common, the label in which they differ
    "semantic": ("prosody_label", "semantic_label"),
    "prosody": ("semantic_label", "prosody_label"),
}
KINDS = tuple(_LABELS_OF)
CONTROLS = ("same_labels_donor", "random_donor", "silence", "itself")
SUBSPACE_CONTROLS = ("random_subspace", "whole", "same_labels_donor", "itself")


class NoPairs(InputError):
    """The clips cannot give any pair of a kind; the other kind may do."""


@dataclass(frozen=True)
class Pair:
    """`recipient` is the clip whose run is changed, `donor` the clip whose audio states go into it.

    In a control (see `control_pairs`) the donor stands in for the `true_donor`, whose label stays the target.
    """

    kind: str
    recipient: Sample
    donor: Sample
    control: str = "none"
    true_donor: Sample | None = None

    @property
    def pair_id(self) -> str:
        stand_in = f"|{self.control}:{self.donor.sample_id}" if self.control != "none" else ""
        return f"{self.kind}:{self.recipient.sample_id}<-{(self.true_donor or self.donor).sample_id}{stand_in}"

    @property
    def target(self) -> str:
        """The true donor's label of the pair's kind: what the recipient answers if its audio takes over."""
        donor = self.true_donor or self.donor
        return donor.semantic_label if self.kind == "semantic" else donor.prosody_label

    @property
    def silent(self) -> bool:
        """Tell whether the donor lends silence of its length instead of its audio."""
        return self.control == "silence"


@dataclass(frozen=True)
class PairRules:
    """What the two clips of a pair must share beside the label that makes its kind, and how many pairs are taken.

    `same_speaker`, `same_text` (of prosody pairs: clips whose words differ in label differ in text): True asks for it, False does
    not, None asks for it where the data has such pairs. An empty speaker is unknown, and nobody's. `equal_length`: seconds by
    which the two clips may differ in length, 0 for the same number of samples, None for any.
    """

    same_speaker: bool | None = None
    same_text: bool | None = None
    equal_length: float | None = None
    pairs_per_recipient: int | None = None
    max_pairs: int | None = None


def build_pairs(
    samples: Sequence[Sample], kind: str, rules: PairRules, *, seed: int, trim: bool = False
) -> tuple[list[Pair], str, Counter[str]]:
    """Return the pairs of one kind, what their two clips share, and a count of the pairs left out by reason.

    semantic: same prosody_label, other semantic_label. prosody: same semantic_label, other prosody_label. Where there are more
    pairs than `rules` take, they are drawn with the seed, equally many of each pair of labels as far as there are so many.
    `trim`: a clip's length is that without silence at its ends. Raises NoPairs, saying why, where there is no pair.
    """
    same, other = _LABELS_OF[kind]
    wishes = [("speaker", rules.same_speaker), ("text_id", rules.same_text if kind == "prosody" else False)]
    asked = [field for field, wish in wishes if wish is True]
    hoped = [field for field, wish in wishes if wish is None]
    seconds = None if rules.equal_length is None else [read_clip(s.audio, trim=trim).seconds for s in samples]
    # What is hoped for is let go of from the end of the list: first the text, then the speaker.
    for shared in ([same, *(f for f, _ in wishes if f in asked or f in hoped[:n])] for n in range(len(hoped), -1, -1)):
        blocks = blocks_of(samples, shared, other, seconds, rules.equal_length or 0.0)
        if any(block.counts.any() for block in blocks):
            break
    else:
        beside = " and share the " + " and the ".join(asked) if asked else ""
        alike = f" and are within {rules.equal_length} s of each other in length" if rules.equal_length is not None else ""
        raise NoPairs(
            f"no {kind} pairs among {len(samples)} clips: no two have the same {same}, differ in {other}{beside}{alike}"
        )
    steps = [count_pairs(samples, shared[: n + 1], other) for n in range(len(shared))]
    dropped = Counter({f"another {f.removesuffix('_id')}": a - b for f, a, b in zip(shared[1:], steps, steps[1:])})
    found = sum(int(block.counts.sum()) for block in blocks)
    if rules.equal_length is not None:
        dropped["another length"] = steps[-1] - found
    rng = np.random.default_rng(seed)
    if rules.pairs_per_recipient is not None:
        cap(blocks, rules.pairs_per_recipient, rng)
    left = sum(int(block.takes.sum()) for block in blocks)
    dropped["over --pairs-per-recipient"] = found - left
    numbers = draw_pairs(blocks, left if rules.max_pairs is None else rules.max_pairs, rng)
    dropped["over --max-pairs"] = left - len(numbers)
    pairs = [Pair(kind, samples[recipient], samples[donor]) for recipient, donor in numbers]
    return pairs, " and ".join(shared), +dropped


def listed_pairs(path: Path, samples: Sequence[Sample], kind: str) -> list[Pair]:
    """Return the pairs of one kind that a CSV lists in its columns `kind`, `recipient_id` and `donor_id`, each once.

    A run's patches.csv is such a file: its layers and its control donors are passed over. Raises InputError with file and row
    for a clip that is not among `samples` or labels that do not make a pair of that kind, NoPairs where the kind is not listed.
    """
    by_id, pairs = {s.sample_id: s for s in samples}, dict[tuple[str, str], Pair]()
    same, other = _LABELS_OF[kind]
    for number, row in csv_rows(path, ("kind", "recipient_id", "donor_id"), what="list of pairs"):
        where = f"{path}, row {number}"
        if row["kind"] not in KINDS:
            raise InputError(f"{where}, column kind: {row['kind']!r}; allowed: {', '.join(KINDS)}")
        ids = row["recipient_id"], row["donor_id"]
        if row["kind"] != kind or row.get("control", "none") not in ("none", "") or ids in pairs:
            continue
        for column in ("recipient_id", "donor_id"):
            if row[column] not in by_id:
                raise InputError(f"{where}, column {column}: the run has no clip {row[column]!r}")
        recipient, donor = (by_id[i] for i in ids)
        if getattr(recipient, same) != getattr(donor, same) or getattr(recipient, other) == getattr(donor, other):
            raise InputError(f"{where}: the two clips of a {kind} pair have the same {same} and differ in {other}")
        pairs[ids] = Pair(kind, recipient, donor)
    if not pairs:
        raise NoPairs(f"{path}: lists no {kind} pairs")
    return list(pairs.values())


def control_pairs(
    pairs: list[Pair], pool: list[Sample], *, share: float, seed: int, controls: Sequence[str] = CONTROLS
) -> list[Pair]:
    """Return for a `share` of the pairs of each kind, drawn with the seed, what the same patch does with another donor.

    same_labels_donor: another clip with both labels of the recipient, of its speaker where there is one. random_donor: any other
    clip. silence: silence of the donor's length. The target stays the true donor's label, and each stands beside its pair: tests
    compare the two. A donor of the same labels that the pool does not have is left out. itself: the recipient, which must change
    nothing; that needs no comparison, so one in ten of the pairs, and at least one, has it. Of an exchanged subspace also, with
    the same donor, random_subspace: another of its rank; whole: the whole state.
    """
    rng = np.random.default_rng(seed)
    by_labels: dict[tuple[str, str], list[Sample]] = {}
    for sample in pool:
        by_labels.setdefault((sample.semantic_label, sample.prosody_label), []).append(sample)
    found = []
    for kind in dict.fromkeys(p.kind for p in pairs):
        of_kind = [p for p in pairs if p.kind == kind]
        for i, pair in enumerate(draw(of_kind, round(share * len(of_kind)), seed=seed)):
            recipient = pair.recipient
            alike = [s for s in by_labels[recipient.semantic_label, recipient.prosody_label] if s is not recipient]
            same_labels = [s for s in alike if s.speaker == recipient.speaker] or alike
            donors = dict.fromkeys(("silence", *SUBSPACE_CONTROLS[:2]), pair.donor)
            if (other := _other(pool, recipient, rng)) is not None:
                donors["random_donor"] = other
            if same_labels:
                donors["same_labels_donor"] = same_labels[rng.integers(len(same_labels))]
            if i % 10 == 0:
                donors["itself"] = recipient
            found += [Pair(kind, recipient, donors[c], c, pair.donor) for c in controls if c in donors]
    return found


def _other(pool: list[Sample], sample: Sample, rng: np.random.Generator) -> Sample | None:
    """Return any clip of the pool but this one, None where it is alone; a large pool has too many to list for every pair."""
    if len(pool) < 2:
        return None
    while (other := pool[rng.integers(len(pool))]) is sample:
        pass
    return other
