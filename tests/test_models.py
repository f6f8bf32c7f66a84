from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common.models import AudioLM, choose_device, choose_dtype, encode_clip, load_model
from common.readout import PROMPTS
from common.samples import InputError
from tests.tiny import LAYERS

CPU = torch.device("cpu")


def test_load_finds_the_decoder(lm: AudioLM) -> None:
    assert len(lm.blocks) == LAYERS and lm.dtype == torch.float32 and not lm.model.training


def test_encode_puts_the_span_between_shared_prefix_and_tail(lm: AudioLM, manifest: Path) -> None:
    short, long = (
        encode_clip(lm, manifest.parent / f"{n}.wav", PROMPTS["words"]) for n in ("neutral_0_sad_a", "surprised_1_sad_a")
    )
    assert short.prefix_ids == long.prefix_ids and short.tail_ids == long.tail_ids
    text = lm.processor.tokenizer.decode(short.tail_ids)
    assert text.startswith("<|audio_eos|>\nWhich emotion is in the words?") and text.endswith("<|im_start|>assistant\n")
    assert set(short.ids[0, short.span].tolist()) == {lm.audio_token_id}
    assert long.span.start == short.span.start and long.span.stop > short.span.stop


def test_the_clip_reaches_the_extractor_unchanged(lm: AudioLM, manifest: Path) -> None:
    path = manifest.parent / "sad_1_angry_b.wav"
    wave, rate = soundfile.read(path, dtype="float32")
    expected = lm.processor.feature_extractor(wave, sampling_rate=rate, return_tensors="pt", padding="max_length").input_features
    torch.testing.assert_close(encode_clip(lm, path, PROMPTS["voice"]).inputs["input_features"], expected)


def test_a_clip_beyond_the_models_window_is_refused(lm: AudioLM, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24_000), 16_000)
    with pytest.raises(InputError, match=r"long.wav: 1.50 s long; the model hears 1 s at most"):
        encode_clip(lm, tmp_path / "long.wav", PROMPTS["voice"])


def test_what_is_not_an_audio_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--model .*gone: no model folder or hub id"):
        load_model(str(tmp_path / "gone"), device=CPU, dtype=torch.float32)
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=16)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "text")
    with pytest.raises(InputError, match="LlamaConfig is not an audio language model"):
        load_model(str(tmp_path / "text"), device=CPU, dtype=torch.float32)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"model_type": "qwen2_audio"}')
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(tmp_path / "half"), device=CPU, dtype=torch.float32)


def test_devices_and_dtypes() -> None:
    assert choose_device("cpu") == CPU
    assert choose_dtype("auto", CPU) == torch.float32 and choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("float16", CPU) == torch.float16
    for name in ("cuda:99", "nonsense"):
        with pytest.raises(InputError, match=f"--device {name}: not usable here"):
            choose_device(name)
