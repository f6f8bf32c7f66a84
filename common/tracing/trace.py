"""Record a clip's run: lens logits, tail states and key/value cache.

h_l is the residual stream entering block l, h_L what leaves the last block before the final norm (as `hidden_states` in
transformers, but for its last entry, which transformers has normed already). Everything here works by hooks on the blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from common.errors import UnknownBlock
from common.model.encoding import EncodedClip, on_device
from common.model.head import head_reads
from common.model.lm import AudioLM
from common.tracing.hooks import PerPositionInputs, extra_input_hook, hooks, input_hook, output_hook
from common.tracing.kv_cache import copied, kept_tensors, new_cache
from common.tracing.prefix_cache import PrefixCache, continue_from, prefix_cache_of


@dataclass(frozen=True)
class Trace:
    """What one run of one clip leaves behind: enough to be recipient or donor of any splice.

    tail: [layer, (stream,) 1, tail, d_model], the states of the tail's tokens at the recorded `layers`, the first h_0 and the
    last h_L; `stream` only where the decoder carries several residual streams side by side. cache: for each block what it keeps
    of prefix and audio, in transformers' own form: keys and values [1, head, pos, head_dim], the states of a recurrence, or
    nothing. tail_inputs: the model's inputs for the tail's text, with [1, tail] token ids.
    span_stop: the position where the tail begins.
    """

    tail: torch.Tensor
    cache: tuple[Any, ...]
    tail_inputs: dict[str, Any]
    span_stop: int
    layers: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.tail.nbytes + sum(t.nbytes for layer in self.cache for t in kept_tensors(layer))

    @property
    def reach(self) -> int:
        """The number of blocks up to the last that keeps anything: nothing put into the span after it reaches the tail."""
        return max((i + 1 for i, layer in enumerate(self.cache[: self.layers[-1]]) if kept_tensors(layer)), default=0)

    def recipient(self) -> "Trace":
        """Return what a recipient needs of it: all but the cache, which is most of it."""
        return replace(self, cache=())

    def to(self, device: torch.device | str) -> "Trace":
        cache = tuple(copied(layer, lambda t: t.to(device)) for layer in self.cache)
        return replace(self, tail=self.tail.to(device), cache=cache, tail_inputs=on_device(self.tail_inputs, device))


@torch.inference_mode()
def record(
    lm: AudioLM,
    clip: EncodedClip,
    tokens: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    prefix_cache: PrefixCache | None = None,
) -> tuple[Trace, torch.Tensor]:
    """Run a clip once; return its trace and its lens logits (see `lens`): [layer, vocab], or of `tokens` alone [layer, token].

    Of `layers` alone, the first 0 and the last L, where they are given. With its `prefix_cache` only its tail is run.

    Raises UnknownBlock where no block keeps anything of what it has read.
    """
    at = lm.layers if layers is None else tuple(layers)
    if prefix_cache is None:
        cache = new_cache(lm)
        inputs = {**clip.inputs, "past_key_values": cache, "use_cache": True}
        tail, logits = _run(lm, inputs, tokens, at, keep=_at(clip.tail))
        if cache.is_croppable:
            kept: list[Any] = [layer for layer in cache.layers if kept_tensors(layer)]
            for layer in kept:
                layer.crop(clip.span.stop - clip.ids.shape[1])
            prefix_cache = tuple(
                copied(layer, torch.clone) for layer in cache.layers
            )  # a cropped tensor is a view of the whole one
        else:  # a recurrence cannot go back
            prefix_cache = prefix_cache_of(lm, clip)
    else:
        tail, logits = _run(lm, continue_from(lm, clip, prefix_cache), tokens, at, keep=_at(slice(None)))
    if not any(map(kept_tensors, prefix_cache)):
        raise UnknownBlock("its blocks leave neither keys and values nor other states in transformers' DynamicCache")
    return Trace(tail, prefix_cache, clip.text_inputs(clip.tail), clip.span.stop, at), logits[1]


@torch.inference_mode()
def lens(
    lm: AudioLM,
    clip: EncodedClip,
    tokens: Sequence[int],
    maps: Sequence[Callable[[torch.Tensor], torch.Tensor]] = (),
    layers: Sequence[int] | None = None,
    prefix_cache: PrefixCache | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lens logits of a clip: [layer, vocab], and in float32 those of `tokens` [layer, token].

    Of `layers` alone, the last of them L, where they are given. With its `prefix_cache` only its tail is run.

    The lens (nostalgebraist 2020, "interpreting GPT: the logit lens") uses the model's own way out: what leaves the last block
    is replaced by the last position of every h_l, stacked on the sequence axis, and norm, head, scaling, soft cap and merge
    of streams do the rest. Row L is the model's own answer. `maps`, one for each of the layers but the last, change the
    states before.
    """
    at = lm.layers if layers is None else layers
    inputs = {**clip.inputs, "use_cache": False} if prefix_cache is None else continue_from(lm, clip, prefix_cache)
    return _run(lm, inputs, tokens, at, keep=_at(slice(-1, None)), whole=True, maps=maps)[1]


@torch.inference_mode()
def lens_and_states(
    lm: AudioLM,
    clip: EncodedClip,
    tokens: Sequence[int],
    maps: Sequence[Callable[[torch.Tensor], torch.Tensor]] = (),
    layers: Sequence[int] | None = None,
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return what `lens` does, and of the same run [2, layer, d_model] in float32: of every h_l the mean of the audio span, and
    the last position. Of several residual streams it is their mean; `maps` change what the lens reads alone.
    """

    def keep(h: torch.Tensor) -> torch.Tensor:  # the last position stays last, where the lens reads
        wide = h[..., clip.span, :].to(torch.promote_types(h.dtype, torch.float32))
        return torch.cat([wide.mean(dim=-2, keepdim=True), h[..., -1:, :].to(wide)], dim=-2)

    at = lm.layers if layers is None else layers
    states, logits = _run(lm, {**clip.inputs, "use_cache": False}, tokens, at, keep=keep, whole=True, maps=maps)
    return logits, states.flatten(1, -3).mean(dim=1).transpose(0, 1).float()


def _run(
    lm: AudioLM,
    inputs: dict[str, Any],
    tokens: Sequence[int] | None,
    layers: Sequence[int],
    *,
    keep: Callable[[torch.Tensor], torch.Tensor],
    whole: bool = False,
    maps: Sequence[Callable[[torch.Tensor], torch.Tensor]] = (),
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run the model on `inputs`; return what `keep` takes of its states at `layers`, [layer, (stream,) 1, kept, d_model], and the
    parts of its lens logits.

    The lens reads the last that is kept, which must be the last position.
    """

    def last_positions(h: torch.Tensor) -> torch.Tensor:
        last = [states[layer][..., -1, :] for layer in layers]
        last[: len(maps)] = [translate(state) for translate, state in zip(maps, last)]
        return torch.stack(last, dim=-2).to(h)

    with (
        _collect(lm, keep) as states,
        hooks(lm.blocks[-1].register_forward_hook(output_hook(last_positions))),
        head_reads(lm, tokens, whole=whole) as split,
    ):
        logits = split(lm.model(**inputs).logits[0])
    return torch.stack([states[layer] for layer in layers]), logits


@torch.inference_mode()
def states_at(lm: AudioLM, clip: EncodedClip, positions: slice) -> torch.Tensor:
    """Return [layer, (stream,) 1, pos, d_model]: the states at `positions` of h_0..h_L in a clip's own run."""
    return given_at(lm, clip, positions)[0]


@torch.inference_mode()
def given_at(lm: AudioLM, clip: EncodedClip, positions: slice) -> tuple[torch.Tensor, tuple[PerPositionInputs, ...]]:
    """Return the same, and what each block is given there beside its states in that run; mostly nothing."""
    given: list[PerPositionInputs] = []

    def keep(beside: PerPositionInputs, rows: int) -> PerPositionInputs:
        given.append({key: t[:, positions].to(lm.device, copy=True) for key, t in beside.items()})
        return beside

    handles = [b.register_forward_pre_hook(extra_input_hook(keep), with_kwargs=True) for b in lm.blocks]
    with _collect(lm, _at(positions)) as states, hooks(*handles):
        lm.model(**clip.inputs, use_cache=False)
    return torch.stack(states), tuple(given)


@torch.inference_mode()
def own_logits(lm: AudioLM, clip: EncodedClip) -> torch.Tensor:
    """Return the last position's logits [vocab] of a clip's own run, with no hook anywhere."""
    return lm.model(**clip.inputs, use_cache=False).logits[0, -1]


def _at(positions: slice) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda h: h[..., positions, :]


@contextmanager
def _collect(lm: AudioLM, keep: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Fill the list with what `keep` takes of h_0..h_L [(stream,) 1, pos, d_model] in one run; raise unless it is L + 1 times."""
    states: list[torch.Tensor] = []

    def look(h: torch.Tensor) -> torch.Tensor:
        states.append(keep(h).to(lm.device, copy=True))  # a view would keep the whole sequence alive
        return h

    handles = [b.register_forward_pre_hook(input_hook(look), with_kwargs=True) for b in lm.blocks]
    with hooks(*handles, lm.blocks[-1].register_forward_hook(output_hook(look))):
        yield states
    if len(states) != len(lm.blocks) + 1:
        raise RuntimeError(f"collected {len(states)} states from {len(lm.blocks)} blocks; the hooks were not reached once each")
