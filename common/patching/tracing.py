"""Record a clip's run and read the answer at every layer.

h_l is the residual stream entering block l, h_L what leaves the last block before the final norm (as `hidden_states` in
transformers, but for its last entry, which transformers has normed already). Everything here works by hooks on the blocks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from common.errors import UnknownBlock
from common.model.encoding import EncodedClip
from common.model.load import AudioLM
from common.patching.hooks import hooks, way_in, way_out


@dataclass(frozen=True)
class Trace:
    """What one run of one clip leaves behind: enough to be recipient or donor of any splice.

    tail: [layer, (stream,) 1, tail, d_model], the states of the tail's tokens at h_0..h_L; `stream` only where the decoder
    carries several residual streams side by side. keys, values: for each block that has its own [1, head, pos, head_dim] of
    prefix and audio only. tail_ids: [1, tail].
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
    is replaced by the last position of every h_l, stacked on the sequence axis, and norm, head, scaling, soft cap and merge
    of streams do the rest. Row L is the model's own answer.
    """

    def last_positions(h: torch.Tensor) -> torch.Tensor:
        return torch.stack([state[..., -1, :] for state in states], dim=-2).to(h.device)

    with _collect(lm, clip.tail) as states, hooks(lm.blocks[-1].register_forward_hook(way_out(last_positions))):
        output = lm.model(**clip.inputs, use_cache=True)
    layers = [c for c in getattr(output.past_key_values, "layers", ()) if getattr(c, "keys", None) is not None]
    if not layers:
        raise UnknownBlock(f"its cache is a {type(output.past_key_values).__name__} without keys and values of the blocks")
    keys = tuple(layer.keys[..., : clip.span.stop, :].clone() for layer in layers)
    values = tuple(layer.values[..., : clip.span.stop, :].clone() for layer in layers)
    return Trace(torch.stack(states), keys, values, clip.ids[:, clip.tail]), output.logits[0]


@torch.inference_mode()
def states_at(lm: AudioLM, clip: EncodedClip, positions: slice) -> torch.Tensor:
    """Return [layer, (stream,) 1, pos, d_model]: the states at `positions` of h_0..h_L in a clip's own run."""
    with _collect(lm, positions) as states:
        lm.model(**clip.inputs, use_cache=False)
    return torch.stack(states)


@torch.inference_mode()
def own_logits(lm: AudioLM, clip: EncodedClip) -> torch.Tensor:
    """Return the last position's logits [vocab] of a clip's own run, with no hook anywhere."""
    return lm.model(**clip.inputs, use_cache=False).logits[0, -1]


@contextmanager
def _collect(lm: AudioLM, positions: slice) -> Iterator[list[torch.Tensor]]:
    """Fill the list with [(stream,) 1, pos, d_model] at h_0..h_L during one run; raise unless there are exactly L + 1."""
    states: list[torch.Tensor] = []

    def keep(h: torch.Tensor) -> torch.Tensor:
        states.append(h[..., positions, :].to(lm.device, copy=True))  # a view would keep the whole sequence alive
        return h

    handles = [b.register_forward_pre_hook(way_in(keep), with_kwargs=True) for b in lm.blocks]
    with hooks(*handles, lm.blocks[-1].register_forward_hook(way_out(keep))):
        yield states
    if len(states) != len(lm.blocks) + 1:
        raise RuntimeError(f"collected {len(states)} states from {len(lm.blocks)} blocks; the hooks were not reached once each")
