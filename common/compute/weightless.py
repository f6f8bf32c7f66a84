"""Build a model's shape without weights, to estimate cost before any download.

One block of each kind is really there, with numbers that mean nothing; all others hand on what they are given. The time of the
real model is that of the weightless one, with the time of each block taken as often as the model has such blocks.

Where every block must work, as when what blocks keep is read again, all are there (`whole`), and weights of one shape are one.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from common.errors import InputError, first_line
from common.model import ModelChoice
from common.model.device import bare_model, choose_device, choose_dtype
from common.model.lm import AudioLM, wrap_model
from common.model.load import model_parts
from common.tracing.hooks import hooks

_PATTERN = 1_000_003  # numbers that are repeated through the weights; a prime, so that rows of a matrix differ


@dataclass(frozen=True)
class WeightlessModel:
    """A weightless model, the bytes of all weights of the real one (`weights`), and of those that are `held` here.

    `loading`: bytes of the files that are mapped beside them while they are read in another dtype. `stand_in` has for each block
    the index of the one of its kind that is there.
    """

    lm: AudioLM
    weights: int
    held: int
    loading: int
    stand_in: tuple[int, ...]

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long `work` would take with all blocks: the least of up to three times, after one that does not count."""
        least, began = float("inf"), time.monotonic()
        for turn in range(4):
            with self._timed() as spent:
                start = _now(self.lm.device)
                work()
                whole = _now(self.lm.device) - start
            real = whole + sum(s * (self.stand_in.count(block) - 1) for block, s in spent.items())
            if turn or time.monotonic() - began > 3:
                least = min(least, real)
            if time.monotonic() - began > 2 and least < float("inf"):
                break
        return least

    @contextmanager
    def _timed(self) -> Iterator[dict[int, float]]:
        """Give the seconds that each block that is there has spent."""
        device, spent, begun = self.lm.device, dict.fromkeys(self.stand_in, 0.0), dict[int, float]()

        def begin(block: int) -> Callable[..., None]:
            return lambda *_: begun.update({block: _now(device)})

        def end(block: int) -> Callable[..., None]:
            return lambda *_: spent.update({block: spent[block] + _now(device) - begun[block]})

        blocks = {i: self.lm.blocks[i] for i in spent}
        handles = [b.register_forward_pre_hook(begin(i)) for i, b in blocks.items()]
        handles += [b.register_forward_hook(end(i)) for i, b in blocks.items()]
        with hooks(*handles):
            yield spent


def weightless_model(model: ModelChoice, *, free: Callable[[torch.device], int], whole: bool = False) -> WeightlessModel:
    """Return the weightless model of a folder or hub id, of which only config, processor and tokenizer are read.

    Raises InputError as load_model does, and where even that takes more than the bytes that are `free` on the device.
    """
    device = choose_device(model.device)
    dtype = choose_dtype(model.dtype, device)
    model_class, config, processor = model_parts(model.name, model.revision, model.trust_remote_code)
    of_files = getattr(config, "dtype", None) or dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = bare_model(model_class, config, dtype, attention=model.attention, trust_remote_code=model.trust_remote_code)
    lm = wrap_model(bare.eval(), processor, device=device)
    stand_in = tuple(range(len(lm.blocks))) if whole else _stand_ins(lm.blocks)
    weights = _bytes(bare)
    if whole:
        held = sum({p.shape: p.numel() * p.element_size() for p in bare.parameters()}.values())
    else:
        held = weights - sum(_bytes(block) for i, block in enumerate(lm.blocks) if i not in stand_in)
    if held > free(device):
        raise InputError(f"one block of each kind and what is around them take {held / 1e9:.1f} GB; {device} has less")
    for i, block in enumerate(lm.blocks):
        if i not in stand_in:
            block.forward = _hand_on
    skip = {id(part) for i, block in enumerate(lm.blocks) if i not in stand_in for part in block.modules()}
    _fill(bare, skip=skip, by_shape=whole, device=device)
    loading = 0 if of_files == dtype else weights // dtype.itemsize * of_files.itemsize
    return WeightlessModel(replace(lm, trim=model.trim, level=model.level), weights, held, loading, stand_in)


def _hand_on(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden_states


def _stand_ins(blocks: nn.ModuleList) -> tuple[int, ...]:
    """Return for each block one of its class and shape, from the middle: there a pass has its mean number of rows.

    Blocks that read the keys of another count as of the kind of one that has keys of its own and is else the same.
    """
    kinds: dict[Any, list[int]] = {}
    of_block = []
    for i, block in enumerate(blocks):
        borrows = any(getattr(part, "is_kv_shared_layer", False) for part in block.modules())
        shape = tuple((n, tuple(p.shape)) for n, p in block.named_parameters() if "mlp" in n or "expert" in n or not borrows)
        of_block.append((type(block), shape, borrows))
        kinds.setdefault(of_block[-1], []).append(i)
    own = {kind: members for kind, members in kinds.items() if not kind[2]}
    middle = {kind: min(m, key=lambda i: abs(i - sum(m) / len(m))) for kind, m in own.items()}
    last_own = max(middle.values())
    return tuple(middle.get(kind, last_own) for kind in of_block)


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


@torch.no_grad()
def _fill(model: nn.Module, *, skip: set[int], by_shape: bool, device: torch.device) -> None:
    """Put numbers on the device in the place of all parameters and buffers outside of `skip`; shared ones stay shared.

    With `by_shape` all parameters of one shape are shared.
    """
    pattern = torch.empty(_PATTERN, device=device).uniform_(-0.03, 0.03, generator=torch.Generator(device).manual_seed(0))
    made: dict[Any, torch.Tensor] = {}

    def real(tensor: Any) -> Any:
        key = tensor.shape if by_shape and isinstance(tensor, nn.Parameter) else id(tensor)
        if key not in made:
            new = torch.ones(tensor.shape, dtype=tensor.dtype, device=device)
            if isinstance(tensor, nn.Parameter):
                flat = new.view(-1)
                for start in range(0, len(flat), _PATTERN):
                    part = flat[start : start + _PATTERN]
                    part.copy_(pattern[: len(part)])
                new = nn.Parameter(new, requires_grad=False)
            made[key] = new
        return made[key]

    for module in model.modules():
        if id(module) not in skip:
            for table in (module._parameters, module._buffers):
                table.update({name: real(t) for name, t in table.items() if t is not None and t.is_meta})


def _now(device: torch.device) -> float:
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


def reason(error: BaseException) -> str:
    """Say in one line why the weightless model could not be run."""
    return f"{type(error).__name__}: {first_line(error)}"
