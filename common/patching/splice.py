"""Splice: a donor's whole audio span in a recipient's run, at every layer, by one pass over the recipient's tail."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from common.model.load import AudioLM
from common.patching.hooks import hooks, way_in, way_out
from common.patching.tracing import Trace


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
