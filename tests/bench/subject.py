"""What is timed: a random model of real shape, and clips that are already encoded, so that no tool reads or pads audio."""

from dataclasses import dataclass

import torch
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from common.model.encoding import EncodedClip
from common.model.lm import AudioLM

VOCABULARY = 32_000
AUDIO_TOKEN = VOCABULARY - 1
WINDOW = 3_000  # frames of 10 ms: the tower of this class always computes 30 s, however short the clip is
PREFIX, TAIL = 18, 28  # tokens around the audio in this class's chat template with the prompt `speaker`


@dataclass(frozen=True)
class Shape:
    """The size of a model: a decoder of `blocks` x `width` and an audio tower of `tower_blocks` x `tower_width`."""

    blocks: int = 24
    width: int = 896
    mlp: int = 4_864
    heads: int = 14
    kv_heads: int = 2
    tower_blocks: int = 6
    tower_width: int = 512

    def __str__(self) -> str:
        return (
            f"Qwen2-Audio class, random weights: decoder {self.blocks} x {self.width} (MLP {self.mlp}, {self.heads} heads, "
            f"{self.kv_heads} key/value heads), vocabulary {VOCABULARY}, audio tower {self.tower_blocks} x {self.tower_width}, "
            "window 30 s"
        )


REAL = Shape()  # the decoder of a 0.5 B language model
SMALL = Shape(blocks=4, width=128, mlp=256, heads=2, kv_heads=1, tower_blocks=1, tower_width=64)
LARGE = Shape(blocks=32, width=3_584, mlp=18_944, heads=28, kv_heads=4, tower_blocks=32, tower_width=1_280)  # for a GPU


def build_model(shape: Shape, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> AudioLM:
    """Return a random model of the real class; weights are drawn on `device`, and no file is read."""
    torch.manual_seed(seed)
    tower = dict(
        model_type="qwen2_audio_encoder",
        num_mel_bins=128,
        encoder_layers=shape.tower_blocks,
        encoder_attention_heads=shape.tower_width // 64,
        encoder_ffn_dim=4 * shape.tower_width,
        d_model=shape.tower_width,
        max_source_positions=WINDOW // 2,
    )
    decoder = dict(
        model_type="qwen2",
        vocab_size=VOCABULARY,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2_048,
        tie_word_embeddings=False,
    )
    config = Qwen2AudioConfig(audio_config=tower, text_config=decoder, audio_token_index=AUDIO_TOKEN)
    config.dtype = dtype
    with torch.device(device):
        model = Qwen2AudioForConditionalGeneration(config).to(dtype).eval()
    return AudioLM(model, None, model.model.language_model.layers, AUDIO_TOKEN, device)


def make_clips(lm: AudioLM, count: int, *, seconds: float, seed: int = 0) -> list[EncodedClip]:
    """Return `count` clips of noise in one prompt, equally long: positions align, as the peers need."""
    draw = torch.Generator().manual_seed(seed)
    frames = int(seconds * 100)
    audio = ((frames - 1) // 2 + 1 - 2) // 2 + 1  # the tower's own rule: 25 audio tokens a second
    prefix, tail = (torch.randint(AUDIO_TOKEN, (n,), generator=draw) for n in (PREFIX, TAIL))
    ids = torch.cat([prefix, torch.full((audio,), AUDIO_TOKEN), tail])[None]
    heard = (torch.arange(WINDOW) < frames).long()[None]
    clips = []
    for _ in range(count):
        features = torch.randn(1, 128, WINDOW, generator=draw) * heard
        inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), input_features=features, feature_attention_mask=heard)
        on_device = {k: v.to(lm.device, lm.dtype if v.is_floating_point() else None) for k, v in inputs.items()}
        clips.append(EncodedClip(on_device, slice(PREFIX, PREFIX + audio)))
    return clips
