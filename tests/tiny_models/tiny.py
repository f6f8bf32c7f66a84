"""Tiny random models of real classes, and clips to run them on. No network, no weights from anywhere."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from common.clips.manifest import COLUMNS, LABELS

LAYERS = 4
RATE = 16_000


def byte_vocabulary() -> dict[str, int]:
    """Return the 256 bytes under the names that byte-level tokenizers have for them."""
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {b: chr(b) for b in letters} | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in letters)}
    return {names[b]: b for b in range(256)}


def byte_tokenizer(special: tuple[str, ...]) -> Qwen2Tokenizer:
    """Return a tokenizer of single bytes, with special tokens."""
    tokenizer = Qwen2Tokenizer(vocab=byte_vocabulary(), merges=[], eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>", *special]})
    return tokenizer


def decoder(kind: str, vocabulary: int, **more: Any) -> dict[str, Any]:
    """Return the config of a random decoder of LAYERS blocks, of the class that `kind` names."""
    config = dict(
        model_type=kind,
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=4096,
        initializer_range=0.3,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return config | more


def save_weights(folder: Path, model: Any) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # so that skipping a norm, or norming twice, shows
                parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
    model.save_pretrained(str(folder))


def save(folder: Path, model: Any, processor: Any) -> Path:
    save_weights(folder, model)
    processor.save_pretrained(folder)
    return folder


def save_tiny_model(
    folder: Path,
    *,
    only_block: int | None = None,
    label_tokens: bool = True,
    window: int | None = None,
    text: str = "qwen2",
    seed: int = 0,
    tokenizer: Any = None,
    chat_template: str | None = None,
    encoder_blocks: int = 1,
) -> Path:
    """Save a random Qwen2-Audio of 4 blocks, with a window of 1 s, and its processor.

    `only_block`: zero what attention and MLP add in every other block, so that everything happens in this one.
    `window`: let every other block see only so many positions. `text`: build its decoder of the blocks of another family.
    `label_tokens`: give each label a token of its own; without, "sad" and "surprised" share their first byte. A `tokenizer` that
    is given takes the place of the one of bytes, a `chat_template` that of the processor's own.
    """
    if tokenizer is None:
        tokenizer = byte_tokenizer(("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"))
        if label_tokens:
            tokenizer.add_tokens(list(LABELS))
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=1)
    processor = Qwen2AudioProcessor(extractor, tokenizer, chat_template=chat_template)
    tower = dict(
        model_type="qwen2_audio_encoder",
        num_mel_bins=128,
        encoder_layers=encoder_blocks,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        d_model=32,
        initializer_range=0.2,
        max_source_positions=50,
    )
    torch.manual_seed(seed)
    sees = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    windows = {} if window is None else dict(use_sliding_window=True, sliding_window=window, layer_types=sees)
    config = Qwen2AudioConfig(
        audio_config=tower, text_config=decoder(text, len(tokenizer), **windows), audio_token_index=processor.audio_token_id
    )
    model = Qwen2AudioForConditionalGeneration(config)
    if only_block is not None:
        for number, block in enumerate(model.model.language_model.layers):
            if number != only_block:
                torch.nn.init.zeros_(block.self_attn.o_proj.weight)
                torch.nn.init.zeros_(block.mlp.down_proj.weight)
    return save(folder, model, processor)


def save_clips(folder: Path, *, texts: int = 2, speakers: tuple[str, ...] = ("a", "b"), equal_length: bool = False) -> Path:
    """Write clips of every text, prosody and speaker, noises with a tone, and their manifest; return its path.

    Text number i of a label and its prosodies have the same length; other texts differ in length unless `equal_length`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for number, (semantic, index) in enumerate((label, i) for label in LABELS for i in range(texts)):
        for speaker in speakers:
            for tone, prosody in enumerate(LABELS):
                name = f"{semantic}_{index}_{prosody}_{speaker}"
                length = RATE // 2 if equal_length else RATE // 3 + 700 * number
                wave = 0.2 * rng.standard_normal(length) + 0.3 * np.sin(2 * np.pi * 200 * (tone + 1) * np.arange(length) / RATE)
                soundfile.write(folder / f"{name}.wav", np.clip(wave, -1, 1), RATE)
                rows.append(
                    (
                        name,
                        f"{name}.wav",
                        f"text {semantic} {index}",
                        f"{semantic}_{index}",
                        semantic,
                        prosody,
                        speaker,
                        "en",
                        "tone",
                    )
                )
    return save_manifest(folder / "manifest.csv", rows)


def save_manifest(path: Path, rows: list[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path
