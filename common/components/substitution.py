"""Patch heads, attentions or MLPs of a run, many of them in one pass.

At a block a row joins as a copy of the clip's own. Inside that block alone, at the tokens that are read, it is given the donor's
slice of the output projection's input (a head), all of it (attention), or the donor's output of the MLP. Earlier positions stay
the clip's own, so spans of unequal length do no harm.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from common.components.submodules import Parts, on_mlp, on_projection
from common.model.lm import AudioLM
from common.patching.tail_pass import Reading, read_rows
from common.tracing.hooks import hooks


@dataclass(frozen=True)
class Component:
    """A part of a `block`: "attention", "mlp", or "head", the number `head` of it."""

    block: int
    part: str
    head: int = 0


def components_of(parts: Sequence[Parts], part: str, head: int = 0) -> list[Component]:
    """Return the components of one kind that the blocks have: "attention", "mlp", or the heads of number `head`."""

    def has(of_block: Parts) -> bool:
        return of_block.mlp is not None if part == "mlp" else of_block.heads > (head if part == "head" else 0)

    return [Component(block, part, head) for block, of_block in enumerate(parts) if has(of_block)]


@dataclass(frozen=True)
class Activations:
    """What each block's parts do at the tail's positions: the projection's input `heads` and the output `mlp` [1, pos, any].

    None where the block has no such part.
    """

    heads: tuple[torch.Tensor | None, ...]
    mlp: tuple[torch.Tensor | None, ...]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (*self.heads, *self.mlp) if t is not None)

    def to(self, device: torch.device | str) -> "Activations":
        heads, mlp = (tuple(t if t is None else t.to(device) for t in side) for side in (self.heads, self.mlp))
        return Activations(heads, mlp)


def activations(
    lm: AudioLM, parts: Sequence[Parts], reading: Reading, tokens: Sequence[int] | None = None
) -> tuple[Activations, torch.Tensor]:
    """Return what the parts of all blocks do in a reading, and the logits [vocab] or [token] of its last token."""
    heads, mlp = dict[int, torch.Tensor](), dict[int, torch.Tensor]()

    def keep(kept: dict[int, torch.Tensor], block: int, x: torch.Tensor) -> torch.Tensor:
        kept[block] = x.clone()
        return x

    handles = []
    for block, of_block in enumerate(parts):
        handles += on_projection(of_block, partial(keep, heads, block)) + on_mlp(of_block, partial(keep, mlp, block))
    with hooks(*handles):
        logits = read_rows(lm, reading, {}, tokens)[0]
    blocks = range(len(parts))
    return Activations(tuple(map(heads.get, blocks)), tuple(map(mlp.get, blocks))), logits


def patch_components(
    lm: AudioLM,
    parts: Sequence[Parts],
    reading: Reading,
    donated: Activations,
    together: Sequence[Sequence[Component]],
    tokens: Sequence[int] | None = None,
    *,
    behind: int = 0,
) -> torch.Tensor:
    """Return the logits of the clip unpatched, then with the components of each set `together` taken from the donor.

    [1 + set, vocab], or of `tokens` [1 + set, token]. They are patched at all tokens of the reading but the last `behind`, which
    stand behind the prompt.
    """
    starting = sorted((i for i, components in enumerate(together) if components), key=lambda i: _first(together[i]))
    row_of = {i: row for row, i in enumerate(starting, start=1)}
    joins, changes = defaultdict[int, list[int]](list), defaultdict[int, list[tuple[int, Component]]](list)
    for i, row in row_of.items():
        joins[_first(together[i])].append(0)
        for component in together[i]:
            changes[component.block].append((row, component))
    handles = []
    for block, rows in changes.items():
        of_mlp = [(row, slice(None)) for row, c in rows if c.part == "mlp"]
        of_heads = [(row, _slice(c, parts[block], donated.heads[block])) for row, c in rows if c.part != "mlp"]
        handles += on_projection(parts[block], partial(_put, donated.heads[block], of_heads, behind)) if of_heads else []
        handles += on_mlp(parts[block], partial(_put, donated.mlp[block], of_mlp, behind)) if of_mlp else []
    with hooks(*handles):
        logits = read_rows(lm, reading, joins, tokens)
    return logits[[0, *(row_of.get(i, 0) for i in range(len(together)))]]


def _first(components: Sequence[Component]) -> int:
    return min(c.block for c in components)


def _slice(component: Component, parts: Parts, heads: torch.Tensor | None) -> slice:
    """Return which numbers of a projection's input a component is."""
    if component.part == "attention" or heads is None:
        return slice(None)
    size = heads.shape[-1] // parts.heads
    return slice(component.head * size, (component.head + 1) * size)


def _put(donated: torch.Tensor | None, places: Sequence[tuple[int, slice]], behind: int, x: torch.Tensor) -> torch.Tensor:
    """Return `x` [row, pos, any] with the donor's numbers at the `places`, a slice of a row each, but in the last `behind`."""
    if donated is None:
        return x
    x, count = x.clone(), x.shape[1] - behind
    for row, numbers in places:
        x[row, :count, numbers] = donated[0, -count:, numbers].to(x)
    return x
