"""Choose the clips of a logit lens run."""

from typing import Any

from common.clips.manifest import Sample, conflict_clips, draw


def choose_clips(clips: list[Sample], *, limit: int | None, seed: int) -> tuple[list[Sample], dict[str, Any]]:
    """Return the conflict clips, then as many congruent ones at most, and the counts of those kept and dropped, with reasons."""
    conflict, _ = conflict_clips(clips)
    congruent = [s for s in clips if not s.conflict]
    kept = draw(conflict, limit, seed=seed)
    beside = draw(congruent, len(kept), seed=seed)
    dropped = {
        "over --limit": len(conflict) - len(kept),
        "congruent over the number kept": len(congruent) - len(beside),
    }
    counts = {"clips": len(kept), "congruent clips": len(beside), "dropped": dropped, "sources": sorted({s.source for s in kept})}
    return kept + beside, counts
