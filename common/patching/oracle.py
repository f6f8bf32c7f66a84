"""Rerun: one full run with one hook, the oracle that the fast ways of patching are held against."""

from collections.abc import Callable, Mapping, Sequence

import torch

from common.model.encoding import EncodedClip
from common.model.head import head_reads
from common.model.load import AudioLM
from common.patching.hooks import hooks, way_in, way_out

Edit = Callable[[int, torch.Tensor], torch.Tensor]  # (layer, states [(stream,) 1, pos, d_model]) -> what becomes of them
States = torch.Tensor | Mapping[int, torch.Tensor]  # of each layer


def put(states: States) -> Edit:
    """Return the edit that puts `states` [(stream,) 1, pos, d_model] of each layer in the place of those that are there."""
    return lambda layer, h: states[layer]


@torch.inference_mode()
def rerun(
    lm: AudioLM, clip: EncodedClip, layer: int, positions: slice, edit: Edit, tokens: Sequence[int] | None = None
) -> torch.Tensor:
    """Return the last position's logits [vocab] of a full run with h_layer edited at `positions`; of `tokens` [token].

    Slow and obvious: the oracle that tests and the self-check hold the fast ways against.
    """
    reached = []

    def overwrite(h: torch.Tensor) -> torch.Tensor:
        reached.append(layer)
        return edited(h, positions, edit, layer)

    if layer < len(lm.blocks):
        handle = lm.blocks[layer].register_forward_pre_hook(way_in(overwrite), with_kwargs=True)
    else:
        handle = lm.blocks[-1].register_forward_hook(way_out(overwrite))
    with hooks(handle), head_reads(lm, tokens) as split:
        logits = split(lm.model(**clip.inputs, use_cache=False).logits[0, -1])
    if len(reached) != 1:
        raise RuntimeError(f"rerun: the hook at layer {layer} was reached {len(reached)} times, not once")
    return logits[1]


def edited(h: torch.Tensor, positions: slice, edit: Edit, layer: int) -> torch.Tensor:
    h = h.clone()
    h[..., positions, :] = edit(layer, h[..., positions, :]).to(h)
    return h
