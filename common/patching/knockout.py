"""Attention knockout: hide some positions from others in some blocks.

Geva et al. 2023 (arXiv 2304.14767) cut edges in windows of blocks, one forward a window. Here every window is a row of one pass
over the clip's own tail: it joins at its first block as a copy of the clip's own row, its mask differs from there on, and where
it ends before a longer window with the same beginning, it is a copy of that one's row from there. No donor, no alignment.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from common.errors import UnknownBlock
from common.model.encoding import EncodedClip
from common.model.head import head_reads
from common.model.lm import AudioLM
from common.patching.tail_pass import Reading, hook_kwargs, read_rows
from common.tracing.hooks import hooks
from common.tracing.kv_cache import kept_tensors

ATTENTION = ("sdpa", "eager")  # implementations that are given a mask that can be changed


@dataclass(frozen=True)
class Cut:
    """In the blocks [start, stop) the tokens at the positions `queries` cannot see those at `keys`; none: nothing is cut."""

    keys: range
    queries: range
    start: int
    stop: int


def refusal(lm: AudioLM, reading: Reading) -> str:
    """Say why attention cannot be cut in a model; "" where it can."""
    name = lm.model.config.get_text_config()._attn_implementation
    if name not in ATTENTION:
        return f"its attention is {name!r}, which takes no mask; --attention sdpa does"
    for number in range(len(lm.blocks)):
        layer = reading.cache[number] if number < len(reading.cache) else None
        if not kept_tensors(layer or object):
            return f"block {number} keeps no keys and values of its own"
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            return f"block {number} keeps more than keys and values ({type(layer).__name__}): there is no mask to cut"
    return ""


def knockout(lm: AudioLM, reading: Reading, cuts: Sequence[Cut], tokens: Sequence[int] | None = None) -> torch.Tensor:
    """Return the logits of the clip uncut, then with each cut: [1 + cut, vocab], or of `tokens` [1 + cut, token].

    The queries must lie within the tokens that are read. Raises UnknownBlock where a block is given no mask by name.
    """
    strange = [c for c in cuts if not {*c.queries} <= {*reading.positions} or not 0 <= c.start <= len(lm.blocks) >= c.stop]
    if strange:
        raise ValueError(f"{strange[0]}: not within the positions {reading.positions} or the {len(lm.blocks)} blocks")
    joins, row_of, rows_cut = _plan(cuts, len(lm.blocks))
    handles, rows = [], 1
    for number, block in enumerate(lm.blocks):
        rows += len(joins[number])
        there = {row: cut for row, cut in rows_cut.items() if cut.start <= number < cut.stop}
        if there:
            width = reading.cache[number].get_mask_sizes(len(reading.positions))[0]
            handles.append(cut_mask(lm, block, there, reading.positions, rows=rows, width=width))
    with hooks(*handles):
        logits = read_rows(lm, reading, joins, tokens)
    return logits[[0, *row_of]]


def _plan(cuts: Sequence[Cut], blocks: int) -> tuple[dict[int, list[int]], list[int], dict[int, Cut]]:
    """Return which rows join as copies of which, by block; the row of each cut; and the rows whose mask is changed, by what.

    Of the cuts with the same beginning the longest is cut; the others leave its row where they end.
    """
    longest: dict[tuple[range, range, int], Cut] = {}
    for cut in (c for c in cuts if c.start < c.stop):
        key = cut.keys, cut.queries, cut.start
        longest[key] = max(longest.get(key, cut), cut, key=lambda c: c.stop)
    joins, rows = defaultdict[int, list[int]](list), dict[Cut, int]()

    def add(cut: Cut, block: int, copy_of: int) -> None:
        joins[block].append(copy_of)
        rows[cut] = len(rows) + 1

    for block in range(blocks):
        for cut in longest.values():
            if cut.start == block:
                add(cut, block, 0)
        for cut in dict.fromkeys(cuts):
            if cut.start < cut.stop == block and cut not in rows:
                add(cut, block, rows[longest[cut.keys, cut.queries, cut.start]])
    return joins, [rows.get(cut, 0) for cut in cuts], {rows[cut]: cut for cut in longest.values()}


def cut_mask(lm: AudioLM, block: Any, cuts: dict[int, Cut], positions: range, *, rows: int, width: int) -> RemovableHandle:
    """Let a block that reads `positions` over the last `width` keys be given a mask with the `cuts` of some of its rows."""
    first_key = positions.stop - width
    eager = lm.model.config.get_text_config()._attn_implementation == "eager"

    def edit(kwargs: dict[str, Any]) -> dict[str, Any]:
        if "attention_mask" not in kwargs:
            raise UnknownBlock("its blocks are given no attention_mask by name")
        mask = kwargs["attention_mask"]
        if mask is None:
            mask = _causal(positions, width, lm, eager=eager)
        elif not isinstance(mask, torch.Tensor) or mask.dim() != 4 or mask.shape[-1] != width:
            raise UnknownBlock(f"its blocks are given a {type(mask).__name__} as attention_mask, which cannot be cut")
        mask = mask.expand(rows, *mask.shape[1:]).clone()
        hidden = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        for row, cut in cuts.items():
            queries = slice(cut.queries.start - positions.start, cut.queries.stop - positions.start)
            mask[row, :, queries, max(0, cut.keys.start - first_key) : max(0, cut.keys.stop - first_key)] = hidden
        return {**kwargs, "attention_mask": mask}

    return hook_kwargs(block, edit)


def _causal(positions: range, width: int, lm: AudioLM, *, eager: bool) -> torch.Tensor:
    """Return the mask [1, 1, query, key] that a block means by none: every key up to the query itself."""
    keys = torch.arange(positions.stop - width, positions.stop, device=lm.device)
    seen = (keys <= torch.arange(positions.start, positions.stop, device=lm.device)[:, None])[None, None]
    if not eager:
        return seen
    return torch.zeros(seen.shape, dtype=lm.dtype, device=lm.device).masked_fill(~seen, torch.finfo(lm.dtype).min)


@torch.inference_mode()
def knockout_rerun(lm: AudioLM, clip: EncodedClip, cut: Cut, tokens: Sequence[int] | None = None) -> torch.Tensor:
    """Return the last token's logits [vocab] of a full run with one cut, of `tokens` [token]: slow, for the self-check."""
    positions = range(clip.ids.shape[1])
    blocks = list(lm.blocks)[cut.start : cut.stop]
    handles = [cut_mask(lm, block, {0: cut}, positions, rows=1, width=len(positions)) for block in blocks]
    with hooks(*handles), head_reads(lm, tokens) as split:
        return split(lm.model(**clip.inputs, use_cache=False).logits[0, -1])[1]
