"""Components as rows of one pass, held against a loop of its own: one full forward for each, changed by plain hooks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.components.submodules import Parts, find_parts
from common.components.substitution import Component, activations, components_of, patch_components
from common.errors import UnknownBlock
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.patching.tail_pass import Reading, last_of, tail_of
from tests.tiny_models.newer_families import save_dots3_note, save_muse_spark
from tests.tiny_models.tiny import LAYERS, save_tiny_model
from tests.tiny_models.unlike import BUILDS, HYBRID, encode, load, rename

HEADS = 4
NAMES: dict[str, tuple[str, str]] = dict.fromkeys(BUILDS, ("self_attn.o_proj", "mlp"))  # as their code calls them
NAMES |= {"side by side": ("attention.dense", "mlp"), "hybrid": ("mixer.o_proj", "mixer")}


def every(parts: list[Parts]) -> list[Component]:
    heads = [c for head in range(HEADS) for c in components_of(parts, "head", head)]
    return [*heads, *components_of(parts, "attention"), *components_of(parts, "mlp")]


def own(lm: AudioLM, clip: EncodedClip) -> torch.Tensor:
    with torch.inference_mode():
        return lm.model(**clip.inputs, use_cache=False).logits[0, -1]


def named(lm: AudioLM, component: Component, build: str) -> Any:
    return lm.blocks[component.block].get_submodule(NAMES[build][component.part == "mlp"])


def hooked(module: nn.Module, part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if part != "mlp":
        return module.register_forward_pre_hook(lambda _, args: (change(args[0]),))
    return module.register_forward_hook(
        lambda _, args, out: (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)
    )


def by_hand(lm: AudioLM, clip: EncodedClip, donor: EncodedClip, component: Component, build: str, count: int) -> torch.Tensor:
    """Return the logits of one full forward with a component taken from one of the donor's at the last `count` positions."""
    module, caught = named(lm, component, build), []
    catch = hooked(module, component.part, lambda x: (caught.append(x.clone()), x)[1])
    own(lm, donor)
    catch.remove()

    def change(x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-1] // HEADS
        numbers = slice(component.head * size, (component.head + 1) * size) if component.part == "head" else slice(None)
        x = x.clone()
        x[:, -count:, numbers] = caught[0][:, -count:, numbers]
        return x

    handle = hooked(module, component.part, change)
    logits = own(lm, clip)
    handle.remove()
    return logits


def readings(lm: AudioLM, clip: EncodedClip) -> tuple[Reading, Reading]:
    tail = tail_of(lm, clip)
    return tail, last_of(lm, tail)


@pytest.mark.parametrize("build", BUILDS | HYBRID)
def test_rows_are_those_of_a_forward_for_each_component(build: str, manifest: Path, tmp_path: Path) -> None:
    """On a pair of clips of unequal length; at the last position, and attention and MLP over the whole tail."""
    lm = load((BUILDS | HYBRID)[build](tmp_path))
    limit = 1e-5 if build == "hybrid" else 1e-9  # its recurrences compute in float32
    clip, donor = (encode(lm, manifest, name) for name in ("happy_1_sad_a", "angry_0_happy_b"))
    assert clip.span_length != donor.span_length or build == "adapter, joint queries and keys"
    tail, last = readings(lm, clip)
    parts = find_parts(lm, clip, tail)
    donated, answer = activations(lm, parts, tail_of(lm, donor))
    torch.testing.assert_close(answer, own(lm, donor), atol=limit, rtol=0)
    components = every(parts)
    assert len(components) == (4 + 1 + 2 if build == "hybrid" else LAYERS * (HEADS + 2) + (6 if "cap" in build else 0))
    passes = [(last, components), (tail, components[-len(parts) :])]
    for reading, some in passes[build == "hybrid" :]:  # whose recurrences read a token alone by another way, less exactly
        base, *rows = patch_components(lm, parts, reading, donated, [[c] for c in some])
        count = len(reading.positions)
        expected = torch.stack([by_hand(lm, clip, donor, c, build, count) for c in some])
        torch.testing.assert_close(base, own(lm, clip), atol=limit, rtol=0)
        torch.testing.assert_close(torch.stack(rows), expected, atol=limit, rtol=0)
        moved = dict(zip(some, (expected - base).abs().amax(dim=1).tolist()))
        if build == "side by side":  # the first block's MLP reads the token alone
            assert moved.pop(Component(0, "mlp")) < 1e-9
        assert min(moved.values()) > 1e-7
    itself = activations(lm, parts, tail)[0]
    none, *rows = patch_components(lm, parts, tail, itself, [[c] for c in components] + [components])
    torch.testing.assert_close(torch.stack(rows), none.expand(len(rows), -1), atol=limit, rtol=0)


@pytest.mark.parametrize("build", ["grouped keys", "side by side"])
def test_all_heads_together_are_the_donors_answer(build: str, manifest: Path, tmp_path: Path) -> None:
    """The last token is the same in both clips, so MLPs that follow on the donor's attention do what they do in the donor."""
    lm = load(BUILDS[build](tmp_path))
    clip, donor = (encode(lm, manifest, name) for name in ("happy_1_sad_a", "angry_0_happy_b"))
    tail, last = readings(lm, clip)
    parts = find_parts(lm, clip, tail)
    donated, answer = activations(lm, parts, tail_of(lm, donor))
    heads = [c for head in range(HEADS) for c in components_of(parts, "head", head)]
    sets = [heads, components_of(parts, "attention"), [], heads[:1]]
    base, *rows = patch_components(lm, parts, last, donated, sets)
    for row in rows[:2]:
        torch.testing.assert_close(row, answer, atol=1e-9, rtol=0)
    torch.testing.assert_close(rows[2], base, atol=0, rtol=0)
    assert (rows[3] - answer).abs().max() > 1e-3
    rename(lm.blocks)
    again = find_parts(lm, clip, tail)
    assert again == parts
    torch.testing.assert_close(torch.stack(rows), patch_components(lm, again, last, donated, sets)[1:], atol=1e-12, rtol=0)


def test_the_one_head_that_carries_the_voice_is_told(manifest: Path, tmp_path: Path) -> None:
    """In block 2 alone something happens, and of its attention only head 1 reaches the states."""
    lm = load(save_tiny_model(tmp_path, only_block=2))
    with torch.no_grad():
        weight = lm.blocks[2].self_attn.o_proj.weight
        weight[:, torch.arange(weight.shape[1]) // 8 != 1] = 0
    clip, donor = (encode(lm, manifest, f"happy_1_{voice}_a") for voice in ("sad", "angry"))
    tail, last = readings(lm, clip)
    parts = find_parts(lm, clip, tail)
    donated, answer = activations(lm, parts, tail_of(lm, donor))
    heads = [Component(block, "head", head) for block in range(LAYERS) for head in range(HEADS)]
    base, *rows = patch_components(lm, parts, last, donated, [[c] for c in heads])
    for component, row in zip(heads, rows):
        expected = answer if component == Component(2, "head", 1) else base
        torch.testing.assert_close(row, expected, atol=1e-9, rtol=0)
    assert (answer - base).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (save_dots3_note, "block 1 keeps values by which it has 8 heads"),
        (save_muse_spark, "block 0 has further parts that add to its states"),
    ],
)
def test_what_cannot_be_told_is_refused_in_a_line(
    save: Callable[[Path], Path], message: str, manifest: Path, tmp_path: Path
) -> None:
    lm = load(save(tmp_path), dtype=torch.float32)
    clip = encode(lm, manifest, "happy_1_sad_a")
    with pytest.raises(UnknownBlock, match=message):
        find_parts(lm, clip, tail_of(lm, clip))


def test_a_fused_projection_is_refused(manifest: Path, tmp_path: Path) -> None:
    """One that takes the MLP's numbers beside those of the heads."""
    lm = load(save_tiny_model(tmp_path, text="gpt_neox"))
    clip = encode(lm, manifest, "happy_1_sad_a")

    class Fused(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block
            self.out = nn.Linear(64, 32, bias=False, dtype=torch.float64)

        def forward(self, h: torch.Tensor, **given: Any) -> torch.Tensor:
            attention = self.block.attention
            dense, attention.dense = attention.dense, nn.Identity()
            heads = attention(self.block.input_layernorm(h), **given)[0]
            attention.dense = dense
            return h + self.out(torch.cat([heads, self.block.mlp(h)], dim=-1))

    lm.blocks[1] = Fused(lm.blocks[1])
    with pytest.raises(UnknownBlock, match=r"block 1 gives its output projection more than heads"):
        find_parts(lm, clip, tail_of(lm, clip))
