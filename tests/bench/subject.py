"""What is timed: a random model of real shape, and clips that are already encoded, so that no tool reads or pads audio."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
)

from common.model.encoding import EncodedClip
from common.model.lm import AudioLM, wrap_model

VOCABULARY = 32_000
AUDIO_TOKEN = VOCABULARY - 1
WINDOW = 3_000  # frames of 10 ms: Qwen2-Audio's tower always computes 30 s, however short the clip is
PREFIX, TAIL = 18, 28  # tokens around the audio in this class's chat template with the prompt `speaker`


@dataclass(frozen=True)
class Shape:
    """The size of a model: a decoder of `blocks` x `width` and an audio tower of `tower_blocks` x `tower_width`.

    `omni`: of the Qwen2.5-Omni class (its thinker, with hardly any vision tower), not of the Qwen2-Audio class.
    """

    blocks: int = 24
    width: int = 896
    mlp: int = 4_864
    heads: int = 14
    kv_heads: int = 2
    tower_blocks: int = 6
    tower_width: int = 512
    vocabulary: int = VOCABULARY
    omni: bool = False

    def __str__(self) -> str:
        return (
            f"{'Qwen2.5-Omni' if self.omni else 'Qwen2-Audio'} class, random weights: decoder {self.blocks} x {self.width} "
            f"(MLP {self.mlp}, {self.heads} heads, {self.kv_heads} key/value heads), vocabulary {self.vocabulary}, "
            f"audio tower {self.tower_blocks} x {self.tower_width}, window 30 s"
        )


REAL = Shape()  # the decoder of a 0.5 B language model
SMALL = Shape(blocks=4, width=128, mlp=256, heads=2, kv_heads=1, tower_blocks=1, tower_width=64)
# The two for a GPU: Qwen2-Audio-7B-Instruct and the thinker of Qwen2.5-Omni-3B.
LARGE = Shape(32, 4_096, 11_008, heads=32, kv_heads=32, tower_blocks=32, tower_width=1_280, vocabulary=156_032)
OMNI = Shape(36, 2_048, 11_008, heads=16, kv_heads=2, tower_blocks=32, tower_width=1_280, vocabulary=151_936, omni=True)


def build_model(shape: Shape, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> AudioLM:
    """Return a random model of the real class; weights are drawn on `device` in `dtype`, and no file is read."""
    torch.manual_seed(seed)
    tower = dict(
        num_mel_bins=128,
        encoder_layers=shape.tower_blocks,
        encoder_attention_heads=shape.tower_width // 64,
        encoder_ffn_dim=4 * shape.tower_width,
        d_model=shape.tower_width,
        max_source_positions=WINDOW // 2,
    )
    decoder = dict(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2_048,
        tie_word_embeddings=False,
    )
    make = _omni if shape.omni else _qwen2_audio
    with torch.device(device), _drawn_in(dtype):  # in float32 first, 7 B would not fit 24 GB
        model = make(tower, decoder).eval()
    return wrap_model(model, None, device=device)


def _qwen2_audio(tower: dict[str, Any], decoder: dict[str, Any]) -> Any:
    config = Qwen2AudioConfig(
        audio_config=dict(tower, model_type="qwen2_audio_encoder"),
        text_config=dict(decoder, model_type="qwen2"),
        audio_token_index=AUDIO_TOKEN,
    )
    return Qwen2AudioForConditionalGeneration(config)


def _omni(tower: dict[str, Any], decoder: dict[str, Any]) -> Any:
    width, head = decoder["hidden_size"], decoder["hidden_size"] // decoder["num_attention_heads"]
    sections = [head // 8, 3 * head // 16, 3 * head // 16]
    config = Qwen2_5OmniThinkerConfig(
        audio_config=dict(tower, output_dim=width, n_window=100),
        text_config=dict(decoder, rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}),
        vision_config=dict(
            depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=width, fullatt_block_indexes=[0]
        ),
        audio_token_index=AUDIO_TOKEN,
        image_token_index=AUDIO_TOKEN - 1,  # of no clip
        video_token_index=AUDIO_TOKEN - 2,
        vision_start_token_id=AUDIO_TOKEN - 3,
    )
    return Qwen2_5OmniThinkerForConditionalGeneration(config)


@contextmanager
def _drawn_in(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make_clips(lm: AudioLM, count: int, *, seconds: float, seed: int = 0) -> list[EncodedClip]:
    """Return `count` clips of noise in one prompt, equally long: positions align, as the peers need."""
    draw = torch.Generator().manual_seed(seed)
    frames = int(seconds * 100)
    audio = ((frames - 1) // 2 + 1 - 2) // 2 + 1  # the tower's own rule: 25 audio tokens a second
    prefix, tail = (torch.randint(AUDIO_TOKEN - 3, (n,), generator=draw) for n in (PREFIX, TAIL))
    ids = torch.cat([prefix, torch.full((audio,), AUDIO_TOKEN), tail])[None]
    heard = (torch.arange(WINDOW) < frames).long()[None]
    clips = []
    for _ in range(count):
        features = torch.randn(1, 128, WINDOW, generator=draw) * heard
        inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), input_features=features, feature_attention_mask=heard)
        on_device = {k: v.to(lm.device, lm.dtype if v.is_floating_point() else None) for k, v in inputs.items()}
        clips.append(EncodedClip(on_device, slice(PREFIX, PREFIX + audio)))
    return clips
