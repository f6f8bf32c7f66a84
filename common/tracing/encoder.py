"""Record what the audio encoder makes of a clip: e_k is what enters its block k, e_N what leaves the last of its N blocks."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.tracing.hooks import hooks


@torch.inference_mode()
def encoder_blocks(lm: AudioLM, clip: EncodedClip) -> Sequence[nn.Module]:
    """Return the blocks of the audio encoder; none where there is no such list.

    Of the lists of modules outside the decoder it is the largest of which a run of the `clip` reaches every module once, in their
    order, with states of one width. A tower for pictures is not reached at all.
    """
    decoder = set(lm.blocks.modules())
    lists = [m for m in lm.model.modules() if isinstance(m, nn.ModuleList) and len(m) and decoder.isdisjoint(m.modules())]
    calls: list[tuple[nn.Module, int]] = []

    def look(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        states = _states_in(args, kwargs)
        calls.append((module, 0 if states is None else states.shape[-1]))

    handles = [block.register_forward_pre_hook(look, with_kwargs=True) for blocks in lists for block in blocks]
    with hooks(*handles):
        lm.model(**clip.inputs, use_cache=False)

    def reached(blocks: nn.ModuleList) -> bool:
        own = [(module, width) for module, width in calls if any(module is block for block in blocks)]
        return [m for m, _ in own] == list(blocks) and len({width for _, width in own} - {0}) == 1

    found = [blocks for blocks in lists if reached(blocks)]
    largest = max(found, key=lambda blocks: sum(p.numel() for p in blocks.parameters()), default=nn.ModuleList())
    return list(largest)


@contextmanager
def encoder_means(blocks: Sequence[nn.Module], heard: float) -> Iterator[list[torch.Tensor]]:
    """Fill the list with the means [width] in float32 of e_0..e_N in one run, over the first `heard` (a share) of the frames."""
    means: list[torch.Tensor] = []

    def keep(states: torch.Tensor) -> None:
        frames = states.flatten(0, -2)
        means.append(frames[: max(1, math.ceil(heard * len(frames)))].float().mean(dim=0))

    def entering(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if (states := _states_in(args, kwargs)) is not None:
            keep(states)

    def leaving(module: nn.Module, args: Any, output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    last = [blocks[-1].register_forward_hook(leaving)] if blocks else []
    with hooks(*(block.register_forward_pre_hook(entering, with_kwargs=True) for block in blocks), *last):
        yield means
    if blocks and len(means) != len(blocks) + 1:
        raise RuntimeError(f"collected {len(means)} states from {len(blocks)} blocks of the encoder; each must be reached once")


def share_heard(lm: AudioLM, clip: EncodedClip, samples: int) -> float:
    """Return which share of the encoder's frames is of the clip itself: Whisper's extractor pads every clip to 30 s."""
    bins, hop = (getattr(lm.extractor, name, None) for name in ("feature_size", "hop_length"))
    features = max((t.numel() for t in clip.inputs.values() if t.is_floating_point()), default=0)
    return min(1.0, math.ceil(samples / hop) * bins / features) if bins and hop and features else 1.0


def _states_in(args: Any, kwargs: dict[str, Any]) -> torch.Tensor | None:
    states = args[0] if args else kwargs.get("hidden_states")
    return states if isinstance(states, torch.Tensor) and states.is_floating_point() and states.dim() > 1 else None
