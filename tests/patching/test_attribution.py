"""Direct attribution: what the parts add sums to the logits, and is what is missing where a part is taken out of the last sum."""

from pathlib import Path

import pytest
import torch

from common.components.attribution import attribute
from common.components.submodules import Parts, find_parts
from common.errors import UnknownBlock
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.patching.tail_pass import last_of, tail_of
from tests.tiny_models.newer_families import save_granite_speech_plus
from tests.tiny_models.tiny import LAYERS, save_tiny_model
from tests.tiny_models.unlike import BUILDS, encode, load

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
    handles = [
        norm.register_forward_hook(lambda _, args, out: caught.update(state=args[0][0, -1])),
        parts.mlp.register_forward_hook(lambda _, args, out: caught.update(mlp=out[0, -1])),  # type: ignore[union-attr]
    ]
    with torch.inference_mode():
        lm.model(**clip.inputs, use_cache=False)
    for handle in handles:
        handle.remove()
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
