"""Count and draw pairs of clips without listing them all."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from common.clips.manifest import Sample, draw


def count_pairs(samples: Iterable[Sample], shared: Sequence[str], other: str) -> int:
    """Return how many ordered pairs agree in all of `shared` and differ in `other`."""
    known = [s for s in samples if "speaker" not in shared or s.speaker]
    groups = Counter(tuple(getattr(s, f) for f in shared) for s in known)
    alike = Counter(tuple(getattr(s, f) for f in (*shared, other)) for s in known)
    return sum(n * n for n in groups.values()) - sum(n * n for n in alike.values())


@dataclass
class Block:
    """Pairs that agree in all that is shared, of one label of the recipients and one of the donors.

    Pairs are numbered, not listed, as a large set has too many: recipient i goes with `counts[i]` of `donors`, from number
    `starts[i]` on, and `takes[i]` of them are taken.
    """

    group: int
    labels: tuple[str, str]
    recipients: np.ndarray
    donors: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    takes: np.ndarray


def blocks_of(
    samples: Sequence[Sample], shared: Sequence[str], other: str, seconds: Sequence[float] | None, tolerance: float
) -> list[Block]:
    """Return all pairs that agree in `shared` and differ in `other`.

    With `seconds`, the samples' lengths, only those that differ in length by no more than the tolerance, in seconds as well.
    """
    groups: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for i, sample in enumerate(samples):
        if "speaker" not in shared or sample.speaker:
            key = tuple(getattr(sample, f) for f in shared)
            groups.setdefault(key, {}).setdefault(getattr(sample, other), []).append(i)
    lengths = None if seconds is None else np.array(seconds)
    blocks = []
    for number, by_label in enumerate(groups.values()):
        for mine in by_label:
            for theirs in by_label:
                if mine == theirs:
                    continue
                recipients, donors = np.array(by_label[mine]), np.array(by_label[theirs])
                starts, ends = np.zeros(len(recipients), int), np.full(len(recipients), len(donors))
                if lengths is not None:
                    donors = donors[np.argsort(lengths[donors], kind="stable")]
                    slack = tolerance + 1e-9  # lengths are whole samples: this is none of them
                    starts = np.searchsorted(lengths[donors], lengths[recipients] - slack)
                    ends = np.searchsorted(lengths[donors], lengths[recipients] + slack, side="right")
                counts = ends - starts
                blocks.append(Block(number, (mine, theirs), recipients, donors, starts, counts, counts.copy()))
    return blocks


def cap(blocks: list[Block], most: int, rng: np.random.Generator) -> None:
    """Let each recipient have `most` pairs, of donors' labels as different as it has them."""
    for _, together in groupby(blocks, key=lambda b: (b.group, b.labels[0])):
        of_recipients = list(together)
        counts = np.stack([b.counts for b in of_recipients], axis=1)  # [recipient, label]
        takes, rows = np.zeros_like(counts), np.arange(len(counts))
        for _ in range(min(most, counts.sum(axis=1).max())):
            open_labels = np.where(takes < counts, takes + rng.random(counts.shape), np.inf)
            chosen = open_labels.argmin(axis=1)
            takes[rows, chosen] += np.isfinite(open_labels[rows, chosen])
        for block, column in zip(of_recipients, takes.T):
            block.takes = column


def draw_pairs(blocks: list[Block], most: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return recipient and donor of `most` pairs, equally many of each pair of labels as far as there are so many."""
    by_labels: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        by_labels.setdefault(block.labels, []).append(block)
    totals = {labels: sum(int(b.takes.sum()) for b in some) for labels, some in by_labels.items()}
    pairs: list[tuple[int, int]] = []
    for labels, quota in _quotas(totals, most, rng).items():
        ends = np.cumsum(np.concatenate([b.takes for b in by_labels[labels]]))
        cells = np.searchsorted(ends, draw(range(totals[labels]), quota, seed=int(rng.integers(2**32))), side="right")
        taken = np.bincount(cells, minlength=len(ends))
        first = 0
        for block in by_labels[labels]:
            of_block = taken[first : first + len(block.recipients)]
            first += len(block.recipients)
            for i in np.flatnonzero(of_block):
                chosen = block.starts[i] + rng.choice(block.counts[i], of_block[i], replace=False)
                pairs += [(int(block.recipients[i]), int(d)) for d in block.donors[np.sort(chosen)]]
    return sorted(pairs)


def _quotas(totals: dict[tuple[str, str], int], most: int, rng: np.random.Generator) -> dict[tuple[str, str], int]:
    """Share `most` out over the keys as evenly as their totals allow; what is left over goes to keys drawn at random."""
    keys = [list(totals)[i] for i in rng.permutation(len(totals))]
    keys.sort(key=totals.__getitem__)  # stable: ties stay drawn; the small ones give what they cannot fill to the rest
    quotas = {}
    for n, key in enumerate(keys):
        quotas[key] = min(totals[key], most // (len(keys) - n))
        most -= quotas[key]
    return {key: quotas[key] for key in totals}
