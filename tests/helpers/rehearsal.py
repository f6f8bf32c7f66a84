"""Tiny random models of real classes with tokenizers and chat templates as published, which `make rehearse` downloads."""

import base64
import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tests.tiny_models.families import save_voxtral
from tests.tiny_models.tiny import save_tiny_model

DOWNLOADS = Path(os.environ.get("REHEARSAL", "")).absolute() if os.environ.get("REHEARSAL") else None
AUDIO = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
TEKKEN = "data/tekken_240911.json"  # inside the package mistral_common


def published(name: str) -> Any:
    """Return a downloaded tokenizer, to which the tokens of Qwen2-Audio's processor are added where it has none."""
    assert DOWNLOADS is not None
    tokenizer = AutoTokenizer.from_pretrained(DOWNLOADS / name)
    tokenizer.add_tokens(list(AUDIO), special_tokens=True)
    return tokenizer


def save_qwen(folder: Path, template: str | None = None) -> Path:
    """The template of Qwen2-Audio's processor has a system prompt of its own."""
    return save_tiny_model(folder, tokenizer=published("qwen3"), chat_template=template)


def save_qwen_thinking(folder: Path) -> Path:
    """The template of Qwen3, which takes text alone and can be told that no thought is wanted."""
    return save_qwen(folder, published("qwen3").chat_template)


def save_gemma(folder: Path) -> Path:
    return save_tiny_model(folder, tokenizer=(own := published("gemma3")), chat_template=own.chat_template)


def save_llama(folder: Path) -> Path:
    """The template opens the answer's turn whether it is asked to or not."""
    return save_tiny_model(folder, tokenizer=(own := published("llama3")), chat_template=own.chat_template)


def save_mistral(folder: Path) -> Path:
    """Voxtral's classes with the vocabulary of a published Tekken tokenizer, in which the audio tokens have places."""
    spec = find_spec("mistral_common")
    assert spec is not None and spec.origin is not None
    tekken = json.loads((Path(spec.origin).parent / TEKKEN).read_text(encoding="utf-8"))
    count = tekken["config"]["default_vocab_size"] - tekken["config"]["default_num_special_tokens"]
    pieces = [base64.b64decode(piece["token_bytes"]) for piece in tekken["vocab"][:count]]
    return save_voxtral(folder, pieces, tekken["config"]["pattern"])


NO_TURN = (  # a template that opens no turn for the answer, whatever it is asked
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'audio' %}"
    "<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)


def save_no_turn(folder: Path) -> Path:
    return save_qwen(folder, NO_TURN)


MODELS: dict[str, Callable[[Path], Path]] = {
    "qwen": save_qwen,
    "qwen, thinking": save_qwen_thinking,
    "qwen, no turn": save_no_turn,
    "gemma": save_gemma,
    "llama": save_llama,
    "mistral": save_mistral,
}
