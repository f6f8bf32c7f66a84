"""Engine `rerun`: one full run per layer; the reference for the faster engines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from common.model.encoding import EncodedClip
from common.model.head import head_reads, parts_read
from common.model.lm import AudioLM
from common.tracing.hooks import PerPositionInputs, extra_input_hook, hooks, input_hook, output_hook

Edit = Callable[[int, torch.Tensor], torch.Tensor]  # (layer, states [(stream,) 1, pos, d_model]) -> what becomes of them
States = torch.Tensor | Mapping[int, torch.Tensor]  # of each layer


def put(states: States) -> Edit:
    """Return the edit that puts `states` [(stream,) 1, pos, d_model] of each layer in the place of those that are there."""
    return lambda layer, h: states[layer]


@torch.inference_mode()
def rerun(
    lm: AudioLM,
    clip: EncodedClip,
    layer: int,
    positions: slice,
    edit: Edit,
    tokens: Sequence[int] | None = None,
    extra_inputs: Sequence[PerPositionInputs] = (),
    *,
    whole: bool = False,
) -> torch.Tensor:
    """Return the last position's logits [vocab] of a full run with h_layer edited at `positions`; of `tokens` [token]; or both.

    `extra_inputs` is what the blocks are given there instead, from block `layer` on. Slow and obvious: what tests and the
    self-check hold the fast ways against.
    """
    reached = []

    def overwrite(h: torch.Tensor) -> torch.Tensor:
        reached.append(layer)
        return edited(h, positions, edit, layer)

    if layer < len(lm.blocks):
        handle = lm.blocks[layer].register_forward_pre_hook(input_hook(overwrite), with_kwargs=True)
    else:
        handle = lm.blocks[-1].register_forward_hook(output_hook(overwrite))
    others = patch_extra_inputs(lm, positions, extra_inputs[layer:], first=layer, own_rows=0)
    with hooks(handle, *others), head_reads(lm, tokens, whole=whole) as split:
        logits = split(lm.model(**clip.inputs, use_cache=False).logits[0, -1])
    if len(reached) != 1:
        raise RuntimeError(f"rerun: the hook at layer {layer} was reached {len(reached)} times, not once")
    return parts_read(logits, whole=whole)


def patch_extra_inputs(
    lm: AudioLM, positions: slice, extra_inputs: Sequence[PerPositionInputs], *, first: int, own_rows: int
) -> list[RemovableHandle]:
    """Give the blocks from `first` on `extra_inputs` at `positions`, in all rows but the first `own_rows`; return the hooks."""

    def patch(donated: PerPositionInputs) -> Callable[..., Any]:
        def edit(own: PerPositionInputs, rows: int) -> PerPositionInputs:
            both = {key: (t, overwritten(t, positions, donated[key])) for key, t in own.items()}  # [1, pos, any] each
            return {
                key: torch.cat([t.expand(own_rows, -1, -1), patched.expand(rows - own_rows, -1, -1)])
                for key, (t, patched) in both.items()
            }

        return extra_input_hook(edit)

    blocks = list(lm.blocks)[first:]
    return [b.register_forward_pre_hook(patch(d), with_kwargs=True) for b, d in zip(blocks, extra_inputs) if d]


def edited(h: torch.Tensor, positions: slice, edit: Edit, layer: int) -> torch.Tensor:
    return overwritten(h, positions, edit(layer, h[..., positions, :]))


def overwritten(h: torch.Tensor, positions: slice, states: torch.Tensor) -> torch.Tensor:
    h = h.clone()
    h[..., positions, :] = states.to(h)
    return h
