"""The two shapes that are timed, on the device of the run. One model is held at a time: two would not fit 24 GB."""

import gc
from dataclasses import replace

import torch

from activation_patching.span.rows import MAX_ROWS
from common.model.device import choose_device, choose_dtype
from common.model.lm import AudioLM
from tests.bench.subject import LARGE, OMNI, SMALL, Shape, build_model

SHAPES = {"Qwen2-Audio-7B": LARGE, "Qwen2.5-Omni-3B": OMNI}
TOKENS = (11, 22, 33, 44, 55)  # stand for the first tokens of the labels

_held: dict[str, AudioLM] = {}


def model_of(name: str, *, small: bool) -> AudioLM:
    """Return the model of a name of SHAPES, in the dtype that the scripts take on this device; `small`: tiny, of its class."""
    if name not in _held:
        _held.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        device = choose_device("auto")
        _held[name] = build_model(shape_of(name, small=small), device=device, dtype=choose_dtype("auto", device))
    return _held[name]


def shape_of(name: str, *, small: bool) -> Shape:
    return replace(SMALL, omni=SHAPES[name].omni) if small else SHAPES[name]


def pairs_at_once(lm: AudioLM) -> int:
    """Return how many recipients share a pass in the scripts."""
    return max(1, MAX_ROWS // len(lm.layers))
