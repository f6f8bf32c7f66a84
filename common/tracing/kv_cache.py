"""Handle the key/value cache: cut, expand, copy."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from common.model.lm import AudioLM


def empty_cache(lm: AudioLM) -> DynamicCache:
    """Return an empty cache for the model's blocks, and for those of a branch that its config does not count."""
    cache = DynamicCache(config=lm.model.config)
    cache.layer_class_to_replicate = DynamicLayer
    return cache


def new_cache(lm: AudioLM) -> DynamicCache:
    """Return the same, where those that see a window keep what is before it until it is cropped."""
    cache = empty_cache(lm)
    cache.activate_past_recording()
    return cache


def kept_tensors(layer: Any) -> list[torch.Tensor]:
    """Return the states that a block's layer of a cache holds; none for a block that keeps nothing or reads another's."""
    values = (v for value in vars(layer).values() for v in (value.values() if isinstance(value, dict) else (value,)))
    return [v for v in values if isinstance(v, torch.Tensor) and v.dim() > 0]  # a single number is a setting, not a state


def copied(layer: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a copy of a block's layer of a cache, with all its tensors changed."""

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: of(v) for key, v in value.items()}
        return change(value) if isinstance(value, torch.Tensor) else value

    other = copy.copy(layer)
    vars(other).update({name: of(value) for name, value in vars(layer).items()})
    if tensors := kept_tensors(other):
        other.device = tensors[0].device
    return other


def for_rows(layer: Any, rows: int, device: torch.device) -> Any:
    """Return a copy on `device` of a block's layer of a cache of one row, that serves `rows` rows."""
    layer = copied(layer, lambda t: t.to(device))
    if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer):  # they never write into their tensors: one row serves all
        layer.keys, layer.values = (t.expand(rows, -1, -1, -1) for t in (layer.keys, layer.values))
    else:
        layer.reorder_cache(torch.zeros(rows, dtype=torch.long, device=device))
    return layer


def for_growing_rows(lm: AudioLM, cache: Sequence[Any]) -> Cache:
    """Return a cache of one row's layers. Those of the model's blocks are put in by hooks, with as many rows as there are then;
    those beyond, of a branch beside the answer (the speech of Kimi-Audio), take as many rows as come to them."""

    def takes_any(kept: Any) -> Any:
        layer = copied(kept, lambda t: t)
        layer.update = lambda keys, *more, **named: for_rows(kept, len(keys), keys.device).update(keys, *more, **named)
        return layer

    blocks, beyond = list(cache[: len(lm.blocks)]), cache[len(lm.blocks) :]
    return Cache(layers=[*blocks, *map(takes_any, beyond)])
