"""Handle the key/value cache: cut, expand, copy."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from common.model.lm import AudioLM


def new_cache(lm: AudioLM) -> DynamicCache:
    """Return an empty cache for the model's blocks; those that see a window keep what is before it until it is cropped."""
    cache = DynamicCache(config=lm.model.config)
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
