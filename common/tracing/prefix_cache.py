"""Prefix cache: keys and values of a clip up to the end of its audio."""

from typing import Any

import torch
from transformers.cache_utils import Cache

from common.model.encoding import EncodedClip, per_token
from common.model.lm import AudioLM
from common.tracing.hooks import hooks, output_hook
from common.tracing.kv_cache import copied, empty_cache, for_rows, kept_tensors

PrefixCache = tuple[Any, ...]  # for each block its layer of a cache of one row, in transformers' own form


@torch.inference_mode()
def prefix_cache_of(lm: AudioLM, clip: EncodedClip) -> PrefixCache:
    """Run a clip up to the end of its span and return its prefix cache, in which nothing of the question behind the audio is."""
    cache = empty_cache(lm)
    ahead = {k: v[:, : clip.span.stop] if per_token(v, clip.ids) else v for k, v in clip.inputs.items()}
    last_position = output_hook(lambda h: h[..., -1:, :])  # logits that nobody reads
    with hooks(lm.blocks[-1].register_forward_hook(last_position)):
        lm.model(**ahead, past_key_values=cache, use_cache=True)
    return tuple(copied(layer, torch.clone) for layer in cache.layers)  # some are views of more


def read_on(lm: AudioLM, text: dict[str, Any], start: int, cache: Cache) -> dict[str, Any]:
    """Return the model's inputs to read a text (EncodedClip.text_inputs), from `start` on, behind what `cache` holds."""
    stop = start + text["input_ids"].shape[1]
    return {
        **text,
        "attention_mask": torch.ones(1, stop, dtype=torch.long, device=lm.device),
        "position_ids": torch.arange(start, stop, device=lm.device)[None],
        "past_key_values": cache,
        "use_cache": True,
    }


def continue_from(lm: AudioLM, clip: EncodedClip, prefix_cache: PrefixCache) -> dict[str, Any]:
    """Return the model's inputs to read a clip's tail over its prefix cache, which stays as it is."""
    cache = Cache(layers=[for_rows(layer, 1, lm.device) for layer in prefix_cache])
    return read_on(lm, clip.text_inputs(clip.tail), clip.span.stop, cache)


def stored(prefix_cache: PrefixCache) -> tuple[PrefixCache, int]:
    """Return a prefix cache in main memory, and its size in bytes."""
    return tuple(copied(layer, lambda t: t.to("cpu")) for layer in prefix_cache), sum(
        t.nbytes for f in prefix_cache for t in kept_tensors(f)
    )
