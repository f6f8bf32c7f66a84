"""A model that transformers does not know, saved as a checkpoint with code of its own: its parts have names of their own too."""

import json
import shutil
from pathlib import Path

import torch

from common.clips.manifest import LABELS
from tests.tiny_models.families import template
from tests.tiny_models.tiny import byte_tokenizer

CODE = Path(__file__).resolve().parent / "remote_code.py"


def save_remote(folder: Path) -> Path:
    """Save a random model of CODE, of 3 blocks."""
    from tests.tiny_models.remote_code import Own, OwnConfig

    tokenizer = byte_tokenizer(("<|AUDIO|>",))
    tokenizer.add_tokens(list(LABELS))
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template("<|AUDIO|>"))
    shutil.copy(CODE, folder / "remote_code.py")
    torch.manual_seed(0)
    model = Own(OwnConfig(entries=len(tokenizer), mark=tokenizer.convert_tokens_to_ids("<|AUDIO|>")))
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "OwnConfig", "AutoModel": "Own", "AutoProcessor": "OwnProcessor"}
    config["auto_map"] = {name: f"remote_code.{own}" for name, own in auto.items()}
    (folder / "config.json").write_text(json.dumps(config))
    processor = {"processor_class": "OwnProcessor", "auto_map": {"AutoProcessor": "remote_code.OwnProcessor"}}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder
