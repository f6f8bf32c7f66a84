"""Components and windows without attention as rows of one pass, held against loops of their own: full forwards, plain hooks.

And direct attribution: what the parts add sums to the logits.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.components.attribution import attribute
from common.components.submodules import Parts, find_parts
from common.components.substitution import Component, activations, components_of, patch_components
from common.errors import UnknownBlock
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.patching.knockout import Cut, knockout, knockout_rerun, refusal
from common.patching.tail_pass import Reading, last_of, read_rows, tail_of
from common.tracing.hooks import hooks
from common.tracing.trace import own_logits
from tests.tiny_models.families import save_gemma3n, without_vision_tower
from tests.tiny_models.newer_families import save_dots3_note, save_granite_speech_plus, save_muse_spark
from tests.tiny_models.tiny import LAYERS, save_tiny_model
from tests.tiny_models.unlike import BUILDS, HYBRID, encode, load, rename

HEADS = 4
NAMES: dict[str, tuple[str, str]] = dict.fromkeys(BUILDS, ("self_attn.o_proj", "mlp"))  # as their code calls them
NAMES |= {"side by side": ("attention.dense", "mlp"), "hybrid": ("mixer.o_proj", "mixer")}


def every(parts: list[Parts]) -> list[Component]:
    heads = [c for head in range(HEADS) for c in components_of(parts, "head", head)]
    return [*heads, *components_of(parts, "attention"), *components_of(parts, "mlp")]


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
    with hooks(hooked(module, component.part, lambda x: (caught.append(x.clone()), x)[1])):
        own_logits(lm, donor)

    def change(x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-1] // HEADS
        numbers = slice(component.head * size, (component.head + 1) * size) if component.part == "head" else slice(None)
        x = x.clone()
        x[:, -count:, numbers] = caught[0][:, -count:, numbers]
        return x

    with hooks(hooked(module, component.part, change)):
        return own_logits(lm, clip)


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
    torch.testing.assert_close(answer, own_logits(lm, donor), atol=limit, rtol=0)
    components = every(parts)
    assert len(components) == (4 + 1 + 2 if build == "hybrid" else LAYERS * (HEADS + 2) + (6 if "cap" in build else 0))
    passes = [(last, components), (tail, components[-len(parts) :])]
    for reading, some in passes[build == "hybrid" :]:  # whose recurrences read a token alone by another way, less exactly
        base, *rows = patch_components(lm, parts, reading, donated, [[c] for c in some])
        count = len(reading.positions)
        expected = torch.stack([by_hand(lm, clip, donor, c, build, count) for c in some])
        torch.testing.assert_close(base, own_logits(lm, clip), atol=limit, rtol=0)
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


WINDOWS = [(0, 0), (0, LAYERS), (1, 2), (2, LAYERS), (0, 2), (1, 3), (LAYERS, LAYERS)]


def edges(clip: EncodedClip) -> dict[str, tuple[range, range]]:
    """Return keys and queries of edges as the test understands them."""
    end = clip.ids.shape[1] - 1
    audio, question, last = range(clip.span.start, clip.span.stop), range(clip.span.stop, end), range(end, end + 1)
    return {
        "audio to question": (audio, question),
        "audio to all": (audio, range(clip.span.stop, end + 1)),
        "audio to last": (audio, last),
        "question to last": (question, last),
    }


def both(lm: AudioLM, clip: EncodedClip, windows: list[tuple[int, int]]) -> tuple[torch.Tensor, list[Cut]]:
    """Return the logits [edge x window, vocab] of all cuts, those of the last token alone in a pass of their own."""
    tail = tail_of(lm, clip)
    found, cuts = [], []
    for name, (keys, queries) in edges(clip).items():
        of_edge = [Cut(keys, queries, *window) for window in windows]
        reading = last_of(lm, tail) if name.endswith("last") else tail
        base, *logits = knockout(lm, reading, of_edge)
        torch.testing.assert_close(base, own_logits(lm, clip), atol=1e-9, rtol=0)
        found += logits
        cuts += of_edge
    return torch.stack(found), cuts


def cut_by_hand(lm: AudioLM, clip: EncodedClip, cut: Cut) -> torch.Tensor:
    """Return the logits of one full forward, the masks of the whole prompt changed in the blocks of the window."""

    def lower(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        size = clip.ids.shape[1]
        mask = (
            torch.ones(1, 1, size, size, dtype=torch.bool).tril()
            if kwargs["attention_mask"] is None
            else kwargs["attention_mask"]
        )
        mask = mask.clone()
        mask[..., cut.queries.start : cut.queries.stop, cut.keys.start : cut.keys.stop] = False
        return args, {**kwargs, "attention_mask": mask}

    with hooks(*(lm.blocks[i].register_forward_pre_hook(lower, with_kwargs=True) for i in range(cut.start, cut.stop))):
        return own_logits(lm, clip)


@pytest.mark.parametrize("build", BUILDS)
def test_rows_are_those_of_a_forward_for_each_window(build: str, manifest: Path, tmp_path: Path) -> None:
    lm = load(BUILDS[build](tmp_path))
    clip = encode(lm, manifest, "happy_1_sad_a")
    found, cuts = both(lm, clip, WINDOWS)
    expected = torch.stack([cut_by_hand(lm, clip, cut) for cut in cuts])
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    moved = (found - own_logits(lm, clip)).abs().amax(dim=1).reshape(-1, len(WINDOWS))
    assert moved[:, [0, -1]].max() < 1e-9 and moved[:, 1:3].min() > 1e-6  # a window of no block; all blocks, and one
    torch.testing.assert_close(knockout_rerun(lm, clip, cuts[5]), expected[5], atol=1e-9, rtol=0)
    if build == "grouped keys":
        rename(lm.blocks)
        torch.testing.assert_close(both(lm, clip, WINDOWS)[0], found, atol=1e-12, rtol=0)
        eager = load(tmp_path, attention="eager")  # additive masks; its softmax is in float32
        torch.testing.assert_close(knockout(eager, tail_of(eager, clip), cuts[:14])[1:], found[:14], atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", [0, 2])
def test_a_step_exactly_where_a_block_reads_the_audio(block: int, manifest: Path, tmp_path: Path) -> None:
    """Of the only block that does anything the last token reads the audio; what others read there nobody reads."""
    lm = load(save_tiny_model(tmp_path, only_block=block))
    clip = encode(lm, manifest, "happy_1_sad_a")
    layers = range(LAYERS + 1)
    windows = [(i, LAYERS) for i in layers] + [(0, i) for i in layers] + [(i, i + 1) for i in range(LAYERS)]
    moved = ((both(lm, clip, windows)[0] - own_logits(lm, clip)).abs().amax(dim=1) > 1e-6).reshape(4, -1)
    from_on, up_to, alone = [i <= block for i in layers], [i > block for i in layers], [i == block for i in range(LAYERS)]
    for name, rows in zip(edges(clip), moved.tolist()):
        read = name != "audio to question"
        assert rows == ([*from_on, *up_to, *alone] if read else [False] * len(windows)), name


def test_hidden_everywhere_the_audio_says_nothing(manifest: Path, tmp_path: Path) -> None:
    lm = load(save_tiny_model(tmp_path))
    clip, silent = (encode(lm, manifest, "happy_1_sad_a", silent=silent) for silent in (False, True))
    assert (own_logits(lm, clip) - own_logits(lm, silent)).abs().max() > 1e-3
    answers = [knockout(lm, tail_of(lm, c), [Cut(*edges(c)["audio to all"], 0, LAYERS)])[1] for c in (clip, silent)]
    torch.testing.assert_close(*answers, atol=1e-9, rtol=0)


def test_what_cannot_be_cut_is_refused_in_a_line(manifest: Path, tmp_path: Path) -> None:
    lm = load_model(str(HYBRID["hybrid"](tmp_path / "hybrid")), device=torch.device("cpu"), dtype=torch.float32)
    reading = tail_of(lm, encode(lm, manifest, "happy_1_sad_a"))
    assert "block 0 keeps more than keys and values (" in refusal(lm, reading)
    with without_vision_tower():
        streams = load_model(str(save_gemma3n(tmp_path / "streams")), device=torch.device("cpu"), dtype=torch.float32)
    reading = tail_of(streams, encode(streams, manifest, "happy_1_sad_a"))
    assert refusal(streams, reading) == "block 3 keeps no keys and values of its own"
    with pytest.raises(UnknownBlock, match="4 residual streams"):
        read_rows(streams, reading, {})
    plain = load(save_tiny_model(tmp_path / "plain"))
    plain.model.config.get_text_config()._attn_implementation = "flash_attention_2"
    assert "'flash_attention_2', which takes no mask; --attention sdpa does" in refusal(plain, reading)


def test_a_cut_outside_of_what_is_read_is_an_error(lm: AudioLM, manifest: Path) -> None:
    clip = encode(lm, manifest, "happy_1_sad_a")
    reading: Reading = last_of(lm, tail_of(lm, clip))
    with pytest.raises(ValueError, match="not within the positions"):
        knockout(lm, reading, [Cut(range(2), range(clip.span.stop, clip.ids.shape[1]), 0, 1)])


TOKENS = (3, 50, 200)
SUMS = {k: v for k, v in BUILDS.items() if "norms behind" not in k} | {"scaled sums": save_granite_speech_plus}


@pytest.mark.parametrize("build", SUMS)
def test_what_is_added_sums_to_the_logits(build: str, manifest: Path, tmp_path: Path) -> None:
    """To the rounding of norms that compute in float32 whatever the model does."""
    lm = load(SUMS[build](tmp_path))
    clip = encode(lm, manifest, "happy_1_sad_a")
    tail = tail_of(lm, clip)
    parts = find_parts(lm, clip, tail)
    found = attribute(lm, parts, last_of(lm, tail), TOKENS)
    assert found.off < 1e-6
    heads = torch.stack([found.of_heads(b, found.own, 4) for b in range(LAYERS)])
    assert heads.abs().amin(dim=(0, 1)).max() > 1e-6 and found.embedding.abs().max() > 1e-6
    if build == "grouped keys":
        torch.testing.assert_close(found.of_mlp(LAYERS - 1, found.own), of_last_mlp(lm, clip, parts[-1]), atol=1e-6, rtol=0)


def of_last_mlp(lm: AudioLM, clip: EncodedClip, parts: Parts) -> torch.Tensor:
    """Return what the last MLP adds, by hand: its output, scaled as the last norm scales the state, times the head's rows."""
    norm, caught = lm.model.model.language_model.norm, {}
    of_norm = norm.register_forward_hook(lambda _, args, out: caught.update(state=args[0][0, -1]))
    of_mlp = parts.mlp.register_forward_hook(lambda _, args, out: caught.update(mlp=out[0, -1]))  # type: ignore[union-attr]
    with hooks(of_norm, of_mlp):
        own_logits(lm, clip)
    scale = norm.weight / (caught["state"].square().mean() + norm.variance_epsilon).sqrt()
    return lm.model.get_output_embeddings().weight[list(TOKENS)].detach() @ (scale.detach() * caught["mlp"])


def test_a_head_that_writes_is_told_from_one_that_does_not(manifest: Path, tmp_path: Path) -> None:
    """Of block 2 alone something is added: what other blocks' parts do is nothing by itself."""
    lm = load(save_tiny_model(tmp_path, only_block=2))
    clip = encode(lm, manifest, "happy_1_sad_a")
    tail = tail_of(lm, clip)
    found = attribute(lm, find_parts(lm, clip, tail), last_of(lm, tail), TOKENS)
    heads = [found.of_heads(block, found.own, 4).abs().amax(dim=0) for block in range(LAYERS)]
    assert min(heads[2]) > 1e-6 and max(max(h) for i, h in enumerate(heads) if i != 2) < 1e-12 and found.off < 1e-6


def test_norms_behind_the_parts_are_refused_in_a_line(manifest: Path, tmp_path: Path) -> None:
    lm = load(BUILDS["norms behind, soft cap"](tmp_path))
    clip = encode(lm, manifest, "happy_1_sad_a")
    tail = tail_of(lm, clip)
    with pytest.raises(UnknownBlock, match=r"what leaves block \d is no sum of its parts"):
        attribute(lm, find_parts(lm, clip, tail), last_of(lm, tail), TOKENS)
