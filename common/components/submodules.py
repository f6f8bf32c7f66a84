"""Find the attention output projection and the MLP of each block.

A block is run again with other states at all positions but the last. The projection is the first matrix whose input at the last
position changes by that, as nothing but attention brings earlier positions there. The MLP is the one other part of the block that
returns states. With both held fixed the block must pass on what enters it, or there are further parts and it is refused.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from common.errors import UnknownBlock
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.patching.tail_pass import Reading
from common.tracing.hooks import hooks, input_hook, output_hook

Change = Callable[[torch.Tensor], torch.Tensor]
Given = tuple[tuple[Any, ...], dict[str, Any]]  # what a block is called with
_ROUNDING = 1e-3  # of the largest number: what differs less is equal


@dataclass(frozen=True)
class Parts:
    """What of a block can be patched: the `projection` whose input is `heads` slices of equal size, and the `mlp`.

    Either is none where the block has no such part, as in decoders whose blocks are of several kinds.
    """

    projection: nn.Module | None
    heads: int
    mlp: nn.Module | None


@torch.inference_mode()
def find_parts(lm: AudioLM, clip: EncodedClip, reading: Reading) -> list[Parts]:
    """Return the parts of each block, found on a clip and its reading.

    Raises UnknownBlock where a block's projection takes more than heads, or further parts add to its states.
    """
    given: list[Given] = []
    keep = (
        b.register_forward_pre_hook(lambda _, passed, kwargs: given.append((passed, kwargs)), with_kwargs=True) for b in lm.blocks
    )
    with hooks(*keep):
        lm.model(**clip.inputs, use_cache=False)
    found = []
    for number, block in enumerate(lm.blocks):
        try:
            parts = _parts_of(block, given[number], _head_size(reading, number))
            if parts.heads not in (0, lm.model.config.get_text_config().num_attention_heads):  # compressed keys are no heads'
                raise UnknownBlock(f"keeps values by which it has {parts.heads} heads, where the config has another number")
            found.append(parts)
        except UnknownBlock as error:
            raise UnknownBlock(f"block {number} {error}") from None
    return found


def _head_size(reading: Reading, block: int) -> int | None:
    """Return how many numbers the values of a block's heads have each; none where it keeps no plain keys and values."""
    layer = reading.cache[block] if block < len(reading.cache) else None
    if not isinstance(layer, DynamicLayer) or type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
        return None
    return int(layer.values.shape[-1]) if layer.is_initialized and layer.values is not None else None


def _parts_of(block: nn.Module, given: Given, head_size: int | None) -> Parts:
    """Return the parts of one block; those of attention alone, whose values have `head_size` numbers a head."""
    states = given[0][0] if given[0] else given[1]["hidden_states"]
    if states.dim() != 3:
        raise UnknownBlock("carries several residual streams side by side")
    noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0)).to(states) * states.std()
    own, _ = _run(block, given, lambda h: h)
    other, _ = _run(block, given, lambda h: torch.cat([noise[:, :-1], h[:, -1:]], dim=1))
    mixing = [name for name in own if not _equal(own[name], other[name])]
    mixer = mixing[0].partition(".")[0] if mixing else None
    beside = [name for name in own if "." not in name and name != mixer]
    if len(beside) > 1:
        raise UnknownBlock(f"has several parts beside its attention ({', '.join(beside)}): its MLP cannot be told")
    modules = dict(block.named_modules())
    mlp = modules[beside[0]] if beside else None
    if mixing and head_size is None:  # a recurrence: what it adds is no attention's
        return Parts(None, 0, mlp)
    heads = _heads(own[mixing[0]], other[mixing[0]], head_size or 1) if mixing else 0
    parts = Parts(modules[mixing[0]] if mixing else None, heads, mlp)
    _check_nothing_else(block, given, parts)
    return parts


def _run(block: nn.Module, given: Given, change: Change) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Run a block with its states changed; return the last position's input of each of its matrices that returns states, in the
    order in which they are called, and what leaves the block there."""
    seen: dict[str, torch.Tensor] = {}
    fits: set[str] = set()
    left: list[torch.Tensor] = []

    def keep(name: str, module: nn.Module) -> Iterator[RemovableHandle]:
        def before(_: Any, passed: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = passed[0] if passed else kwargs.get("hidden_states")
            if isinstance(x, torch.Tensor) and x.dim() == 3:
                seen[name] = x[:, -1].clone()

        def after(_: Any, passed: tuple[Any, ...], output: Any) -> None:
            h = output[0] if isinstance(output, tuple) else output
            if isinstance(h, torch.Tensor) and h.dim() == 3 and h.shape[-1] == left_width:
                fits.add(name)

        yield module.register_forward_pre_hook(before, with_kwargs=True)
        yield module.register_forward_hook(after)

    left_width = (given[0][0] if given[0] else given[1]["hidden_states"]).shape[-1]
    matrices = [(n, m) for n, m in block.named_modules() if n and any(p.dim() > 1 for p in (*m.parameters(), *m.buffers()))]
    ends = (
        block.register_forward_pre_hook(input_hook(change), with_kwargs=True),
        block.register_forward_hook(output_hook(lambda h: left.append(h[:, -1].clone()) or h)),  # type: ignore[func-returns-value]
    )
    with hooks(*ends, *(handle for n, m in matrices for handle in keep(n, m))):
        block(*given[0], **given[1])
    return {name: x for name, x in seen.items() if name in fits}, left[0]


def _equal(x: torch.Tensor, y: torch.Tensor) -> bool:
    return bool((x - y).abs().max() <= _ROUNDING * torch.maximum(x.abs().max(), y.abs().max()))


def _heads(own: torch.Tensor, other: torch.Tensor, head_size: int) -> int:
    """Return how many heads a projection's input has: slices that all change with earlier positions."""
    heads, rest = divmod(own.shape[-1], head_size)
    changed = (own != other).reshape(-1, head_size).any(dim=-1) if not rest else torch.tensor([False])
    if not changed.all():
        raise UnknownBlock("gives its output projection more than heads (a fused projection)")
    return heads


def _check_nothing_else(block: nn.Module, given: Given, parts: Parts) -> None:
    """Raise UnknownBlock unless the block, with its parts held fixed at the last position, passes on what enters it there."""
    held: dict[str, torch.Tensor] = {}

    def hold(h: torch.Tensor, name: str) -> torch.Tensor:
        fixed = held.setdefault(name, h[:, -1:].clone())
        return torch.cat([h[:, :-1], fixed], dim=1)

    handles = [*on_projection(parts, lambda x: hold(x, "heads")), *on_mlp(parts, lambda h: hold(h, "mlp"))]
    with hooks(*handles):
        before = _run(block, given, lambda h: h)[1]
        change = torch.linspace(-1, 1, before.shape[-1]).to(before) * before.abs().max()
        after = _run(block, given, lambda h: torch.cat([h[:, :-1], h[:, -1:] + change], dim=1))[1]
    passed = after - before
    scale = float((passed * change).sum() / change.square().sum())
    if not (passed - scale * change).abs().max() <= _ROUNDING * change.abs().max():
        raise UnknownBlock("has further parts that add to its states, beside attention and one MLP")


def on_projection(parts: Parts, edit: Change) -> list[RemovableHandle]:
    """Let `edit` change what the projection reads [row, pos, heads x size]; no hook where there is none."""
    if parts.projection is None:
        return []
    return [parts.projection.register_forward_pre_hook(input_hook(edit), with_kwargs=True)]


def on_mlp(parts: Parts, edit: Change) -> list[RemovableHandle]:
    """Let `edit` change what the MLP returns [row, pos, d_model]; no hook where there is none."""
    return [] if parts.mlp is None else [parts.mlp.register_forward_hook(output_hook(edit))]
