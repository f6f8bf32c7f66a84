"""Run only a clip's last tokens behind the stored keys and values of the rest, for knockout and components."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

from common.errors import UnknownBlock
from common.model.encoding import EncodedClip, on_device
from common.model.head import head_reads
from common.model.lm import AudioLM
from common.patching.splice import heads_share_keys
from common.tracing.hooks import hooks, input_hook, output_hook
from common.tracing.kv_cache import copied, for_growing_rows, for_rows, kept_tensors
from common.tracing.prefix_cache import PrefixCache, prefix_cache_of, read_on


@dataclass(frozen=True)
class Reading:
    """The `text` that stands from `start` on (EncodedClip.text_inputs), and in `cache` what each block keeps of all before it."""

    cache: PrefixCache
    text: dict[str, Any]
    start: int

    @property
    def positions(self) -> range:
        return range(self.start, self.start + self.text["input_ids"].shape[1])

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for layer in self.cache for t in kept_tensors(layer))

    def to(self, device: torch.device | str) -> "Reading":
        return Reading(tuple(copied(x, lambda t: t.to(device)) for x in self.cache), on_device(self.text, device), self.start)


def tail_of(lm: AudioLM, clip: EncodedClip, prefix_cache: PrefixCache | None = None) -> Reading:
    """Return a clip's tail, read behind its `prefix_cache`, which is made where it is not given."""
    return Reading(prefix_cache or prefix_cache_of(lm, clip), clip.text_inputs(clip.tail), clip.span.stop)


@torch.inference_mode()
def last_of(lm: AudioLM, reading: Reading) -> Reading:
    """Return the last token alone of a reading: the others are read once more, and kept."""
    cache = Cache(layers=[for_rows(layer, 1, lm.device) for layer in reading.cache])
    before, last = (
        {name: v[:, part] if isinstance(v, torch.Tensor) else v for name, v in reading.text.items()}
        for part in (slice(-1), slice(-1, None))
    )
    if len(reading.positions) > 1:
        lm.model(**read_on(lm, before, reading.start, cache))
    return Reading(tuple(copied(layer, torch.clone) for layer in cache.layers), last, reading.positions[-1])


@torch.inference_mode()
def read_rows(
    lm: AudioLM, reading: Reading, joins: Mapping[int, Sequence[int]], tokens: Sequence[int] | None = None
) -> torch.Tensor:
    """Return the last token's logits of every row: [row, vocab], or in float32 those of `tokens` [row, token].

    Row 0 is the clip's own. At block b one row more joins for each entry of `joins[b]`: a copy of the row that it names. All
    rows read the same keys and values of what is before. What makes rows differ is up to the caller's hooks.

    Raises UnknownBlock where the decoder carries several residual streams, or its blocks do not keep what they read one by one.
    """
    if len(reading.cache) < len(lm.blocks):
        raise UnknownBlock(f"only {len(reading.cache)} of its {len(lm.blocks)} blocks keep what they read")
    cache, joined = for_growing_rows(lm, reading.cache), Counter[int]()

    def join(block: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def edit(h: torch.Tensor) -> torch.Tensor:
            if h.dim() != 3:
                raise UnknownBlock(f"it carries {h.shape[0]} residual streams side by side")
            joined[block] += 1
            if new := list(joins.get(block, ())):
                h = torch.cat([h, h[new]])
            cache.layers[:block] = reading.cache[:block]  # what a block before has read and grown is not kept
            cache.layers[block] = for_rows(reading.cache[block], len(h), h.device)
            return h

        return edit

    handles = [b.register_forward_pre_hook(input_hook(join(i)), with_kwargs=True) for i, b in enumerate(lm.blocks)]
    handles.append(lm.blocks[-1].register_forward_hook(output_hook(lambda h: h[:, -1:])))
    with hooks(*handles), heads_share_keys(lm.device), head_reads(lm, tokens) as split:
        output = lm.model(**read_on(lm, reading.text, reading.start, cache))
    if joined != Counter(range(len(lm.blocks))):
        raise RuntimeError(f"read_rows: the blocks were entered {dict(joined)} times, not once each")
    return split(output.logits[:, -1])[1]


def hook_kwargs(module: Any, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Register a pre-hook that edits what a module is given by name."""
    return module.register_forward_pre_hook(lambda _, inputs, kwargs: (inputs, edit(kwargs)), with_kwargs=True)
