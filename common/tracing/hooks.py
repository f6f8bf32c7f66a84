"""Hooks that read or change the states entering and leaving a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from common.errors import UnknownBlock

# What a block is given for each position beside its states: [row, pos, any] by place or name. In Gemma 3n and Gemma 4 it is
# projected from the embedded audio, so that it must be patched with the states.
PerPositionInputs = dict[int | str, torch.Tensor]


@contextmanager
def hooks(*handles: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_hook(edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """Make a pre-hook that edits the states entering a block."""

    def hook(module: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs:
            return (edit(_checked(inputs[0])), *inputs[1:]), kwargs
        return inputs, {**kwargs, "hidden_states": edit(_checked(kwargs.get("hidden_states")))}

    return hook


def output_hook(edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """Make a hook that edits the states leaving a block."""

    def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (edit(_checked(output[0])), *output[1:])
        return edit(_checked(output))

    return hook


def extra_input_hook(edit: Callable[[PerPositionInputs, int], PerPositionInputs]) -> Callable[..., Any]:
    """Make a pre-hook that edits what a block is given for each position beside its states of so many rows."""

    def hook(module: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = dict(enumerate(inputs)) | kwargs
        states = _checked(given.pop(0 if inputs else "hidden_states", None))
        edited = edit({k: t for k, t in given.items() if _per_position(t, states)}, states.shape[-3])
        return tuple(edited.get(i, arg) for i, arg in enumerate(inputs)), {k: edited.get(k, v) for k, v in kwargs.items()}

    return hook


def _per_position(value: Any, states: torch.Tensor) -> bool:
    return (
        isinstance(value, torch.Tensor) and value.dim() == 3 and value.is_floating_point() and value.shape[1] == states.shape[-2]
    )


def _checked(h: Any) -> torch.Tensor:
    if not isinstance(h, torch.Tensor) or h.dim() not in (3, 4):
        raise UnknownBlock(
            f"a block passes {getattr(h, 'shape', type(h).__name__)} where its states [(stream,) row, pos, d_model] should be"
        )
    return h
