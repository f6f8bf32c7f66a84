"""Pairs of clips, recipient and donor, and the control donors that stand beside them."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from common.clips.samples import Sample, draw
from common.errors import InputError

KINDS = ("semantic", "prosody")


CONTROLS = ("same_labels_donor", "random_donor", "silence", "itself")


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


def build_pairs(samples: list[Sample], kind: str, *, max_pairs: int | None, seed: int) -> tuple[list[Pair], str, Counter[str]]:
    """Return the pairs of one kind, what their two clips share, and a count of the pairs left out by reason.

    semantic: same prosody_label, other semantic_label. prosody: same semantic_label, other prosody_label. The two clips
    also share the speaker and, in prosody pairs, the text; where the data has no such pair at all, first the text and then
    the speaker is let go, and the second value says so. Raises InputError where even then there is no pair.
    """
    same, other = ("prosody_label", "semantic_label") if kind == "semantic" else ("semantic_label", "prosody_label")
    wishes = [("speaker",), ()] if kind == "semantic" else [("speaker", "text_id"), ("speaker",), ()]
    for wish in wishes:
        shared = (same, *wish)
        donors = _donors(samples, shared, other)
        ends = np.cumsum([len(d) for d in donors])
        if ends[-1]:  # pairs are numbered and drawn by number: a large set has too many to list
            numbers = draw(range(ends[-1]), max_pairs, seed=seed)
            recipients = np.searchsorted(ends, numbers, side="right")
            pairs = [Pair(kind, samples[r], donors[r][n - ends[r]]) for r, n in zip(recipients, numbers)]
            return pairs, " and ".join(shared), Counter({"over --max-pairs": int(ends[-1]) - len(pairs)})
    raise InputError(f"no {kind} pairs among {len(samples)} clips: no two share the {same} and differ in {other}")


def _donors(samples: list[Sample], shared: tuple[str, ...], other: str) -> list[list[Sample]]:
    """Return for each sample those that agree with it in all of `shared` and differ in `other`; equal lists are one object."""
    groups: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(tuple(getattr(sample, f) for f in shared), []).append(sample)
    lists = {
        (key, label): [s for s in group if getattr(s, other) != label]
        for key, group in groups.items()
        for label in {getattr(s, other) for s in group}
    }
    return [lists[tuple(getattr(s, f) for f in shared), getattr(s, other)] for s in samples]


def control_pairs(pairs: list[Pair], pool: list[Sample], *, share: float, seed: int) -> list[Pair]:
    """Return for a `share` of the pairs of each kind, drawn with the seed, what the same patch does with another donor.

    same_labels_donor: another clip with both labels of the recipient, of its speaker where there is one. random_donor: any other
    clip. silence: silence of the donor's length. The target stays the true donor's label, and each stands beside its pair: tests
    compare the two. A donor of the same labels that the pool does not have is left out. itself: the recipient, which must change
    nothing; that needs no comparison, so one in ten of the pairs, and at least one, has it.
    """
    rng = np.random.default_rng(seed)
    by_labels: dict[tuple[str, str], list[Sample]] = {}
    for sample in pool:
        by_labels.setdefault((sample.semantic_label, sample.prosody_label), []).append(sample)
    controls = []
    for kind in dict.fromkeys(p.kind for p in pairs):
        of_kind = [p for p in pairs if p.kind == kind]
        for i, pair in enumerate(draw(of_kind, round(share * len(of_kind)), seed=seed)):
            recipient = pair.recipient
            alike = [s for s in by_labels[recipient.semantic_label, recipient.prosody_label] if s is not recipient]
            same_labels = [s for s in alike if s.speaker == recipient.speaker] or alike
            donors = {"random_donor": _other(pool, recipient, rng), "silence": pair.donor}
            if same_labels:
                donors["same_labels_donor"] = same_labels[rng.integers(len(same_labels))]
            if i % 10 == 0:
                donors["itself"] = recipient
            controls += [Pair(kind, recipient, donors[c], c, pair.donor) for c in CONTROLS if c in donors]
    return controls


def _other(pool: list[Sample], sample: Sample, rng: np.random.Generator) -> Sample:
    """Return any clip of the pool but this one; a large pool has too many to list for every pair."""
    while (other := pool[rng.integers(len(pool))]) is sample:
        pass
    return other
