"""Engine `layer_batch`: full runs in which one patched row joins at each layer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from common.model.encoding import EncodedClip
from common.model.head import head_reads, parts_read
from common.model.lm import AudioLM
from common.patching.rerun import Edit, edited, patch_extra_inputs, rerun
from common.tracing.hooks import PerPositionInputs, hooks, input_hook, output_hook


@torch.inference_mode()
def layer_batch(
    lm: AudioLM,
    recipient: EncodedClip,
    positions: slice,
    edit: Edit,
    layers: Sequence[int],
    tokens: Sequence[int] | None = None,
    extra_inputs: Sequence[PerPositionInputs] = (),
    *,
    whole: bool = False,
) -> torch.Tensor:
    """Return logits [layer, vocab], [layer, token] or, with `whole`, both: the recipient's answer with h_l edited at `positions`.

    One full run of the recipient, to which a row joins at each of `layers`: a copy of the unpatched row 0, edited. Positions
    beyond stay the recipient's. Layer L is the unpatched run: nothing reads the span of h_L. `extra_inputs` is what the
    blocks are given at the positions of the rows that have joined (`given_at`).
    """
    last = len(lm.blocks)
    joined = []

    def join(layer: int) -> Callable[..., Any]:
        def with_row(h: torch.Tensor) -> torch.Tensor:
            joined.append(layer)
            return torch.cat([h, edited(h.narrow(-3, 0, 1), positions, edit, layer)], dim=-3)

        return with_row

    handles = []
    for layer in (i for i in layers if i < last):
        handles.append(lm.blocks[layer].register_forward_pre_hook(input_hook(join(layer)), with_kwargs=True))
        handles.append(lm.blocks[layer].register_forward_pre_hook(_share_earlier_keys, with_kwargs=True))
    handles += patch_extra_inputs(lm, positions, extra_inputs, first=0, own_rows=1)
    handles.append(lm.blocks[-1].register_forward_hook(output_hook(lambda h: h[..., -1:, :])))
    with hooks(*handles), head_reads(lm, tokens, whole=whole) as split:
        output = lm.model(**recipient.inputs, use_cache=False)
    logits = parts_read(split(output.logits[:, -1]), whole=whole)  # [1 + layer, vocab]
    if joined != [i for i in layers if i < last]:
        raise RuntimeError(f"layer_batch: rows joined at blocks {joined}, not once at each of {list(layers)}")
    return torch.cat([logits[1:], *([logits[:1]] if last in layers else [])])


def _share_earlier_keys(module: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let rows that have joined read, like row 0, the keys and values that blocks hand on to later ones (Gemma 3n)."""
    rows = (inputs[0] if inputs else kwargs["hidden_states"]).shape[-3]
    shared = kwargs.get("shared_kv_states") or {}
    for key, tensors in list(shared.items()):
        shared[key] = tuple(torch.cat([t, t[:1].expand(rows - len(t), *t.shape[1:])]) for t in tensors)
    return inputs, kwargs


def sweep(
    lm: AudioLM,
    engine: str,
    recipient: EncodedClip,
    positions: slice,
    edit: Edit,
    layers: Sequence[int],
    tokens: Sequence[int] | None = None,
    extra_inputs: Sequence[PerPositionInputs] = (),
    *,
    whole: bool = False,
) -> torch.Tensor:
    """Return logits [layer, vocab] of the recipient edited at each of `layers`, by "layer_batch" or by one "rerun" each."""
    if engine == "layer_batch":
        return layer_batch(lm, recipient, positions, edit, layers, tokens, extra_inputs, whole=whole)
    return torch.stack([rerun(lm, recipient, layer, positions, edit, tokens, extra_inputs, whole=whole) for layer in layers])


def span_start(recipient: EncodedClip, donated: torch.Tensor) -> slice:
    """Return where `donated` [..., pos, d_model] goes: the start of the recipient's span."""
    return slice(recipient.span.start, recipient.span.start + donated.shape[-2])


def aligned_extra_inputs(extra_inputs: Sequence[PerPositionInputs], length: int, how: str) -> tuple[PerPositionInputs, ...]:
    """Return what a donor's blocks are given at its span for a recipient's span of `length` positions, as `aligned` does."""
    return tuple({key: aligned(t, length, how) for key, t in given.items()} for given in extra_inputs)


def aligned(donated: torch.Tensor, length: int, how: str) -> torch.Tensor:
    """Return a donor's span states [..., pos, d_model] for a recipient's span of `length` positions.

    "crop": the first positions, as many as both have. "stretch": interpolated over time to the recipient's length.
    """
    if how == "crop" or donated.shape[-2] == length:
        return donated[..., :length, :]
    over_time = donated.flatten(0, -3).transpose(-1, -2).float()  # [*, d_model, pos]
    stretched = torch.nn.functional.interpolate(over_time, size=length, mode="linear", align_corners=True)
    return stretched.transpose(-1, -2).to(donated.dtype).unflatten(0, donated.shape[:-2])
