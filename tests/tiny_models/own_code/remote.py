"""Models that transformers does not know, saved as checkpoints with code and names of their own."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from common.clips.manifest import LABELS
from tests.tiny_models.families import template
from tests.tiny_models.tiny import byte_tokenizer, decoder, save_weights

CODE = Path(__file__).resolve().parent


def save_remote(folder: Path) -> Path:
    """Save a random model of 3 blocks, with an audio token that its processor names."""
    from tests.tiny_models.own_code.remote_code import Own, OwnConfig

    tokenizer = _tokenizer(folder, "<|AUDIO|>")
    (folder / "chat_template.jinja").write_text(template("<|AUDIO|>"))
    mark = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    return _save(folder, Own, OwnConfig(entries=len(tokenizer), mark=mark), "remote_code")


def save_two_streams(folder: Path, *, features: bool = True) -> Path:
    """Save a random model in the shape of Kimi-Audio; without `features` it hears its tokens of audio alone."""
    from tests.tiny_models.own_code.two_streams_code import CODES, TwoStreams, TwoStreamsConfig

    tokenizer = _tokenizer(folder, *(f"<|{name}|>" for name in ("blank", "user", "assistant", "media", "/media", "end")))
    blank = tokenizer.convert_tokens_to_ids("<|blank|>")
    config = TwoStreamsConfig(entries=len(tokenizer) + CODES, blank=blank, features=features)
    return _save(folder, TwoStreams, config, "two_streams_code", "remote_code")


def save_one_dict(folder: Path) -> Path:
    """Save a random model in the shape of MiniCPM-o."""
    from tests.tiny_models.own_code.one_dict_code import OneDict, OneDictConfig

    tokenizer = _tokenizer(folder, "<|audio_start|>", "<|audio_end|>")
    settings = {name: value for name, value in decoder("qwen2", len(tokenizer)).items() if name != "model_type"}
    return _save(folder, OneDict, OneDictConfig(**settings), "one_dict_code")


def _tokenizer(folder: Path, *special: str) -> Any:
    tokenizer = byte_tokenizer(special)
    tokenizer.add_tokens(list(LABELS))
    tokenizer.save_pretrained(folder)
    return tokenizer


def _save(folder: Path, model: Any, config: Any, *code: str) -> Path:
    """Save a random model of a class, and its `code`: the module that it is in, and others that this one imports."""
    for module in code:
        shutil.copy(CODE / f"{module}.py", folder)
    torch.manual_seed(0)
    save_weights(folder, model(config))
    name = model.__name__
    settings = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": f"{name}Config", "AutoModel": name, "AutoProcessor": f"{name}Processor"}
    settings["auto_map"] = {kind: f"{code[0]}.{own}" for kind, own in auto.items()}
    (folder / "config.json").write_text(json.dumps(settings))
    processor = {"processor_class": auto["AutoProcessor"], "auto_map": {"AutoProcessor": settings["auto_map"]["AutoProcessor"]}}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder
