"""Rerun: one full run with one hook, the oracle that the fast ways of patching are held against."""

from collections.abc import Sequence

import torch

from common.model.encoding import EncodedClip
from common.model.head import head_reads
from common.model.load import AudioLM
from common.patching.hooks import hooks, way_in, way_out


@torch.inference_mode()
def rerun(
    lm: AudioLM, clip: EncodedClip, layer: int, positions: slice, states: torch.Tensor, tokens: Sequence[int] | None = None
) -> torch.Tensor:
    """Return the last position's logits [vocab] of a full run with h_layer at `positions` set to `states`; of `tokens` [token].

    `states` [(stream,) 1, pos, d_model]. Slow and obvious: the oracle that tests and the self-check hold the fast ways against.
    """
    reached = []

    def overwrite(h: torch.Tensor) -> torch.Tensor:
        reached.append(layer)
        return overwritten(h, positions, states)

    if layer < len(lm.blocks):
        handle = lm.blocks[layer].register_forward_pre_hook(way_in(overwrite), with_kwargs=True)
    else:
        handle = lm.blocks[-1].register_forward_hook(way_out(overwrite))
    with hooks(handle), head_reads(lm, tokens) as split:
        logits = split(lm.model(**clip.inputs, use_cache=False).logits[0, -1])
    if len(reached) != 1:
        raise RuntimeError(f"rerun: the hook at layer {layer} was reached {len(reached)} times, not once")
    return logits[1]


def patched_positions(recipient: EncodedClip, donated: torch.Tensor) -> slice:
    """Return where `donated` [..., pos, d_model] goes: the start of the recipient's span."""
    return slice(recipient.span.start, recipient.span.start + donated.shape[-2])


def overwritten(h: torch.Tensor, positions: slice, states: torch.Tensor) -> torch.Tensor:
    h = h.clone()
    h[..., positions, :] = states.to(h)
    return h
