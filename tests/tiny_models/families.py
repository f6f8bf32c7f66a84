"""Tiny random models of the eight families, with their real classes and processors, saved as a checkpoint is laid out.

Each has 4 blocks (Gemma 3n: 5, of which the last 2 read the keys and values of earlier ones) and is built from nothing: no
network, no weights from anywhere. Left out is what no clip needs and what is not installed: image and video processors, and
Gemma 3n's vision tower (`without_vision_tower`).
"""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers as hf
from torch import nn
from transformers.models.gemma3n import modeling_gemma3n
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeThinkerConfig

from common.clips.manifest import LABELS
from tests.tiny_models.tiny import byte_tokenizer, byte_vocabulary, decoder, save, save_tiny_model, save_weights

WHISPER = dict(
    num_mel_bins=128, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, d_model=32, initializer_range=0.2
)
OMNI_TOKENS = {
    f"{name}_token": f"<|{name}|>" for name in ("audio", "image", "video", "vision_bos", "vision_eos", "audio_bos", "audio_eos")
}


def named_tokenizer(tokens: dict[str, str]) -> Qwen2Tokenizer:
    """Return a tokenizer of bytes and labels whose special tokens have names that survive saving (`tokenizer.audio_token`)."""
    tokenizer = Qwen2Tokenizer(
        vocab=byte_vocabulary(),
        merges=[],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_specific_special_tokens=tokens,
    )
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>", *tokens.values()]})
    tokenizer.add_tokens(list(LABELS))
    return tokenizer


def template(audio: str) -> str:
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
        "{% if c['type'] == 'audio' %}" + audio + "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def louder(part: nn.Module, times: float) -> None:
    """Scale the matrices of a random audio encoder, so that clips give answers that differ by more than rounding."""
    with torch.no_grad():
        for parameter in part.parameters():
            if parameter.dim() > 1:
                parameter.mul_(times)


def save_parts(
    folder: Path, processor_class: str, extractor: Any, tokenizer: Any, chat_template: str | None, **more: Any
) -> None:
    """Save a processor as checkpoints have it, whatever halves it has besides: its parts, and a file that names its class."""
    extractor.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": processor_class, **more}))


def save_family(
    folder: Path,
    model_class: Any,
    config: Any,
    processor_class: str,
    extractor: Any,
    tokenizer: Any,
    chat_template: str | None,
    *,
    loud: tuple[tuple[str, float], ...] = (),
    **more: Any,
) -> Path:
    """Save a random model, some of its parts so many times as `loud`, and its processor."""
    torch.manual_seed(0)
    model = model_class(config)
    for name, times in loud:
        louder(model.get_submodule(name), times)
    save_weights(folder, model)
    save_parts(folder, processor_class, extractor, tokenizer, chat_template, **more)
    return folder


def save_qwen25_omni(folder: Path) -> Path:
    """A full Qwen2.5-Omni as on the hub: a thinker with `thinker.` before its weights' names; no voice of its own."""
    tokenizer = named_tokenizer(OMNI_TOKENS)
    thinker = dict(
        audio_config=dict(WHISPER, output_dim=32, n_window=100),
        vision_config=dict(
            depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=32, fullatt_block_indexes=[0]
        ),
        text_config={
            k: v
            for k, v in decoder(
                "qwen2_5_omni_text",
                len(tokenizer),
                rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
            ).items()
            if k != "head_dim"
        },
        **omni_ids(tokenizer, "token_index"),
    )
    config = hf.Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False)
    return save_family(
        folder,
        hf.Qwen2_5OmniForConditionalGeneration,
        config,
        "Qwen2_5OmniProcessor",
        hf.WhisperFeatureExtractor(feature_size=128),
        tokenizer,
        template("<|audio_bos|><|audio|><|audio_eos|>"),
    )


def omni_ids(tokenizer: Any, suffix: str) -> dict[str, int]:
    """Return the config's ids of the named tokens; `suffix` is how this family's config calls the placeholders."""
    ids = {f"{name}_{suffix}": getattr(tokenizer, f"{name}_token_id") for name in ("audio", "image", "video")}
    for name in ("audio", "vision"):
        ids |= {f"{name}_start_token_id": getattr(tokenizer, f"{name}_bos_token_id")}
        ids |= {f"{name}_end_token_id": getattr(tokenizer, f"{name}_eos_token_id")}
    return ids


def save_qwen3_omni(folder: Path) -> Path:
    """A mixture of experts: 4 of them, 2 for each token."""
    tokenizer = named_tokenizer(OMNI_TOKENS)
    thinker = Qwen3OmniMoeThinkerConfig(
        audio_config=dict(WHISPER, output_dim=32, n_window=50, n_window_infer=400, downsample_hidden_size=16),
        vision_config=dict(
            depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=32, deepstack_visual_indexes=[0]
        ),
        text_config=decoder(
            "qwen3_omni_moe_text",
            len(tokenizer),
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2], "mrope_interleaved": True},
        ),
        **omni_ids(tokenizer, "token_id"),
    )
    config = hf.Qwen3OmniMoeConfig(thinker_config=thinker.to_dict(), enable_audio_output=False)
    return save_family(
        folder,
        hf.Qwen3OmniMoeForConditionalGeneration,
        config,
        "Qwen3OmniMoeProcessor",
        hf.WhisperFeatureExtractor(feature_size=128),
        tokenizer,
        template("<|audio_bos|><|audio|><|audio_eos|>"),
    )


def save_voxtral(folder: Path, pieces: list[bytes] | None = None, pattern: str = r"[^\s]+|\s+") -> Path:
    """With its tokenizer of mistral-common: bytes and "su", so that "sad" and "surprised" begin differently; or other pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"]
    special += ["[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"]
    special += ["[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", *(f"<SPECIAL_{i}>" for i in range(20, 24))]
    special += ["[AUDIO]", "[BEGIN_AUDIO]", "[TRANSCRIBE]"]
    pieces = pieces or [bytes([b]) for b in range(256)] + [b"su"]
    tekken = {
        "config": {
            "pattern": pattern,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": len(pieces) + len(special),
            "default_num_special_tokens": len(special),
            "version": "v7",
        },
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(p).decode(), "token_str": None} for i, p in enumerate(pieces)],
        "special_tokens": [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(special)],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }
    (folder / "tekken.json").write_text(json.dumps(tekken))
    tower = dict(
        model_type="voxtral_encoder",
        num_mel_bins=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
        hidden_size=32,
        initializer_range=0.2,
    )
    config = hf.VoxtralConfig(
        audio_config=tower, text_config=decoder("llama", len(pieces) + len(special)), audio_token_id=special.index("[AUDIO]")
    )
    return save_family(
        folder,
        hf.VoxtralForConditionalGeneration,
        config,
        "VoxtralProcessor",
        hf.WhisperFeatureExtractor(feature_size=128),
        None,
        None,
    )


def save_audio_flamingo3(folder: Path) -> Path:
    """Save a random Audio Flamingo 3 of 4 blocks, with its window of 30 s, and its processor."""
    tokenizer = byte_tokenizer(("<sound>",))
    tokenizer.add_tokens(list(LABELS))
    extractor = hf.WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    processor = hf.AudioFlamingo3Processor(extractor, tokenizer, chat_template=template("<sound>"))
    tower = dict(
        model_type="audioflamingo3_encoder",
        num_mel_bins=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_size=32,
        initializer_range=0.2,
    )
    config = hf.AudioFlamingo3Config(
        audio_config=tower, text_config=decoder("qwen2", len(tokenizer)), audio_token_id=processor.audio_token_id
    )
    return save(folder, hf.AudioFlamingo3ForConditionalGeneration(config), processor)


def granite_ears(*, read: int, **encoder: Any) -> dict[str, Any]:
    """Return the configs of a Granite's encoder, and of a projector that reads so many of its blocks."""
    return dict(
        encoder_config=dict(input_dim=160, hidden_dim=32, num_heads=2, dim_head=16, output_dim=20, **encoder),
        projector_config=dict(
            model_type="blip_2_qformer",
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            encoder_hidden_size=32 * read,
            cross_attention_frequency=1,
        ),
    )


def save_granite_speech(folder: Path) -> Path:
    """With the LoRA adapter that it hears through, beside its weights in the same folder."""
    from peft import LoraConfig

    tokenizer = named_tokenizer({"audio_token": "<|audio|>"})
    config = hf.GraniteSpeechConfig(
        text_config=decoder(
            "granite",
            len(tokenizer),
            logits_scaling=8.0,
            residual_multiplier=0.22,
            embedding_multiplier=12.0,
            attention_multiplier=0.0625,
        ),
        **granite_ears(num_layers=1, read=1),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=True,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = hf.GraniteSpeechForConditionalGeneration(config)
    louder(model.model.encoder, 10)
    louder(model.model.projector, 60)
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    save_weights(folder, model)
    extractor = hf.GraniteSpeechFeatureExtractor()
    tokenizer.chat_template = (  # text alone, in which the audio token stands for the clip
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    save_parts(folder, "GraniteSpeechProcessor", extractor, tokenizer, None, audio_token="<|audio|>")
    return folder


def save_phi4(folder: Path) -> Path:
    """With its speech adapter in the folder `speech-lora`, as its checkpoint has it."""
    from peft import LoraConfig

    tokenizer = named_tokenizer({"image_token": "<|image|>", "audio_token": "<|audio|>"})
    audio = dict(
        hidden_size=32,
        intermediate_size=32,
        num_blocks=1,
        num_attention_heads=2,
        ext_pw_out_channel=32,
        depthwise_separable_out_channel=32,
        nemo_conv_channels=32,
        audio_token_id=tokenizer.audio_token_id,
    )
    vision = dict(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_token_id=tokenizer.image_token_id,
        image_size=28,
        crop_size=28,
    )
    text = {k: v for k, v in decoder("", len(tokenizer), bos_token_id=0).items() if k not in ("model_type", "head_dim")}
    torch.manual_seed(0)
    model = hf.Phi4MultimodalForCausalLM(hf.Phi4MultimodalConfig(audio_config=audio, vision_config=vision, **text))
    save_weights(folder, model)
    model.add_adapter(LoraConfig(r=4, target_modules=["qkv_proj", "o_proj"], init_lora_weights=False))
    model.save_pretrained(folder / "speech-lora")
    save_parts(folder, "Phi4MultimodalProcessor", hf.Phi4MultimodalFeatureExtractor(), tokenizer, template("<|audio|>"))
    return folder


def save_gemma3n(folder: Path) -> Path:
    """Four residual streams, inputs of its own for every block, and 2 blocks that read the keys and values of others."""
    names = {  # image and audio token are the last two, as the vocabularies of the two towers begin there
        "turn_token": "<|im_start|>",
        "boa_token": "<start_of_audio>",
        "eoa_token": "<end_of_audio>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
        "audio_token": "<audio_soft_token>",
    }
    tokenizer = Qwen2Tokenizer(
        vocab=byte_vocabulary() | {"su": 256},  # so that "sad" and "surprised" begin differently
        merges=[("s", "u")],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_specific_special_tokens=names,
    )
    size = len(tokenizer)
    assert tokenizer.audio_token_id == size - 1 == tokenizer.image_token_id + 1
    text = dict(
        vocab_size=size + 1,
        vocab_size_per_layer_input=size - 2,
        hidden_size=32,
        hidden_size_per_layer_input=16,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        laurel_rank=8,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=4096,
        initializer_range=0.3,
        pad_token_id=0,
        max_position_embeddings=4096,
    )
    audio = dict(
        hidden_size=32,
        vocab_offset=size - 1,
        vocab_size=2,
        conf_num_attention_heads=2,
        conf_num_hidden_layers=1,
        sscp_conv_channel_size=[8, 8],
    )
    config = hf.Gemma3nConfig(
        text_config=text,
        vision_config=dict(hidden_size=32, vocab_offset=size - 2, vocab_size=1),
        audio_config=audio,
        audio_token_id=size - 1,
        image_token_id=size - 2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with without_vision_tower():
        model = hf.Gemma3nForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "correct_output_scale" in name:  # zero at birth: the streams would never meet
                parameter.fill_(1.0)
    louder(model.model.audio_tower, 10)
    save_weights(folder, model)
    save_parts(folder, "Gemma3nProcessor", hf.Gemma3nAudioFeatureExtractor(), tokenizer, template("<audio_soft_token>"))
    return folder


@contextmanager
def without_vision_tower() -> Iterator[None]:
    """Build Gemma 3n without its vision tower, which needs timm and torchvision; no clip reaches it."""
    real = modeling_gemma3n.AutoModel

    class WithoutVision:
        @staticmethod
        def from_config(config: Any, **options: Any) -> nn.Module:
            return nn.Identity() if config.model_type == "gemma3n_vision" else real.from_config(config, **options)

    with mock.patch.object(modeling_gemma3n, "AutoModel", WithoutVision):
        yield


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "qwen2_audio": save_tiny_model,
    "qwen25_omni": save_qwen25_omni,
    "qwen3_omni": save_qwen3_omni,
    "voxtral": save_voxtral,
    "audio_flamingo3": save_audio_flamingo3,
    "granite_speech": save_granite_speech,
    "phi4_multimodal": save_phi4,
    "gemma3n": save_gemma3n,
}
