"""Record a clip's run, read the answer at every layer, and put one clip's audio states into another clip's run.

h_l is the residual stream entering block l, h_L what leaves the last block before the final norm (as `hidden_states` in
transformers, but for its last entry, which transformers has normed already). Everything here works by hooks on the blocks.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache, DynamicLayer

from common.models import AudioLM, EncodedClip


class UnknownBlock(TypeError):
    """A decoder block passes on something else than its states: editing it would do nothing, or the wrong thing."""


@dataclass(frozen=True)
class Trace:
    """What one run of one clip leaves behind: enough to be recipient or donor of any splice.

    tail: [layer, tail, d_model], the states of the tail's tokens at h_0..h_L.
    keys, values: for each block [1, head, pos, head_dim] of prefix and audio only.
    tail_ids: [1, tail].
    """

    tail: torch.Tensor
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    tail_ids: torch.Tensor

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.tail, *self.keys, *self.values))

    def to(self, device: torch.device | str) -> "Trace":
        keys, values = (tuple(t.to(device) for t in ts) for ts in (self.keys, self.values))
        return Trace(self.tail.to(device), keys, values, self.tail_ids.to(device))


@torch.inference_mode()
def record(lm: AudioLM, clip: EncodedClip) -> tuple[Trace, torch.Tensor]:
    """Run a clip once; return its trace and the lens logits [layer, vocab] of the last position at h_0..h_L.

    The lens (nostalgebraist 2020, "interpreting GPT: the logit lens") uses the model's own way out: what leaves the last block
    is replaced by the last position of every h_l, stacked on the sequence axis, and norm, head, scaling and soft cap do the
    rest. Row L is the model's own answer.
    """
    with _collect(lm, clip.tail) as states, _hooks(lm.blocks[-1].register_forward_hook(_way_out(lambda _: _last_of(states)))):
        output = lm.model(**clip.inputs, use_cache=True)
    layers = output.past_key_values.layers
    keys = tuple(layer.keys[..., : clip.span.stop, :].clone() for layer in layers)
    values = tuple(layer.values[..., : clip.span.stop, :].clone() for layer in layers)
    return Trace(torch.cat(states), keys, values, clip.ids[:, clip.tail]), output.logits[0]


def _last_of(states: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([h[:, -1] for h in states], dim=1)  # [1, layer, d_model]


@torch.inference_mode()
def splice(lm: AudioLM, donor: Trace, recipients: Sequence[Trace]) -> torch.Tensor:
    """Return logits [recipient, layer, vocab]: each recipient's answer with its audio span at h_l taken from the donor's run.

    Attention is causal and the prefix is shared, so once the span of h_l is the donor's, its states at every later layer are
    the donor's too; what is left to compute is the recipient's tail, from block l on, over the donor's keys and values. At
    block l one more row per recipient joins the batch, so one pass over the tail serves all layers and recipients. From layer
    l on the tail takes the donor's positions; spans may differ in length. Row 0 is the donor's own run, row L the recipient's.
    """
    tails = torch.stack([r.tail for r in recipients], dim=1)  # [layer, recipient, tail, d_model]
    span_stop, tail_length = donor.keys[0].shape[-2], tails.shape[2]
    entering = tails[0] if (tails[0] != tails[0, :1]).any() else tails[0, :1]  # of equal tails, the row 0 of all is one row
    joined = []

    def join(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def edit(h: torch.Tensor) -> torch.Tensor:
            joined.append(layer)
            return entering.to(h) if layer == 0 else torch.cat([h, tails[layer].to(h)])

        return edit

    handles = [b.register_forward_pre_hook(_way_in(join(i)), with_kwargs=True) for i, b in enumerate(lm.blocks)]
    handles.append(lm.blocks[-1].register_forward_hook(_way_out(lambda h: torch.cat([h, tails[-1].to(h)])[:, -1:])))
    if (mlp := getattr(lm.blocks[-1], "mlp", None)) is not None:
        handles.append(mlp.register_forward_pre_hook(_last_position))
    with _hooks(*handles), _heads_share_keys(lm.device):
        logits = lm.model(
            input_ids=donor.tail_ids,
            attention_mask=torch.ones(1, span_stop + tail_length, dtype=torch.long, device=lm.device),
            position_ids=torch.arange(span_stop, span_stop + tail_length, device=lm.device)[None],
            past_key_values=Cache(layers=[_SharedLayer(k, v) for k, v in zip(donor.keys, donor.values)]),
            use_cache=True,
        ).logits[:, -1]  # [row, vocab]
    if joined != list(range(len(lm.blocks))):
        raise RuntimeError(f"splice: the rows joined at blocks {joined}, not once at each of {len(lm.blocks)}")
    first, others = logits.split([len(entering), len(lm.blocks) * len(recipients)])
    others = others.unflatten(0, (len(lm.blocks), len(recipients)))
    return torch.cat([first.expand_as(others[0])[None], others]).transpose(0, 1)


def _last_position(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Hand the last block's MLP the readout position alone: nothing reads the others, and the residual sum broadcasts."""
    if not args or not isinstance(args[0], torch.Tensor) or args[0].dim() != 3:
        return None  # another kind of MLP: it computes every position
    return args[0][:, -1:], *args[1:]


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
        keys = torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2)
        return keys, torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2)


@contextmanager
def _heads_share_keys(device: torch.device) -> Iterator[None]:
    """Keep transformers from copying every row's keys and values once per query head, on a CPU.

    It does so wherever there is a mask, as CUDA kernels need; the CPU kernel takes grouped heads as they are, with the same
    result bit for bit. The variable is transformers' own switch (integrations/sdpa_attention.py), read at each call.
    """
    name = "TRANSFORMERS_SDPA_FORCE_GQA"
    before = os.environ.get(name)
    if device.type == "cpu":
        os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


# The oracle: slow and obvious. Tests and the self-check hold the fast way against it.


@torch.inference_mode()
def states_at(lm: AudioLM, clip: EncodedClip, positions: slice) -> torch.Tensor:
    """Return [layer, pos, d_model]: the states at `positions` of h_0..h_L in a clip's own run."""
    with _collect(lm, positions) as states:
        lm.model(**clip.inputs, use_cache=False)
    return torch.cat(states)


@torch.inference_mode()
def rerun(lm: AudioLM, clip: EncodedClip, layer: int, positions: slice, states: torch.Tensor) -> torch.Tensor:
    """Return the last position's logits [vocab] of a full run with h_layer at `positions` set to `states` [pos, d_model]."""
    reached = []

    def overwrite(h: torch.Tensor) -> torch.Tensor:
        reached.append(layer)
        h = h.clone()
        h[:, positions] = states.to(h)
        return h

    if layer < len(lm.blocks):
        handle = lm.blocks[layer].register_forward_pre_hook(_way_in(overwrite), with_kwargs=True)
    else:
        handle = lm.blocks[-1].register_forward_hook(_way_out(overwrite))
    with _hooks(handle):
        logits = lm.model(**clip.inputs, use_cache=False).logits[0, -1]
    if len(reached) != 1:
        raise RuntimeError(f"rerun: the hook at layer {layer} was reached {len(reached)} times, not once")
    return logits


@torch.inference_mode()
def run(lm: AudioLM, clip: EncodedClip) -> torch.Tensor:
    """Return the last position's logits [vocab] of a clip's own run, with no hook anywhere."""
    return lm.model(**clip.inputs, use_cache=False).logits[0, -1]


# Hooks: a block takes its states as first argument or as `hidden_states` and returns them alone or first in a tuple.


@contextmanager
def _hooks(*handles: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _collect(lm: AudioLM, positions: slice) -> Iterator[list[torch.Tensor]]:
    """Fill the list with [1, pos, d_model] at h_0..h_L during one run; raise unless there are exactly L + 1."""
    states: list[torch.Tensor] = []

    def keep(h: torch.Tensor) -> torch.Tensor:
        states.append(h[:, positions].clone())  # a view would keep the whole sequence alive
        return h

    handles = [b.register_forward_pre_hook(_way_in(keep), with_kwargs=True) for b in lm.blocks]
    with _hooks(*handles, lm.blocks[-1].register_forward_hook(_way_out(keep))):
        yield states
    if len(states) != len(lm.blocks) + 1:
        raise RuntimeError(f"collected {len(states)} states from {len(lm.blocks)} blocks; the hooks were not reached once each")


def _way_in(edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """Make a pre-hook that edits the states entering a block."""

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (edit(_checked(args[0])), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(_checked(kwargs.get("hidden_states")))}

    return hook


def _way_out(edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """Make a hook that edits the states leaving a block."""

    def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (edit(_checked(output[0])), *output[1:])
        return edit(_checked(output))

    return hook


def _checked(h: Any) -> torch.Tensor:
    if not isinstance(h, torch.Tensor) or h.dim() != 3:
        raise UnknownBlock(
            f"a block passes {getattr(h, 'shape', type(h).__name__)} where its states [row, pos, d_model] should be"
        )
    return h
