"""Choose the patching engine of a model, and check it against reruns."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from common.errors import CheckFailed, UnknownBlock
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.patching.layer_batch import aligned, aligned_extra_inputs, span_start, sweep
from common.patching.rerun import put, rerun
from common.patching.splice import splice
from common.tracing.tolerance import equal, largest_difference
from common.tracing.trace import given_at, own_logits, record


@dataclass(frozen=True)
class PatchCheck:
    """What patching a clip A with donors showed: the largest differences of two logits, over all donors.

    `engine` is the first of those tried that gives what a rerun gives (`from_rerun`, nan for one that does not run). `reach` is
    the number of blocks up to the last that keeps anything of what it reads: after it nothing in the span reaches the answer.
    `row_0` is none where spans of unequal length are not patched whole. `overwritten`: what the rerun overwrites.
    """

    engine: str
    reach: int
    from_rerun: dict[str, float]
    onto_itself: float
    row_0: float | None
    row_last: float
    overwritten: str

    def figures(self) -> dict[str, Any]:
        """Return the check as run.json tells it."""
        tried = {f"{e} - rerun": shown(d) for e, d in self.from_rerun.items()}
        ends = {"A patched with A - A": self.onto_itself, "row L - recipient": self.row_last}
        whole = {} if self.row_0 is None else {"row 0 - donor": self.row_0}
        return (
            tried | ends | whole | {"blocks that keep what they read": self.reach, "overwritten by the rerun": self.overwritten}
        )


def check_patching(
    lm: AudioLM,
    a: EncodedClip,
    donors: Sequence[EncodedClip],
    own: torch.Tensor,
    limit: float,
    engines: Sequence[str],
    layers: Sequence[int],
) -> PatchCheck:
    """Find the first of `engines` that gives what a rerun gives, and check its identities.

    The rerun overwrites the span of A's run where the spans have equal length; else splice is held against the same hybrid
    read from the other side, the tail of the donor's run overwritten, and the others patch as many positions as both have.
    """
    trace, _ = record(lm, a, layers=layers)
    places = (len(layers) // 3, 2 * len(layers) // 3)
    checked = [layers[i] for i in places]

    def swept(engine: str, donor: EncodedClip, layers: Sequence[int]) -> torch.Tensor:
        states, given = given_at(lm, donor, donor.span)
        donated, extra_inputs = aligned(states, a.span_length, "crop"), aligned_extra_inputs(given, a.span_length, "crop")
        return sweep(lm, engine, a, span_start(a, donated), put(donated), layers, extra_inputs=extra_inputs)

    def by(engine: str, donor: EncodedClip) -> torch.Tensor:
        """Return [layer, vocab] of A patched with a donor."""
        if engine == "splice":
            return splice(lm, record(lm, donor, layers=layers)[0], [trace])[0]
        return swept(engine, donor, layers)

    def by_rerun(engine: str, donor: EncodedClip) -> torch.Tensor:
        """Return the same at the layers that are `checked`."""
        if engine == "splice" and a.span_length != donor.span_length:
            tail = put(dict(zip(layers, trace.tail)))
            return torch.stack([rerun(lm, donor, layer, donor.tail, tail) for layer in checked])
        return swept("rerun", donor, checked)

    from_rerun: dict[str, float] = {}
    for engine in engines:
        if (patched := attempt(partial(map, partial(by, engine), (*donors, a)))) is None:
            from_rerun[engine] = torch.nan
            continue
        slow = torch.stack([by_rerun(engine, donor) for donor in donors])
        from_rerun[engine] = largest_difference(patched[:-1, list(places)], slow)
        if from_rerun[engine] <= limit:  # False for nan
            break
    else:
        found = ", ".join(
            f"{engine} {shown(off)}" if off != off else f"{engine} is off by {off:.3g}" for engine, off in from_rerun.items()
        )
        raise CheckFailed(f"self-check: {found} (allowed: {limit:.3g}); another --at or --intervention may suit this decoder")
    whole = [i for i, donor in enumerate(donors) if engine == "splice" or donor.span_length == a.span_length]
    own_runs = [own_logits(lm, donors[i]) for i in whole]
    row_0 = largest_difference(patched[whole, 0], torch.stack(own_runs)) if whole else None
    if row_0 is not None and engine == "splice":
        equal("row 0 - donor", row_0, limit)
    return PatchCheck(
        engine=engine,
        reach=trace.reach,
        from_rerun=from_rerun,
        onto_itself=equal("A patched with A - A", largest_difference(patched[-1], own.expand_as(patched[-1])), limit),
        row_0=row_0,
        row_last=equal("row L - recipient", largest_difference(patched[:, -1], own.expand_as(patched[:, -1])), limit),
        overwritten="tail of the donor" if engine == "splice" and a.span_length != donors[0].span_length else "span of A",
    )


def attempt(make: Callable[[], Iterable[torch.Tensor]]) -> torch.Tensor | None:
    """Return what `make` gives, stacked, or None where the decoder is not built for it."""
    try:
        return torch.stack(list(make()))
    except (torch.OutOfMemoryError, UnknownBlock):
        raise
    except (RuntimeError, IndexError, KeyError, ValueError, AttributeError, TypeError):
        return None


def shown(difference: float) -> float | str:
    """Return a difference as run.json tells it: nan is that of what does not run."""
    return difference if difference == difference else "does not run"
