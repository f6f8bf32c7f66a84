"""Engine `splice`: patch all layers in one pass over the recipient's tail tokens."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import Cache

from common.model.head import head_reads, parts_read
from common.model.lm import AudioLM
from common.tracing.hooks import hooks, input_hook, output_hook
from common.tracing.kv_cache import for_growing_rows, for_rows
from common.tracing.prefix_cache import read_on
from common.tracing.trace import Trace


@torch.inference_mode()
def splice(
    lm: AudioLM, donor: Trace, recipients: Sequence[Trace], tokens: Sequence[int] | None = None, *, whole: bool = False
) -> torch.Tensor:
    """Return logits [recipient, layer, vocab]: each recipient's answer with its audio span at h_l taken from the donor's run.

    The layers are those that all have been recorded at. With `tokens` only their logits, in float32 and in their order:
    [recipient, layer, token]; where the `whole` vocabulary is asked for too, these stand behind its logits in the last axis.

    Attention is causal and the prefix is shared, so once the span of h_l is the donor's, its states at every later layer are
    the donor's too; what is left to compute is the recipient's tail, from block l on, over the donor's keys and values. At
    block l one more row per recipient joins the batch, so one pass over the tail serves all layers and recipients. From layer
    l on the tail takes the donor's positions; spans may differ in length. Row 0 is the donor's own run, row L the recipient's.
    """
    tails = torch.cat([r.tail for r in recipients], dim=-3)  # [layer, (stream,) recipient, tail, d_model]
    first = tails[0].narrow(-3, 0, 1)
    entering = tails[0] if (tails[0] != first).any() else first  # of equal tails, the row 0 of all recipients is one row
    joined = []
    *inner, last = donor.layers
    cache = for_growing_rows(lm, donor.cache)

    def join(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def edit(h: torch.Tensor) -> torch.Tensor:
            if layer in inner:
                joined.append(layer)
                h = torch.cat([h, tails[inner.index(layer)].to(h)], dim=-3) if layer else entering.to(h)
            cache.layers[:layer] = donor.cache[:layer]  # what a block before has read and grown is not kept
            cache.layers[layer] = for_rows(donor.cache[layer], h.shape[-3], h.device)
            return h

        return edit

    def last_position(h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h, tails[-1].to(h)], dim=-3)[..., -1:, :]

    handles = [b.register_forward_pre_hook(input_hook(join(i)), with_kwargs=True) for i, b in enumerate(lm.blocks)]
    handles.append(lm.blocks[-1].register_forward_hook(output_hook(last_position)))
    if (mlp := getattr(lm.blocks[-1], "mlp", None)) is not None:
        handles.append(mlp.register_forward_pre_hook(_readout_position_alone))
    with hooks(*handles), heads_share_keys(lm.device), head_reads(lm, tokens, whole=whole) as split:
        output = lm.model(**read_on(lm, donor.tail_inputs, donor.span_stop, cache))
    logits = parts_read(split(output.logits[:, -1]), whole=whole)  # [row, vocab], [row, token] or both
    if joined != inner or (inner[0], last) != (0, len(lm.blocks)):
        raise RuntimeError(f"splice: the rows joined at blocks {joined}, not once at each of {inner}")
    others = logits[entering.shape[-3] :].unflatten(0, (len(inner), len(recipients)))  # [layer after 0, recipient, vocab]
    row_0 = logits[: entering.shape[-3]].expand(len(recipients), -1)
    return torch.cat([row_0[None], others]).transpose(0, 1)


@torch.inference_mode()
def read_out(lm: AudioLM, trace: Trace, states: torch.Tensor, tokens: Sequence[int], *, whole: bool = False) -> torch.Tensor:
    """Return logits [row, token] of `states` [row, d_model] in the place of h_L at the last position: no block reads them.

    With `whole` they stand behind those of the vocabulary, as in `splice`.
    """
    cache = Cache(layers=[for_rows(layer, 1, lm.device) for layer in trace.cache])
    leaving = output_hook(lambda h: states[None].to(h))
    with hooks(lm.blocks[-1].register_forward_hook(leaving)), head_reads(lm, tokens, whole=whole) as split:
        parts = split(lm.model(**read_on(lm, trace.tail_inputs, trace.span_stop, cache)).logits[0])
    return parts_read(parts, whole=whole)


def _readout_position_alone(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Hand the last block's MLP the readout position alone: nothing reads the others, and the residual sum broadcasts."""
    if not inputs or not isinstance(inputs[0], torch.Tensor) or inputs[0].dim() != 3:
        return None  # another kind of MLP: it computes every position
    return inputs[0][:, -1:], *inputs[1:]


@contextmanager
def heads_share_keys(device: torch.device) -> Iterator[None]:
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
