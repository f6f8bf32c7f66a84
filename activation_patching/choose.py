"""Choose the pairs of a run and group them by donor."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from common.clips.pairs import NoPairs, Pair, PairRules, build_pairs, control_pairs, listed_pairs
from common.clips.samples import Sample, conflict_clips, draw
from common.errors import InputError
from common.patching import ENGINES


def choose_pairs(
    clips: list[Sample],
    *,
    kinds: Sequence[str],
    rules: PairRules,
    pool: str,
    controls: float,
    limit: int | None,
    seed: int,
    pairs_file: Path | None = None,
    trim: bool = False,
) -> tuple[list[Pair], dict[str, Any]]:
    """Return the pairs to patch and their controls, a donor's together, and the counts of clips and pairs, with reasons.

    A kind that the clips cannot give is left out, and the counts' warnings say why. Pairs listed in `pairs_file` are all taken,
    whatever pool, limit and rules. `trim`: lengths are those without silence at the ends. Raises InputError where no kind has
    a pair.
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
    pairs += control_pairs(pairs, drawn, share=controls, seed=seed)
    order = {sample.sample_id: i for i, sample in enumerate(drawn)}
    pairs.sort(key=lambda p: (order[p.donor.sample_id], p.silent))  # stable: kinds, then controls
    used = len(clips_of(pairs))
    dropped.update({"over --limit": len(chosen) - len(drawn), "in no pair": len(drawn) - used})
    of_controls = Counter(f"{p.kind}, {p.control}" for p in pairs if p.control != "none")
    counts = {"clips": used, "dropped": dict(dropped), "pairs": kept, "control pairs": dict(of_controls)}
    return pairs, counts | {"warnings": missing}


def clips_of(pairs: list[Pair]) -> list[Sample]:
    """Return each clip of `pairs` once."""
    return list({s.sample_id: s for p in pairs for s in (p.recipient, p.donor)}.values())


def groups_of(pairs: list[Pair]) -> list[list[Pair]]:
    """Return the pairs of each donor: what is patched together."""
    return [list(group) for _, group in groupby(pairs, key=lambda p: (p.donor.sample_id, p.silent))]


def engines_for(align: str) -> Sequence[str]:
    """Return the ways of patching for an alignment: splice puts in the whole span of the donor, whatever its length."""
    return ENGINES if align == "splice" else ENGINES[1:]
