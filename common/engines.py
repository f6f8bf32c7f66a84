"""Put one clip's audio states into another clip's run, at every layer: splice, else staircase, else rerun.

All three give the same numbers where they hold; the self-check of a run (common/checks.py) finds out which do.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from common.encoding import EncodedClip
from common.models import AudioLM
from common.tracing import Trace, hooks, way_in, way_out

ENGINES = ("splice", "staircase", "rerun")  # ways of patching, fastest first
ALIGNMENTS = ("splice", "crop", "stretch")  # what becomes of a donor's span that is longer or shorter than the recipient's


@torch.inference_mode()
def splice(lm: AudioLM, donor: Trace, recipients: Sequence[Trace], tokens: Sequence[int] | None = None) -> torch.Tensor:
    """Return logits [recipient, layer, vocab]: each recipient's answer with its audio span at h_l taken from the donor's run.

    With `tokens` only their logits, in their order [recipient, layer, token]: the head then computes nothing else.

    Attention is causal and the prefix is shared, so once the span of h_l is the donor's, its states at every later layer are
    the donor's too; what is left to compute is the recipient's tail, from block l on, over the donor's keys and values. At
    block l one more row per recipient joins the batch, so one pass over the tail serves all layers and recipients. From layer
    l on the tail takes the donor's positions; spans may differ in length. Row 0 is the donor's own run, row L the recipient's.
    """
    tails = torch.cat([r.tail for r in recipients], dim=-3)  # [layer, (stream,) recipient, tail, d_model]
    span_stop, tail_length = donor.keys[0].shape[-2], tails.shape[-2]
    first = tails[0].narrow(-3, 0, 1)
    entering = tails[0] if (tails[0] != first).any() else first  # of equal tails, the row 0 of all recipients is one row
    joined = []

    def join(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def edit(h: torch.Tensor) -> torch.Tensor:
            joined.append(layer)
            return entering.to(h) if layer == 0 else torch.cat([h, tails[layer].to(h)], dim=-3)

        return edit

    def last_position(h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h, tails[-1].to(h)], dim=-3)[..., -1:, :]

    handles = [b.register_forward_pre_hook(way_in(join(i)), with_kwargs=True) for i, b in enumerate(lm.blocks)]
    handles.append(lm.blocks[-1].register_forward_hook(way_out(last_position)))
    if (mlp := getattr(lm.blocks[-1], "mlp", None)) is not None:
        handles.append(mlp.register_forward_pre_hook(_readout_position_alone))
    with hooks(*handles), _heads_share_keys(lm.device), _head_for(lm, tokens) as short:
        logits = lm.model(
            input_ids=donor.tail_ids,
            attention_mask=torch.ones(1, span_stop + tail_length, dtype=torch.long, device=lm.device),
            position_ids=torch.arange(span_stop, span_stop + tail_length, device=lm.device)[None],
            past_key_values=Cache(layers=[_SharedLayer(k, v) for k, v in zip(donor.keys, donor.values)]),
            use_cache=True,
        ).logits[:, -1]  # [row, vocab]
    if tokens is not None and not short:
        logits = logits[:, list(tokens)]
    if joined != list(range(len(lm.blocks))):
        raise RuntimeError(f"splice: the rows joined at blocks {joined}, not once at each of {len(lm.blocks)}")
    others = logits[entering.shape[-3] :].unflatten(0, (len(lm.blocks), len(recipients)))  # [layer from 1, recipient, vocab]
    row_0 = logits[: entering.shape[-3]].expand(len(recipients), -1)
    return torch.cat([row_0[None], others]).transpose(0, 1)


def _readout_position_alone(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Hand the last block's MLP the readout position alone: nothing reads the others, and the residual sum broadcasts."""
    if not args or not isinstance(args[0], torch.Tensor) or args[0].dim() != 3:
        return None  # another kind of MLP: it computes every position
    return args[0][:, -1:], *args[1:]


@contextmanager
def _heads_share_keys(device: torch.device) -> Iterator[None]:
    """Keep transformers from copying every row's keys and values once per query head, on a CPU.

    It does so wherever there is a mask, as CUDA kernels need; the CPU kernel takes grouped heads as they are, with the same
    result bit for bit. The variable is transformers' own switch (integrations/sdpa_attention.py), read at each call.
    """
    switch = {"TRANSFORMERS_SDPA_FORCE_GQA": "1"} if device.type == "cpu" else {}
    before = {name: os.environ.get(name) for name in switch}
    os.environ.update(switch)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _head_for(lm: AudioLM, tokens: Sequence[int] | None) -> Iterator[bool]:
    """Give the head the rows of `tokens` alone; yield False where that cannot be, as with weights that are elsewhere."""
    head = lm.model.get_output_embeddings()
    if tokens is None or type(head) is not nn.Linear or head.weight.is_meta:
        yield False
        return
    whole = head.weight, head.bias
    head.weight, head.bias = (None if w is None else nn.Parameter(w[list(tokens)], requires_grad=False) for w in whole)
    try:
        yield True
    finally:
        head.weight, head.bias = whole


class _SharedLayer(DynamicLayer):
    """The donor's keys and values of one block, read by every row and never grown."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = key_states.shape[0]
        keys, values = (own.to(key_states.device).expand(rows, -1, -1, -1) for own in (self.keys, self.values))
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


@torch.inference_mode()
def staircase(lm: AudioLM, recipient: EncodedClip, donated: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
    """Return logits [layer, vocab]: the recipient's answer with the start of its audio span at h_l set to `donated`[l].

    One full run of the recipient, to which a row joins at each of `layers`: a copy of the unpatched row 0 whose span is
    overwritten. `donated` [layer, (stream,) 1, pos, d_model] has at most as many positions as the span; those beyond
    stay the recipient's. Layer L is the unpatched run: nothing reads the span of h_L.
    """
    last, positions = len(lm.blocks), patched_positions(recipient, donated)
    joined = []

    def join(layer: int) -> Callable[..., Any]:
        def edit(h: torch.Tensor) -> torch.Tensor:
            joined.append(layer)
            return torch.cat([h, _overwritten(h.narrow(-3, 0, 1), positions, donated[layer])], dim=-3)

        return edit

    handles = []
    for layer in (i for i in layers if i < last):
        handles.append(lm.blocks[layer].register_forward_pre_hook(way_in(join(layer)), with_kwargs=True))
        handles.append(lm.blocks[layer].register_forward_pre_hook(_share_earlier_keys, with_kwargs=True))
    with hooks(*handles, lm.blocks[-1].register_forward_hook(way_out(lambda h: h[..., -1:, :]))):
        logits = lm.model(**recipient.inputs, use_cache=False).logits[:, -1]  # [1 + layer, vocab]
    if joined != [i for i in layers if i < last]:
        raise RuntimeError(f"staircase: rows joined at blocks {joined}, not once at each of {list(layers)}")
    return torch.cat([logits[1:], *([logits[:1]] if last in layers else [])])


def _share_earlier_keys(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let rows that have joined read, like row 0, the keys and values that blocks hand on to later ones (Gemma 3n)."""
    rows = (args[0] if args else kwargs["hidden_states"]).shape[-3]
    shared = kwargs.get("shared_kv_states") or {}
    for key, tensors in list(shared.items()):
        shared[key] = tuple(torch.cat([t, t[:1].expand(rows - len(t), *t.shape[1:])]) for t in tensors)
    return args, kwargs


@torch.inference_mode()
def rerun(lm: AudioLM, clip: EncodedClip, layer: int, positions: slice, states: torch.Tensor) -> torch.Tensor:
    """Return the last position's logits [vocab] of a full run with h_layer at `positions` set to `states`.

    `states` [(stream,) 1, pos, d_model]. Slow and obvious: the oracle that tests and the self-check hold the fast ways against.
    """
    reached = []

    def overwrite(h: torch.Tensor) -> torch.Tensor:
        reached.append(layer)
        return _overwritten(h, positions, states)

    if layer < len(lm.blocks):
        handle = lm.blocks[layer].register_forward_pre_hook(way_in(overwrite), with_kwargs=True)
    else:
        handle = lm.blocks[-1].register_forward_hook(way_out(overwrite))
    with hooks(handle):
        logits = lm.model(**clip.inputs, use_cache=False).logits[0, -1]
    if len(reached) != 1:
        raise RuntimeError(f"rerun: the hook at layer {layer} was reached {len(reached)} times, not once")
    return logits


def sweep(lm: AudioLM, engine: str, recipient: EncodedClip, donated: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
    """Return logits [layer, vocab] of the recipient patched at each of `layers`, by "staircase" or by one "rerun" each."""
    if engine == "staircase":
        return staircase(lm, recipient, donated, layers)
    positions = patched_positions(recipient, donated)
    return torch.stack([rerun(lm, recipient, layer, positions, donated[layer]) for layer in layers])


def patched_positions(recipient: EncodedClip, donated: torch.Tensor) -> slice:
    """Return where `donated` [..., pos, d_model] goes: the start of the recipient's span."""
    return slice(recipient.span.start, recipient.span.start + donated.shape[-2])


def aligned(donated: torch.Tensor, length: int, how: str) -> torch.Tensor:
    """Return a donor's span states [..., pos, d_model] for a recipient's span of `length` positions.

    "crop": the first positions, as many as both have. "stretch": interpolated over time to the recipient's length.
    """
    if how == "crop" or donated.shape[-2] == length:
        return donated[..., :length, :]
    over_time = donated.flatten(0, -3).transpose(-1, -2).float()  # [*, d_model, pos]
    stretched = torch.nn.functional.interpolate(over_time, size=length, mode="linear", align_corners=True)
    return stretched.transpose(-1, -2).to(donated.dtype).unflatten(0, donated.shape[:-2])


def _overwritten(h: torch.Tensor, positions: slice, states: torch.Tensor) -> torch.Tensor:
    h = h.clone()
    h[..., positions, :] = states.to(h)
    return h
