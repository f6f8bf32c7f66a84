"""Tiny models of unlike builds, in float64, and clips of them: what knockout and components must hold on."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from common.model.encoding import EncodedClip, encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS, fill_prompt
from tests.tiny_models.families import save_phi4, save_qwen3_omni
from tests.tiny_models.newer_families import save_gemma4_unified, save_nemotron_h_omni
from tests.tiny_models.tiny import save_tiny_model

BUILDS: dict[str, Callable[[Path], Path]] = {
    "grouped keys": save_tiny_model,
    "windows": lambda folder: save_tiny_model(folder, window=20),  # shorter than the tail
    "experts": save_qwen3_omni,
    "side by side": lambda folder: save_tiny_model(folder, text="gpt_neox"),
    "norms behind, soft cap": save_gemma4_unified,
    "adapter, joint queries and keys": save_phi4,
}
HYBRID = {"hybrid": save_nemotron_h_omni}


def load(folder: Path, *, attention: str | None = None, dtype: torch.dtype = torch.float64) -> AudioLM:
    lm = load_model(str(folder), device=torch.device("cpu"), dtype=dtype, attention=attention)
    for module in lm.model.modules():
        if config := getattr(module, "config", None):
            config._experts_implementation = "eager"  # the fast one knows no float64
    return lm


def encode(lm: AudioLM, manifest: Path, name: str, *, silent: bool = False) -> EncodedClip:
    return encode_clip(lm, manifest.parent / f"{name}.wav", fill_prompt(PROMPTS["speaker"]), silent=silent)


def rename(model: nn.Module) -> None:
    """Give all submodules of a model names that mean nothing; code that asks for the old ones still gets them."""
    for module in [m for m in model.modules() if m._modules and not isinstance(m, nn.ModuleList | nn.ModuleDict | nn.Sequential)]:
        new = {name: f"part{i}" for i, name in enumerate(module._modules)}
        module._modules = {new[name]: part for name, part in module._modules.items()}

        def find(self: nn.Module, name: str, new: dict[str, str] = new) -> object:
            return nn.Module.__getattr__(self, new.get(name, name))

        module.__class__ = type("Renamed", (type(module),), {"__getattr__": find})
