"""Direct logit attribution: what each head and MLP adds to a label's logit.

Every norm and scale between a part and the logits is frozen at the run's value. So what all parts add sums to the logits, before
what scales or caps them. What goes through later parts is not in it: heads that write are told from heads that route.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache

from common.components.submodules import Parts, on_mlp, on_projection
from common.components.substitution import Activations
from common.errors import UnknownBlock
from common.model.head import head_of, unsplittable
from common.model.lm import AudioLM
from common.patching.tail_pass import Reading
from common.tracing.hooks import hooks, input_hook, output_hook
from common.tracing.kv_cache import for_rows
from common.tracing.prefix_cache import read_on

_ROUNDING = 1e-3  # of the largest number: what differs less is equal


@dataclass(frozen=True)
class Attribution:
    """What a clip's parts add to the logits of some tokens. Its frozen directions serve other clips' parts too.

    heads: of each block [token, heads x size]; mlp: [token, d_model]; their product with what a part does is what it adds. `own`:
    what the clip's parts do. `embedding`, `bias`: [token], what the embedding of the last token and all biases add. `logits`:
    [token], what the head gives.
    """

    heads: tuple[torch.Tensor | None, ...]
    mlp: tuple[torch.Tensor | None, ...]
    own: Activations
    embedding: torch.Tensor
    bias: torch.Tensor
    logits: torch.Tensor

    def of_heads(self, block: int, does: Activations, heads: int) -> torch.Tensor:
        """Return what each head of a block adds in a run in which the parts do this: [token, head]."""
        return _product(self.heads[block], does.heads[block]).unflatten(-1, (heads, -1)).sum(dim=-1)

    def of_mlp(self, block: int, does: Activations) -> torch.Tensor:
        return _product(self.mlp[block], does.mlp[block]).sum(dim=-1)  # [token]

    @property
    def off(self) -> float:
        """How far the sum of all that is added is from the logits."""
        total = self.embedding + self.bias
        for block in range(len(self.heads)):
            total = total + (0 if self.heads[block] is None else _product(self.heads[block], self.own.heads[block]).sum(dim=-1))
            total = total + (0 if self.mlp[block] is None else self.of_mlp(block, self.own))
        return float((total - self.logits).abs().max())


def _product(direction: torch.Tensor | None, does: torch.Tensor | None) -> torch.Tensor:
    if direction is None or does is None:
        raise ValueError("this block has no such part")
    return direction * does[0, -1].to(direction)


@dataclass(frozen=True)
class _Seen:
    """Of a block at the last position: what enters and leaves it, what its projection returns and what its parts do."""

    entering: torch.Tensor
    leaving: torch.Tensor
    mixed: torch.Tensor
    heads: torch.Tensor | None
    mlp: torch.Tensor | None


@torch.no_grad()
def attribute(lm: AudioLM, parts: Sequence[Parts], reading: Reading, tokens: Sequence[int]) -> Attribution:
    """Return what the parts of a clip add to the logits of `tokens` at its last token, in float64.

    Raises UnknownBlock where a block is not a sum of scaled parts, as where a norm stands behind attention or MLP, or where the
    head's rows cannot be read.
    """
    if reason := unsplittable(lm):
        raise UnknownBlock(reason)
    seen, out = _observe(lm, parts, reading)
    direction, bias = _way_out(lm, out, seen[-1].leaving, tokens)
    heads, mlp = list[torch.Tensor | None](), list[torch.Tensor | None]()
    for number in reversed(range(len(parts))):
        block = seen[number]
        scales = _scales(block, number)
        of_heads = None if block.heads is None else _back(parts[number].projection, block.heads, scales[1] * direction)
        if of_heads is not None and block.heads is not None:
            bias = bias + scales[1] * direction @ block.mixed - of_heads @ block.heads.double()
        heads.append(of_heads)
        mlp.append(None if block.mlp is None else scales[2] * direction)
        direction = scales[0] * direction
    own = Activations(*(tuple(_as_activation(getattr(b, side)) for b in seen) for side in ("heads", "mlp")))
    embedding = direction @ seen[0].entering
    return Attribution(tuple(heads[::-1]), tuple(mlp[::-1]), own, embedding, bias, out["logits"][0, list(tokens)].double())


def _as_activation(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x[None, None]


def _observe(lm: AudioLM, parts: Sequence[Parts], reading: Reading) -> tuple[list[_Seen], dict[str, torch.Tensor]]:
    """Read the tokens once; return what each block saw, and the head's input `states` and `logits` at probes of the way out.

    Probes [probe, d_model] stand in the place of what leaves the last block: the state itself, its negative, the state moved,
    alternating signs and their negative.
    """
    kept: dict[tuple[str, int], torch.Tensor] = {}
    out: dict[str, torch.Tensor] = {}

    def keep(name: str, block: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def look(x: torch.Tensor) -> torch.Tensor:
            kept[name, block] = x[0, -1].clone()
            return x

        return look

    def probes(h: torch.Tensor) -> torch.Tensor:
        last = h[:, -1:]
        signs = _signs(last)
        return torch.cat([last, -last, last + last.abs().max(), signs, -signs], dim=1)

    def of_head(_: Any, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor) -> None:
        out.update(states=inputs[0][0].double(), logits=logits[0])

    handles = []
    for i, block in enumerate(lm.blocks):
        handles.append(block.register_forward_pre_hook(input_hook(keep("entering", i)), with_kwargs=True))
        handles += on_projection(parts[i], keep("heads", i)) + on_mlp(parts[i], keep("mlp", i))
        if (projection := parts[i].projection) is not None:
            handles.append(projection.register_forward_hook(output_hook(keep("mixed", i))))
        handles.append(block.register_forward_hook(output_hook(keep("leaving", i))))
    handles += [lm.blocks[-1].register_forward_hook(output_hook(probes)), head_of(lm).register_forward_hook(of_head)]
    cache = Cache(layers=[for_rows(layer, 1, lm.device) for layer in reading.cache])
    with hooks(*handles):
        lm.model(**read_on(lm, reading.text, reading.start, cache))
    nothing = torch.zeros_like(kept["entering", 0]).double()
    seen = []
    for i in range(len(parts)):
        ends = (kept["entering", i].double(), kept["leaving", i].double(), kept.get(("mixed", i), nothing).double())
        seen.append(_Seen(*ends, kept.get(("heads", i)), kept.get(("mlp", i))))
    return seen, out


def _signs(like: torch.Tensor) -> torch.Tensor:
    signs = torch.ones_like(like)
    signs[..., ::2] = -1
    return signs


def _scales(block: _Seen, number: int) -> torch.Tensor:
    """Return by how much what enters a block, its attention and its MLP are scaled where they are added, [3]."""
    mlp = torch.zeros_like(block.entering) if block.mlp is None else block.mlp.double()
    columns = torch.stack([block.entering, block.mixed, mlp], dim=1)
    size = columns.norm(dim=0).clamp(min=1e-30)
    found = (
        torch.linalg.lstsq((columns / size).cpu(), block.leaving[:, None].cpu(), driver="gelsd").solution[:, 0].to(size) / size
    )
    if not (columns @ found - block.leaving).abs().max() <= _ROUNDING * block.leaving.abs().max():
        raise UnknownBlock(f"what leaves block {number} is no sum of its parts (a norm behind them, or a gate)")
    return found


def _back(projection: nn.Module | None, x: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return the directions [token, width] in what a projection reads, from those in what it returns [token, d_model]."""
    assert projection is not None
    with torch.enable_grad():
        read = x.detach().clone()[None, None].requires_grad_()
        given = projection(read)
        given = given[0] if isinstance(given, tuple) else given
        grads = [torch.autograd.grad(given, read, d[None, None].to(given), retain_graph=True)[0][0, 0] for d in direction]
    return torch.stack(grads).double()


def _way_out(
    lm: AudioLM, out: dict[str, torch.Tensor], last: torch.Tensor, tokens: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the directions [token, d_model] of the logits in h_L, the last norm's scale frozen, and what biases add [token].

    The norm divides by the size of a state, once its mean is taken away or not, and multiplies by a weight: what it does to signs
    is the weight, up to a number.
    """
    state, negative, shifted, signs, minus = out["states"]
    normed, beta = (state - negative) / 2, (state + negative) / 2
    centred = bool((shifted - state).abs().max() <= 1e-2 * normed.abs().max())
    probe = _signs(last)
    probe, taken = (x - x.mean() if centred else x for x in (probe, last))
    weight = (signs - minus) / 2 / probe
    scale = weight * ((weight * taken) @ normed) / (weight * taken).square().sum()
    if not (scale * taken - normed).abs().max() <= _ROUNDING * normed.abs().max():
        raise UnknownBlock("what stands between its last block and its head is no norm of a known kind")
    head = head_of(lm)
    rows = head.weight.detach()[list(tokens)].double()
    direction = rows * scale
    direction = direction - direction.mean(dim=-1, keepdim=True) if centred else direction
    bias = rows @ beta
    return direction, bias if head.bias is None else bias + head.bias.detach()[list(tokens)].double()
