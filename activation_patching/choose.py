"""Choose the pairs of a run, group them by recipient, and split clips for fitting."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from activation_patching.intervention import InterventionSpec
from common.clips.manifest import Sample, conflict_clips, draw
from common.clips.pairs import (
    DISTURBANCES,
    SAME_TEXT,
    SUBSPACE_CONTROLS,
    NoPairs,
    Pair,
    PairRules,
    build_pairs,
    control_pairs,
    lacking_third_labels,
    listed_pairs,
)
from common.digests import digest
from common.errors import InputError, first_line
from common.run.settings import Chosen
from common.stats.splits import halves, held_out

_LEAST = 3  # clips of each label that a subspace is learned from
_SAME_TEXT = 50  # prosody pairs whose donor has the same text and labels besides: does the voice count beyond its label?
_LACKING = 0.2  # share of pairs that may lack third labels: with more, donors with the recipient's labels are the baseline


@dataclass(frozen=True)
class PairChoice:
    """Which pairs a run makes: of how many clips (`limit`), from which `pool`, by which `rules` or of which `pairs_file`."""

    limit: int | None
    seed: int
    controls: bool
    kinds: Sequence[str]
    pool: str
    rules: PairRules
    pairs_file: Path | None
    trim: bool

    def record(self) -> dict[str, Any]:
        """Return the same as run.json keeps it, a list of pairs by what it says. Raises InputError where that cannot be read."""
        try:
            text = self.pairs_file.read_text(encoding="utf-8-sig") if self.pairs_file else None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--pairs-file {self.pairs_file}: cannot be read ({first_line(error)})") from None
        return asdict(self) | {"pairs_file": text and digest(text)}


def choose_pairs(
    clips: list[Sample],
    *,
    kinds: Sequence[str],
    labels: Sequence[str],
    rules: PairRules,
    pool: str,
    controls: bool,
    limit: int | None,
    seed: int,
    pairs_file: Path | None = None,
    trim: bool = False,
    intervention: str = "span",
) -> tuple[list[Pair], dict[str, Any]]:
    """Return the pairs to patch and their controls, a donor's together, and the counts of clips and pairs, with reasons.

    A kind that the clips cannot give is left out, and the counts' warnings say why. Pairs listed in `pairs_file` are all taken,
    whatever pool, limit and rules. `trim`: lengths are those without silence at the ends. `controls` asks for
    donors that only disturb. Raises InputError where no kind has a pair.
    """
    if pairs_file is not None:
        pool, limit = "all", None
    chosen, dropped = conflict_clips(clips) if pool == "conflict" else (clips, Counter())
    drawn = draw(chosen, limit, seed=seed)
    pairs: list[Pair] = []
    kept: dict[str, Any] = {}
    missing: list[str] = []
    for kind in dict.fromkeys(kinds):
        try:
            if pairs_file is not None:
                built, shared, over = listed_pairs(pairs_file, drawn, kind), "what the list gives them", Counter[str]()
            elif intervention == "components":
                half = half_of(clips, seed=seed)
                built, shared, over = _within_halves(drawn, half, kind, rules, seed=seed, trim=trim)
            else:
                built, shared, over = build_pairs(drawn, kind, rules, seed=seed, trim=trim)
        except NoPairs as reason:
            missing.append(str(reason))
            continue
        kept[kind] = {"kept": len(built), "dropped": dict(over), "shared": shared}
        pairs += built
    if not pairs:
        hint = "; --pool all takes congruent clips too" if pool == "conflict" else ""  # of two labels it must
        raise InputError("; ".join(missing) + hint)
    further, said = _controls(pairs, drawn, labels, intervention=intervention, disturbances=controls, seed=seed)
    pairs += further
    order = {sample.sample_id: i for i, sample in enumerate(drawn)}
    pairs.sort(key=lambda p: (order[_lead(p, intervention)[0]], p.silent))  # stable: kinds, then controls
    used = len(clips_of(pairs))
    dropped.update({"over --limit": len(chosen) - len(drawn), "in no pair": len(drawn) - used})
    of_controls = Counter(f"{p.kind}, {p.control}" for p in pairs if p.control != "none")
    counts = {"clips": used, "dropped": dict(dropped), "pairs": kept, "control pairs": dict(of_controls)}
    return pairs, counts | {"warnings": missing + said}


def choose(clips: list[Sample], labels: Sequence[str], *, choice: PairChoice, spec: InterventionSpec) -> Chosen:
    """Return the pairs of a run and, where subspaces are learned, the clips to learn from: both before a model is loaded."""
    pairs, counts = choose_pairs(clips, labels=labels, **vars(choice), intervention=spec.intervention)
    warnings = tuple(counts.pop("warnings"))
    held_out = held_out_clips(clips, pairs, seed=choice.seed) if spec.learns else None
    return Chosen(clips if held_out else clips_of(pairs), counts, (pairs, held_out), warnings)


def speaking_pairs(pairs: Sequence[Pair], count: int, *, seed: int) -> list[Pair]:
    """Return `count` pairs of each kind that are to go on in free text, drawn with the seed; no controls."""
    of_kinds = ([p for p in pairs if (p.kind, p.control) == (kind, "none")] for kind in dict.fromkeys(p.kind for p in pairs))
    return [pair for of_kind in of_kinds for pair in draw(of_kind, count, seed=seed)]


def half_of(clips: Sequence[Sample], *, seed: int) -> dict[str, int]:
    """Return the half of the texts, 0 or 1, that each of all clips of a run belongs to, by its id."""
    found = halves([s.text_id for s in clips], [s.semantic_label for s in clips], seed=seed)
    return {s.sample_id: int(half) for s, half in zip(clips, found)}


def _within_halves(
    clips: list[Sample], half: dict[str, int], kind: str, rules: PairRules, *, seed: int, trim: bool
) -> tuple[list[Pair], str, Counter[str]]:
    """Return what build_pairs does, within two halves of the texts: what is chosen on one half is estimated on the other."""
    pairs, over = list[Pair](), Counter[str]()
    rules = replace(rules, max_pairs=rules.max_pairs and max(1, rules.max_pairs // 2))
    for number in sorted(set(half.values())):
        inside = [s for s in clips if half[s.sample_id] == number]
        built, shared, left = build_pairs(inside, kind, rules, seed=seed, trim=trim)
        pairs, over = pairs + built, over + left
    return pairs, shared, over


def _controls(
    pairs: list[Pair], pool: list[Sample], labels: Sequence[str], *, intervention: str, disturbances: bool, seed: int
) -> tuple[list[Pair], list[str]]:
    """Return the controls that a run makes beside its pairs, and what is to be said of them.

    Of a subspace: a random one, and the whole state. Of a span: donors of the same text and labels beside some
    prosody pairs; donors of the same labels where pairs lack third labels, and where `disturbances` are asked for.
    """
    if intervention == "components":
        return [], []
    if intervention != "span":
        return [c for control in SUBSPACE_CONTROLS for c in control_pairs(pairs, pool, control, seed=seed)], []
    found, said = [], []
    for kind in dict.fromkeys(p.kind for p in pairs):
        of_kind = [p for p in pairs if p.kind == kind]
        wanted = list(DISTURBANCES if disturbances else ())
        if (share := lacking_third_labels(of_kind, labels)) > _LACKING:
            said.append(f"{kind} pairs: {share:.0%} name every label; donors with the recipient's own labels are the baseline")
            wanted = list(dict.fromkeys([DISTURBANCES[0], *wanted]))
        found += [c for control in wanted for c in control_pairs(of_kind, pool, control, seed=seed)]
        if kind == "prosody":
            found += control_pairs(of_kind, pool, SAME_TEXT, most=_SAME_TEXT, seed=seed)
    return found, said


def clips_of(pairs: list[Pair]) -> list[Sample]:
    """Return each clip of `pairs` once."""
    return list({s.sample_id: s for p in pairs for s in (p.recipient, p.donor)}.values())


def groups_of(pairs: list[Pair], intervention: str = "span") -> list[list[Pair]]:
    """Return what is patched together: the pairs of each donor of a span, of each recipient of another intervention."""
    return [list(group) for _, group in groupby(pairs, key=lambda p: _lead(p, intervention))]


def _lead(pair: Pair, intervention: str) -> tuple[str, bool]:
    return (pair.donor.sample_id, pair.silent) if intervention == "span" else (pair.recipient.sample_id, False)


@dataclass(frozen=True)
class HeldOutClips:
    """Of which of the `clips` a subspace may be learned: those that share no text and no speaker with the pair's two clips.

    `parts` has for each clip the number of its part; `learn` for each part the places of the clips that share neither with it.
    """

    clips: list[Sample]
    parts: dict[str, int]
    learn: list[np.ndarray]

    def key(self, pair: Pair) -> tuple[int, int]:
        """Return the parts of the pair's recipient and true donor, which say what is left out."""
        one, other = sorted(self.parts[s.sample_id] for s in (pair.recipient, pair.true_donor or pair.donor))
        return one, other

    def places(self, key: tuple[int, int]) -> np.ndarray:
        return np.intersect1d(self.learn[key[0]], self.learn[key[1]])


def held_out_clips(clips: list[Sample], pairs: list[Pair], *, seed: int) -> HeldOutClips:
    """Part the clips, congruent ones too: in conflict clips alone one label tells something of the other.

    Raises InputError where for some pair too few clips are left, or none of some label.
    """
    texts, speakers, words = ([getattr(s, f) for s in clips] for f in ("text_id", "speaker", "semantic_label"))
    folds = held_out(texts, speakers, words, seed=seed)
    parts = {clips[i].sample_id: number for number, (_, out) in enumerate(folds) for i in out}
    found = HeldOutClips(clips, parts, [learn for learn, _ in folds])
    for kind, key in dict.fromkeys((p.kind, found.key(p)) for p in pairs):
        left = Counter(getattr(clips[i], f"{kind}_label") for i in found.places(key))
        short = [x for x in dict.fromkeys(getattr(s, f"{kind}_label") for s in clips) if left[x] < _LEAST]
        if short:
            pair = next(p for p in pairs if (p.kind, found.key(p)) == (kind, key))
            raise InputError(
                f"{pair.pair_id}: of the {len(clips)} clips {left.total()} have other texts and speakers, and fewer "
                f"than {_LEAST} of them the {kind}_label {', '.join(short)}: too few to learn from"
            )
    return found
