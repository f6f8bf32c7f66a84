"""Attention knockout, held against a loop of its own: one full forward for each window, masks changed by plain hooks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UnknownBlock
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.patching.knockout import Cut, knockout, knockout_rerun, refusal
from common.patching.tail_pass import Reading, last_of, read_rows, tail_of
from tests.tiny_models.families import save_gemma3n, without_vision_tower
from tests.tiny_models.tiny import LAYERS, save_tiny_model
from tests.tiny_models.unlike import BUILDS, HYBRID, encode, load, rename

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
        torch.testing.assert_close(base, own(lm, clip), atol=1e-9, rtol=0)
        found += logits
        cuts += of_edge
    return torch.stack(found), cuts


def own(lm: AudioLM, clip: EncodedClip) -> torch.Tensor:
    with torch.inference_mode():
        return lm.model(**clip.inputs, use_cache=False).logits[0, -1]


def by_hand(lm: AudioLM, clip: EncodedClip, cut: Cut) -> torch.Tensor:
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

    handles = [lm.blocks[i].register_forward_pre_hook(lower, with_kwargs=True) for i in range(cut.start, cut.stop)]
    logits = own(lm, clip)
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("build", BUILDS)
def test_rows_are_those_of_a_forward_for_each_window(build: str, manifest: Path, tmp_path: Path) -> None:
    lm = load(BUILDS[build](tmp_path))
    clip = encode(lm, manifest, "happy_1_sad_a")
    found, cuts = both(lm, clip, WINDOWS)
    expected = torch.stack([by_hand(lm, clip, cut) for cut in cuts])
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    moved = (found - own(lm, clip)).abs().amax(dim=1).reshape(-1, len(WINDOWS))
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
    moved = ((both(lm, clip, windows)[0] - own(lm, clip)).abs().amax(dim=1) > 1e-6).reshape(4, -1)
    from_on, up_to, alone = [i <= block for i in layers], [i > block for i in layers], [i == block for i in range(LAYERS)]
    for name, rows in zip(edges(clip), moved.tolist()):
        read = name != "audio to question"
        assert rows == ([*from_on, *up_to, *alone] if read else [False] * len(windows)), name


def test_hidden_everywhere_the_audio_says_nothing(manifest: Path, tmp_path: Path) -> None:
    lm = load(save_tiny_model(tmp_path))
    clip, silent = (encode(lm, manifest, "happy_1_sad_a", silent=silent) for silent in (False, True))
    assert (own(lm, clip) - own(lm, silent)).abs().max() > 1e-3
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
