"""Build pairs of recipient and donor clips, and their control pairs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.clips.audio import read_clip
from common.clips.csvfile import csv_rows
from common.clips.manifest import Sample
from common.clips.pair_sampling import Block, blocks_of, cap, count_pairs, draw_pairs
from common.errors import InputError

_LABELS_OF = {  # kind -> the label that the two clips of a pair have in common, the label in which they differ
    "semantic": ("prosody_label", "semantic_label"),
    "prosody": ("semantic_label", "prosody_label"),
}
SHARED_LABEL = {kind: shared for kind, (shared, _) in _LABELS_OF.items()}
KINDS = tuple(_LABELS_OF)
OTHER = {"semantic": "prosody", "prosody": "semantic"}
CUES = {"semantic": "words", "prosody": "voice"}  # kind -> what of the two clips differs
DISTURBANCES = ("same_labels_donor", "silence")  # donors that bring no label of their own, or none at all
SAME_TEXT = "same_text_donor"
SUBSPACE_CONTROLS = ("random_subspace", "whole")


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
        return f"{self.true_pair_id}{stand_in}"

    @property
    def true_pair_id(self) -> str:
        """Return the id of the pair that a control stands beside; a pair's own id if it is no control."""
        return f"{self.kind}:{self.recipient.sample_id}<-{(self.true_donor or self.donor).sample_id}"

    @property
    def target(self) -> str:
        """The true donor's label of the pair's kind: what the recipient answers if its audio takes over."""
        donor = self.true_donor or self.donor
        return donor.semantic_label if self.kind == "semantic" else donor.prosody_label

    @property
    def silent(self) -> bool:
        """Return whether the donor lends silence of its length instead of its audio."""
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
    other = _LABELS_OF[kind][1]
    shared, blocks = _candidates(samples, kind, rules, trim=trim)
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


def _candidates(samples: Sequence[Sample], kind: str, rules: PairRules, *, trim: bool) -> tuple[list[str], list[Block]]:
    """Return the fields that the two clips of a pair share, and all pairs that do. Raises NoPairs where there is none."""
    same, other = _LABELS_OF[kind]
    wishes = [("speaker", rules.same_speaker), ("text_id", rules.same_text if kind == "prosody" else False)]
    asked = [field for field, wish in wishes if wish is True]
    hoped = [field for field, wish in wishes if wish is None]
    seconds = None if rules.equal_length is None else [read_clip(s.audio, trim=trim).seconds for s in samples]
    for n in range(len(hoped), -1, -1):  # what is hoped for is dropped from the end: first the text, then the speaker
        shared = [same, *(field for field, _ in wishes if field in asked or field in hoped[:n])]
        blocks = blocks_of(samples, shared, other, seconds, rules.equal_length or 0.0)
        if any(block.counts.any() for block in blocks):
            return shared, blocks
    sharing = " and share the " + " and the ".join(asked) if asked else ""
    alike = f" and are within {rules.equal_length} s of each other in length" if rules.equal_length is not None else ""
    raise NoPairs(f"no {kind} pairs among {len(samples)} clips: no two have the same {same}, differ in {other}{sharing}{alike}")


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
    pairs: Sequence[Pair], pool: Sequence[Sample], control: str, *, most: int | None = None, seed: int
) -> list[Pair]:
    """Return what the same patch does with another donor or another subspace, for `most` of the pairs drawn with the seed.

    same_labels_donor: another clip with both labels of the recipient, of its speaker where there is one. same_text_donor: such a
    clip that has the recipient's text besides. silence: silence of the donor's length. random_subspace: another one of the same
    rank, from the same donor. whole: the whole state of the same donor. The target stays the true donor's label. Pairs for which
    the pool has no such donor are left out.
    """
    by_labels: dict[tuple[str, str], list[Sample]] = {}
    for sample in pool:
        by_labels.setdefault((sample.semantic_label, sample.prosody_label), []).append(sample)
    rng, found = np.random.default_rng(seed), list[Pair]()
    for place in rng.permutation(len(pairs)):
        pair = pairs[place]
        recipient, donor = pair.recipient, pair.donor
        if control in ("same_labels_donor", SAME_TEXT):
            alike = [s for s in by_labels[recipient.semantic_label, recipient.prosody_label] if s is not recipient]
            if control == SAME_TEXT:
                alike = [s for s in alike if s.text_id == recipient.text_id]
            alike = [s for s in alike if s.speaker == recipient.speaker] or alike
            if not alike:
                continue
            donor = alike[rng.integers(len(alike))]
        found.append(Pair(pair.kind, recipient, donor, control, pair.donor))
        if len(found) == most:
            break
    return found


def lacking_third_labels(pairs: Sequence[Pair], labels: Sequence[str]) -> float:
    """Return the share of the pairs whose clips name every label, so that none is left to compare the target with."""
    named = [{p.target, *(getattr(p.recipient, f"{kind}_label") for kind in KINDS)} for p in pairs]
    return sum(names >= set(labels) for names in named) / max(1, len(pairs))
