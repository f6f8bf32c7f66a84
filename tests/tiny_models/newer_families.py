"""Tiny random models of the families that came after the first eight (tests/tiny_models/families.py), built in the same way.

Transcribers are here too: what they are trained for is to write down words, not to answer a question, but a run on them must work
or say why it does not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from common.clips.manifest import LABELS
from tests.tiny_models.families import FAMILIES, WHISPER, granite_ears, named_tokenizer, save_family, template
from tests.tiny_models.tiny import byte_tokenizer, byte_vocabulary, decoder, save

WHISPER_TOWER = dict(
    num_mel_bins=128, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, hidden_size=32, initializer_range=0.2
)


def spelled_tokenizer(*special: str) -> Qwen2Tokenizer:
    """Return a tokenizer of bytes and labels with special tokens that a processor knows by how they are spelled."""
    tokenizer = byte_tokenizer(special)
    tokenizer.add_tokens(list(LABELS))
    return tokenizer


def save_gemma4(folder: Path, *, wide: bool = False) -> Path:
    """Inputs of its own for every block; the last 2 of 5 blocks read the keys and values of others, and in E2B are `wide`."""
    tokenizer = gemma4_tokenizer()
    text = gemma4_text(tokenizer, num_kv_shared_layers=2, hidden_size_per_layer_input=16, use_double_wide_mlp=wide)
    audio = dict(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, subsampling_conv_channels=[128, 8], output_proj_dims=32
    )
    config = hf.Gemma4Config(text_config=text, audio_config=audio, vision_config=None, **gemma4_ids(tokenizer))
    return save_family(
        folder,
        hf.Gemma4ForConditionalGeneration,
        config,
        "Gemma4Processor",
        hf.Gemma4AudioFeatureExtractor(),
        tokenizer,
        template("<|audio|>"),
        loud=(("model.audio_tower", 10),),
    )


def save_gemma4_unified(folder: Path) -> Path:
    """No audio tower: every 40 ms of the wave are a token."""
    tokenizer = gemma4_tokenizer()
    config = hf.Gemma4UnifiedConfig(
        text_config=gemma4_text(tokenizer, use_bidirectional_attention="vision", attention_k_eq_v=True),
        audio_config={},
        vision_config=None,
        **gemma4_ids(tokenizer),
    )
    return save_family(
        folder,
        hf.Gemma4UnifiedForConditionalGeneration,
        config,
        "Gemma4UnifiedProcessor",
        hf.Gemma4UnifiedAudioFeatureExtractor(),
        tokenizer,
        template("<|audio|>"),
    )


def gemma4_tokenizer() -> Qwen2Tokenizer:
    names = ("boa", "eoa", "boi", "eoi", "image", "audio")
    tokenizer = Qwen2Tokenizer(
        vocab=byte_vocabulary() | {"su": 256},  # so that "sad" and "surprised" begin differently
        merges=[("s", "u")],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_specific_special_tokens={f"{name}_token": f"<|{name}|>" for name in names},
    )
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>", "<|video|>"]})
    return tokenizer


def gemma4_text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return dict(
        vocab_size=len(tokenizer),
        vocab_size_per_layer_input=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        global_head_dim=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        sliding_window=4096,
        final_logit_softcapping=30.0,
        initializer_range=0.3,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        **more,
    )


def gemma4_ids(tokenizer: Any) -> dict[str, Any]:
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("boa", "boi", "eoi", "image", "audio", "video")
    }
    return ids | {"eoa_token_index": tokenizer.convert_tokens_to_ids("<|eoa|>"), "tie_word_embeddings": False}


def save_music_flamingo(folder: Path) -> Path:
    tokenizer = spelled_tokenizer("<sound>", "<|sound_bos|>", "<|sound_eos|>")
    extractor = hf.WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    processor = hf.MusicFlamingoProcessor(extractor, tokenizer, chat_template=template("<sound>"))
    config = hf.MusicFlamingoConfig(
        audio_config=dict(model_type="audioflamingo3_encoder", **WHISPER_TOWER),
        text_config=decoder("qwen2", len(tokenizer)),
        **{f"audio{end}_token_id": getattr(processor, f"audio{end}_token_id") for end in ("", "_bos", "_eos")},
    )
    return save(folder, hf.MusicFlamingoForConditionalGeneration(config), processor)


def save_granite_speech_plus(folder: Path) -> Path:
    """A Granite Speech whose projector reads a middle block of the encoder besides, and that hears without an adapter."""
    tokenizer = named_tokenizer({"audio_token": "<|audio|>"})
    config = hf.GraniteSpeechPlusConfig(
        text_config=decoder("granite", len(tokenizer), logits_scaling=8.0, residual_multiplier=0.22, embedding_multiplier=12.0),
        **granite_ears(num_layers=2, read=2, cat_hidden_layers=[0]),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    return save_family(
        folder,
        hf.GraniteSpeechPlusForConditionalGeneration,
        config,
        "GraniteSpeechProcessor",
        hf.GraniteSpeechFeatureExtractor(),
        tokenizer,
        template("<|audio|>"),
        audio_token="<|audio|>",
        loud=(("model.encoder", 10), ("model.projector", 60)),
    )


def save_nemotron_h_omni(folder: Path) -> Path:
    """Blocks of four kinds: two recurrences, attention, a plain MLP and a mixture of experts."""
    tokenizer = spelled_tokenizer("<so_embedding>", "<so_start>", "<so_end>", "<image>", "<video>", "<img>", "</img>")
    text = decoder(
        "nemotron_h",
        len(tokenizer),
        layer_types=["linear_attention", "mlp", "full_attention", "linear_attention", "moe"],
        mamba_num_heads=4,
        mamba_head_dim=8,
        n_groups=2,
        ssm_state_size=8,
        chunk_size=8,
        expand=1,
        n_routed_experts=4,
        moe_intermediate_size=32,
        moe_shared_expert_intermediate_size=32,
    )
    text.pop("num_hidden_layers")
    ears = dict(WHISPER_TOWER, num_mel_bins=80, subsampling_conv_channels=8, projection_hidden_size=32, projection_bias=False)
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in {"audio": "<so_embedding>", "image": "<image>", "video": "<video>"}.items()
    }
    config = hf.NemotronH_Omni_Reasoning_V3_Config(
        text_config=text,
        audio_config=ears,
        vision_config=dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, video_temporal_patch_size=2),
        vision_hidden_size=32,
        projector_hidden_size=32,
        **ids,
    )
    return save_family(
        folder,
        hf.NemotronH_Omni_Reasoning_V3,
        config,
        "NemotronH_Omni_Reasoning_V3Processor",
        hf.ParakeetFeatureExtractor(feature_size=80),
        tokenizer,
        template("<so_embedding>"),
    )


def save_dots3_note(folder: Path) -> Path:
    """Compressed keys, a window in every other block, experts in all but the first."""
    tokenizer = spelled_tokenizer("<|imgpad|>", "<|video_pad|>", "<|audio_comp_pad|>")
    text = decoder(
        "dots3_note_text",
        len(tokenizer),
        layer_types=["indexed_attention", "sliding_attention"] * 2,
        sliding_window=4096,
        moe_intermediate_size=32,
        shared_experts_intermediate_size=32,
        n_routed_experts=4,
        num_experts_per_tok=2,
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        head_dim=16,
        index_head_dim=8,
        index_n_heads=2,
        swa_num_attention_heads=4,
        swa_num_key_value_heads=4,
        swa_q_lora_rank=16,
        swa_kv_lora_rank=16,
        swa_head_dim=12,
        swa_qk_nope_head_dim=8,
        swa_v_head_dim=8,
    )
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in {"audio": "<|audio_comp_pad|>", "image": "<|imgpad|>", "video": "<|video_pad|>"}.items()
    }
    config = hf.Dots3NoteConfig(
        text_config=text,
        audio_config=dict(WHISPER_TOWER, feature_size=128, downsample_hidden_size=8, adapter_input_size=32, adapter_out_dim=32),
        vision_config=dict(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            mlp_layer_types=["dense"],
            adapter_in_dim=32,
            adapter_out_dim=32,
        ),
        **ids,
    )
    return save_family(
        folder,
        hf.Dots3NoteForConditionalGeneration,
        config,
        "Dots3NoteProcessor",
        hf.Dots3NoteFeatureExtractor(),
        tokenizer,
        template("<|audio_comp_pad|>"),
    )


def save_muse_spark(folder: Path) -> Path:
    """A tower of convolutions on the wave, windows, experts of their own width, a soft cap."""
    names = (
        "image",
        "image_start",
        "image_end",
        "video",
        "video_sep",
        "video_start",
        "video_end",
        "audio",
        "audio_start",
        "audio_end",
    )
    tokenizer = named_tokenizer({f"{name}_token": f"<|{name}|>" for name in names})
    text = decoder(
        "muse_spark_text",
        len(tokenizer),
        moe_intermediate_size=32,
        moe_hidden_size=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=4096,
    )
    config = hf.MuseSparkConfig(
        text_config=text,
        audio_config=dict(hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1], out_hidden_size=32),
        vision_config=dict(
            hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, pos_emb_height=4, pos_emb_width=4
        ),
        out_hidden_size=128,
        projector_hidden_size=32,
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("audio", "image", "video")},
    )
    return save_family(
        folder,
        hf.MuseSparkForConditionalGeneration,
        config,
        "MuseSparkProcessor",
        hf.MuseSparkFeatureExtractor(),
        tokenizer,
        template("<|audio|>"),
    )


def save_glm_asr(folder: Path) -> Path:
    tokenizer = spelled_tokenizer("<|pad|>")
    extractor = hf.WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    processor = hf.GlmAsrProcessor(extractor, tokenizer, chat_template=template("<|pad|>"))
    config = hf.GlmAsrConfig(
        audio_config=dict(model_type="glmasr_encoder", **dict(WHISPER_TOWER, intermediate_size=128)),
        text_config=decoder("llama", len(tokenizer)),
        audio_token_id=processor.audio_token_id,
        tie_word_embeddings=False,
    )
    return save(folder, hf.GlmAsrForConditionalGeneration(config), processor)


def save_qwen3_asr(folder: Path) -> Path:
    tokenizer = named_tokenizer(
        {"audio_token": "<|audio|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
    )
    torch.manual_seed(0)
    config = hf.Qwen3ASRConfig(
        audio_config=dict(WHISPER, output_dim=32, downsample_hidden_size=16),
        text_config=decoder("qwen3", len(tokenizer)),
        audio_token_id=tokenizer.audio_token_id,
        tie_word_embeddings=False,
    )
    return save_family(
        folder,
        hf.Qwen3ASRForConditionalGeneration,
        config,
        "Qwen3ASRProcessor",
        hf.Qwen3ASRFeatureExtractor(feature_size=128),
        tokenizer,
        template("<|audio_bos|><|audio|><|audio_eos|>"),
    )


def save_fun_asr_nano(folder: Path) -> Path:
    tokenizer = spelled_tokenizer("<|object_ref_start|>")
    ears = dict(hidden_size=32, num_attention_heads=2, intermediate_size=32)
    config = hf.FunAsrNanoConfig(
        audio_config=dict(ears, num_hidden_layers=3, num_timestamp_prediction_layers=1),
        adaptor_config=dict(ears, num_hidden_layers=1, intermediate_size=8, projector_hidden_size=32),
        text_config=decoder("qwen3", len(tokenizer)),
        audio_token_id=tokenizer.convert_tokens_to_ids("<|object_ref_start|>"),
        tie_word_embeddings=False,
    )
    return save_family(
        folder,
        hf.FunAsrNanoForConditionalGeneration,
        config,
        "FunAsrNanoProcessor",
        hf.FunAsrNanoFeatureExtractor(),
        tokenizer,
        template("<|object_ref_start|>"),
    )


def save_vibevoice_asr(folder: Path, *, duration: str = "") -> Path:
    """A tower that adds noise to what it hears; its checkpoint's template tells the `duration` of a clip, which this one can."""
    tokenizer = spelled_tokenizer("<|box_start|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|AUDIO_DURATION|>")
    ears = dict(num_filters=4, depths=[1] * 7, initializer_range=0.1, layer_scale_init_value=0.5)
    config = hf.VibeVoiceAsrConfig(
        acoustic_tokenizer_encoder_config=dict(ears, hidden_size=16),
        semantic_tokenizer_encoder_config=dict(ears, hidden_size=16),
        text_config=decoder("qwen2", len(tokenizer)),
        **{
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
            for name, token in {"audio": "box_start", "audio_bos": "object_ref_start", "audio_eos": "object_ref_end"}.items()
        },
    )
    audio = f"<|object_ref_start|><|box_start|><|object_ref_end|>{duration}"
    return save_family(
        folder,
        hf.VibeVoiceAsrForConditionalGeneration,
        config,
        "VibeVoiceAsrProcessor",
        hf.VibeVoiceAcousticTokenizerFeatureExtractor(),
        tokenizer,
        template(audio),
    )


def save_moss(folder: Path) -> Path:
    """Whose processor writes the seconds among the audio tokens: here after every 4, as clips are short (its checkpoint: 25)."""
    tokenizer = spelled_tokenizer("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>")
    config = hf.MossTranscribeDiarizeConfig(
        audio_config=dict(WHISPER_TOWER, num_mel_bins=80),
        text_config=decoder("qwen3", len(tokenizer)),
        audio_token_id=tokenizer.convert_tokens_to_ids("<|audio_pad|>"),
        tie_word_embeddings=False,
    )
    return save_family(
        folder,
        hf.MossTranscribeDiarizeForConditionalGeneration,
        config,
        "MossTranscribeDiarizeProcessor",
        hf.MossTranscribeDiarizeFeatureExtractor(feature_size=80),
        tokenizer,
        template("<|audio_start|><|audio_pad|><|audio_end|>"),
        time_marker_every_seconds=1,
        audio_tokens_per_second=4.0,
    )


NEWER_FAMILIES: dict[str, Callable[[Path], Path]] = {
    "gemma4_e2b": lambda folder: save_gemma4(folder, wide=True),
    "gemma4_e4b": save_gemma4,
    "gemma4_unified": save_gemma4_unified,
    "music_flamingo": save_music_flamingo,
    "granite_speech_plus": save_granite_speech_plus,
    "nemotron_h_omni": save_nemotron_h_omni,
    "dots3_note": save_dots3_note,
    "muse_spark": save_muse_spark,
    "glm_asr": save_glm_asr,
    "qwen3_asr": save_qwen3_asr,
    "fun_asr_nano": save_fun_asr_nano,
    "vibevoice_asr": save_vibevoice_asr,
    "moss_transcribe": save_moss,
}

ALL_FAMILIES = FAMILIES | NEWER_FAMILIES
NEEDS = {  # packages, beside those of requirements.txt
    "voxtral": ("mistral_common",),
    "granite_speech": ("torchaudio", "peft"),
    "granite_speech_plus": ("torchaudio",),
    "phi4_multimodal": ("peft",),
    "fun_asr_nano": ("torchaudio",),
}
