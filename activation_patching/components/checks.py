"""Check the identities of a components run on one pair before it starts."""

from collections.abc import Sequence

import torch

from common.components.attribution import attribute
from common.components.submodules import Parts, on_mlp, on_projection
from common.components.substitution import Activations, Component, activations, components_of, patch_components
from common.compute.session import Session
from common.errors import UnknownBlock
from common.model.encoding import EncodedClip
from common.model.head import head_reads
from common.patching.tail_pass import last_of, tail_of
from common.tracing.hooks import hooks
from common.tracing.tolerance import equal, largest_difference
from common.tracing.trace import own_logits


def no_attribution(session: Session, parts: Sequence[Parts]) -> str:
    """Say why it cannot be told what parts add by themselves; "" where it can. Raises CheckFailed where the sum is off."""
    try:
        off = attribute(session.lm, parts, last_of(session.lm, tail_of(session.lm, session.first)), session.readout.ids).off
    except UnknownBlock as error:
        return f"no direct attribution: {error}"
    equal("sum of what all parts add - logits", off, session.check.tolerance)
    return ""


def check_components(session: Session, parts: Sequence[Parts], one: EncodedClip, other: EncodedClip) -> dict[str, float]:
    """Return how far the identities are off on a pair of clips; raise CheckFailed beyond the tolerance of the dtype.

    Unpatched it is the model's answer; own parts put back change nothing; a row is what a full run with that change gives; the
    donor's attentions together give the donor's answer, as the last token is the same in both.
    """
    lm, tokens = session.lm, session.readout.ids
    tail, of_donor = tail_of(lm, one), tail_of(lm, other)
    last = last_of(lm, tail)
    (itself, own), (does, answer) = (activations(lm, parts, reading, tokens) for reading in (tail, of_donor))
    attentions, mlps = components_of(parts, "attention"), components_of(parts, "mlp")
    some = [[part[len(part) // 2]] for part in (components_of(parts, "head"), mlps) if part]
    unpatched = patch_components(lm, parts, last, itself, [[*attentions, *mlps], *some], tokens)
    whole = patch_components(lm, parts, tail, itself, [[*attentions, *mlps]], tokens)
    base, together, *rows = patch_components(lm, parts, last, does, [attentions, *some], tokens)
    slow = torch.stack([_rerun(session, parts, one, does, component) for (component,) in some])
    model = torch.stack([own_logits(lm, clip)[list(tokens)].float() for clip in (one, other)])
    figures = {
        "unpatched - model": largest_difference(torch.stack([base, own]), model[:1].expand(2, -1)),
        "own parts put back - unpatched": largest_difference(torch.cat([unpatched[1:], whole[1:]]), own),
        "patched rows - full run with the same change": largest_difference(torch.stack(rows), slow),
        "all attentions of B - B": largest_difference(together, answer),
    }
    return {name: equal(name, difference, session.check.tolerance) for name, difference in figures.items()}


@torch.inference_mode()
def _rerun(session: Session, parts: Sequence[Parts], clip: EncodedClip, does: Activations, component: Component) -> torch.Tensor:
    """Return the label logits [label] of a full run with one component of the donor's at the last position."""
    of_block, is_mlp = parts[component.block], component.part == "mlp"
    donated = (does.mlp if is_mlp else does.heads)[component.block]
    assert donated is not None
    size = donated.shape[-1] if is_mlp else donated.shape[-1] // of_block.heads
    numbers = slice(component.head * size, (component.head + 1) * size)

    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, -1, numbers] = donated[:, -1, numbers].to(x)
        return x

    with hooks(*(on_mlp if is_mlp else on_projection)(of_block, change)), head_reads(session.lm, session.readout.ids) as split:
        return split(session.lm.model(**clip.inputs, use_cache=False).logits[0, -1])[1]
