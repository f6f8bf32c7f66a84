"""Simulated clips and pairs with a known truth: who shares what with whom, as unbalanced as real data, and what a model answers.

A clip's evidence for a label is what its words and its voice say, a habit, and what its text, its speaker and the clip itself add
by chance. A patch mixes the donor's evidence into the recipient's, by less at every layer. Pairs are built as runs build them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from activation_patching.span.effects import Transfer, matched
from common.clips.manifest import LABELS, Sample
from common.clips.pairs import SHARED_LABEL, PairRules, build_pairs
from common.stats.clusters import MIN_LEVELS
from common.stats.units import Units, clip_units, pair_units

LAYERS = 7
CHANCE = {"text": 0.8, "speaker": 0.5, "clip": 0.7}  # standard deviations
Floats = np.ndarray


@dataclass(frozen=True)
class Gains:
    """What the words and the voice add to the evidence for their label, and the habit to that for "angry".

    `uneven`: how many times the deviations of every fourth text and speaker are those of the others; mean variance as in CHANCE.
    """

    words: float = 2.0
    voice: float = 1.5
    habit: float = 0.5
    uneven: float = 1.0

    def spread(self, levels: int) -> Floats:
        """Return by what the deviation of each text or speaker is multiplied, [level, 1, 1]."""
        of = np.where(np.arange(levels) % 4, 1.0, self.uneven)
        return (of / np.sqrt(np.mean(of**2)))[:, None, None]


def zipf(rng: np.random.Generator, n: int, levels: int) -> np.ndarray:
    chance = 1 / np.arange(1.0, levels + 1)
    return rng.permutation(np.concatenate([np.arange(levels), rng.choice(levels, size=n - levels, p=chance / chance.sum())]))


def crossed(texts: int, speakers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the texts, speakers and voices of clips: each text by each speaker in each voice."""
    t, s, v = np.indices((texts, speakers, len(LABELS))).reshape(3, -1)
    return t, s, v


def meld() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every clip a text of its own; six speakers have 84 % of 1,000 clips, eighty others the rest."""
    rng = np.random.default_rng(0)
    speakers = np.concatenate([np.arange(86), rng.choice(6, size=836), 6 + rng.choice(80, size=78)])
    return np.arange(1000), speakers, rng.choice(5, size=1000, p=(0.4, 0.2, 0.1, 0.2, 0.1))


def zipf_1() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts and speakers in unequal numbers, as 1 / rank."""
    rng = np.random.default_rng(0)
    return zipf(rng, 600, 40), zipf(rng, 600, 12), rng.integers(5, size=600)


DESIGNS = {
    "50 x 2": lambda: crossed(50, 2),
    "8 x 2": lambda: crossed(8, 2),
    "8 x 12": lambda: crossed(8, 12),
    "MELD-like": meld,
    "Zipf 1, 40 x 12": zipf_1,
}


def clips_of(design: str) -> list[Sample]:
    """Return the conflict clips of a design; a text's number says its words' label."""
    texts, speakers, voices = DESIGNS[design]()
    samples = [
        Sample(f"c{i}", Path(), "", f"t{t}", LABELS[t % 5], LABELS[v], f"s{s}", "", "")
        for i, (t, s, v) in enumerate(zip(texts, speakers, voices))
    ]
    return [s for s in samples if s.conflict]


def evidence(samples: list[Sample], gains: Gains, draws: int, *, seed: int = 0) -> Floats:
    """Return [clip, label, draw]; of speakers (or texts) that are held fixed the effects are the same in all draws."""
    rng = np.random.default_rng(seed)
    words, voice = (np.array([LABELS.index(getattr(s, f)) for s in samples]) for f in ("semantic_label", "prosody_label"))
    eye = np.eye(len(LABELS))
    found = np.repeat(gains.habit * eye[:, [LABELS.index("angry")]].T[..., None], len(samples), axis=0)
    found = found + CHANCE["clip"] * rng.normal(size=(len(samples), 5, draws))
    heard = np.repeat([[gains.words], [gains.voice]], draws, axis=1)[:, None]  # [cue, clip, draw]
    for field, name in (("text", "text_id"), ("speaker", "speaker")):
        codes = pd.factorize(np.array([getattr(s, name) for s in samples]))[0]
        levels = codes.max() + 1
        of = draws if levels >= MIN_LEVELS else 1
        spread = gains.spread(levels)
        found += (CHANCE[field] * spread * rng.normal(size=(levels, 5, of)))[codes]
        heard = heard * (1 + (CHANCE[field] / 2 * spread[:, 0] * rng.normal(size=(2, levels, of)))[:, codes])
    return found + sum(by[:, None] * eye[cue][..., None] for by, cue in zip(heard, (words, voice)))


def carried(donors: list[Sample], draws: int, *, seed: int) -> Floats:
    """Return the share of the donor's evidence in a patch [pair, draw, layer]: 1 at l = 0, 0 at l = L.

    It falls from a layer on that varies by text, by speaker (the same in all draws where these are held fixed) and by pair.
    """
    rng = np.random.default_rng(seed)
    until = 3 + 0.6 * rng.normal(size=(len(donors), draws))
    for field, deviation in (("text_id", 0.6), ("speaker", 0.3)):
        codes = pd.factorize(np.array([getattr(s, field) for s in donors]))[0]
        levels = codes.max() + 1
        until += deviation * rng.normal(size=(levels, draws if levels >= MIN_LEVELS else 1))[codes]
    share = np.clip(0.5 + (until[..., None] - np.arange(LAYERS)) / 3, 0, 1)
    share[..., 0], share[..., -1] = 1, 0
    return share


@dataclass(frozen=True)
class Patched:
    """Pairs of one kind and what became of them in every draw, as one layer after the other: [pair, ..., draw x layer]."""

    units: Units
    transfer: Transfer
    changed: Floats


def patched(design: str, kind: str, gains: Gains, draws: int, *, pairs: int = 300, seed: int = 0) -> Patched:
    samples = clips_of(design)
    built, _, _ = build_pairs(samples, kind, PairRules(max_pairs=pairs), seed=seed)
    place = {s.sample_id: i for i, s in enumerate(samples)}
    recipient, donor = ([place[getattr(p, role).sample_id] for p in built] for role in ("recipient", "donor"))
    of_clips = evidence(samples, gains, draws, seed=seed + 1)
    own, lent = (of_clips[at][..., None] for at in (recipient, donor))
    left = carried([samples[i] for i in donor], draws, seed=seed + 2)[:, None]
    logits = ((1 - left) * own + left * lent).reshape(len(built), 5, -1)
    base = np.repeat(own, LAYERS, axis=3).reshape(logits.shape)
    said = (logits == logits.max(axis=1, keepdims=True)).astype(float)
    changed = (logits.argmax(axis=1) != base.argmax(axis=1)).astype(float)
    rows = pd.DataFrame(
        {"true_pair_id": [p.pair_id for p in built], "kind": kind, "layer": 0, "target": [p.target for p in built]}
    )
    for role in ("recipient", "donor"):
        for field in ("text_id", "speaker", "source", "semantic_label", "prosody_label"):
            rows[f"{role}_{field}"] = [getattr(getattr(p, role), field) for p in built]
    columns = ("target", f"recipient_{SHARED_LABEL[kind]}", f"recipient_{kind}_label")
    named = np.stack([[LABELS.index(x) for x in rows[c]] for c in columns], axis=1)
    units, order = pair_units(rows), np.argsort([p.pair_id for p in built])
    return Patched(units, matched(named[order], said[order], (logits - base)[order]), changed[order])


def heard(design: str, gains: Gains, draws: int, *, seed: int = 0) -> tuple[Units, Floats]:
    """Return the clips of a design as units, and their evidence [clip, label, draw]."""
    samples = clips_of(design)
    fields = ("sample_id", "text_id", "speaker", "source", "semantic_label", "prosody_label")
    rows = pd.DataFrame({f: [getattr(s, f) for s in samples] for f in fields} | {"layer": 0})
    units = clip_units(rows)
    order = pd.Index([s.sample_id for s in samples]).get_indexer(units.unit_rows.sample_id)
    return units, evidence(samples, gains, draws, seed=seed)[order]
