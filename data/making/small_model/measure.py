"""Measure the assembled small model and write data/small_model/measures.csv.

Hearing: word error rate of the greedy reading of the states that stand for the audio. Understanding: the three questions.
Float32; the intervals resample texts (people, where all say the same texts). Writes data/small_model/measures.csv.
"""

import argparse
import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from tqdm import tqdm
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from common.paths import given_path  # noqa: E402
from common.stats.word_errors import word_errors  # noqa: E402
from data.making.questions import frame_of  # noqa: E402
from data.making.small_model.align import Aligner  # noqa: E402
from data.making.small_model.audio import Clip, features, hear  # noqa: E402
from data.making.small_model.lm import judged  # noqa: E402

PARTS = ROOT / "data" / "small_model"
RAVDESS = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry", "08": "surprised"}
RAVDESS_TEXTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
Row = tuple[str, str, str, float, int]  # clips, measure, unit, value, how many clips or words it is of


def human_clips(folder: Path) -> list[Clip]:
    """Return RAVDESS' clips of the five labels below `folder`, without the silence at the ends; `source` is the actor."""
    clips = []
    for path in sorted(folder.rglob("*.wav")):
        if not (parts := re.fullmatch(r"\d\d-\d\d-(\d\d)-\d\d-(\d\d)-\d\d-(\d\d)", path.stem)) or parts[1] not in RAVDESS:
            continue
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wave = soxr.resample(wave.mean(1), rate, 16_000)
        loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
        wave = wave[max(0, loud[0] - 1600) : loud[-1] + 1600]
        clips.append(Clip(wave, RAVDESS_TEXTS[parts[2]], None, RAVDESS[parts[1]], f"actor {parts[3]}"))
    return clips


def rows_of(name: str, clips: list[Clip], model: Any, processor: Any, aligner: Aligner) -> Iterator[Row]:
    """Yield what each clip adds to each measure of the set `name`."""
    extractor, frame = processor.feature_extractor, frame_of(processor)
    for clip in tqdm(clips, desc=name):
        with torch.no_grad():
            states = hear(model.model.audio_tower, model.model.multi_modal_projector, *features([clip], extractor), lower=0)
        errors, words = word_errors(aligner.heard(states[0, : clip.tokens]), clip.text)
        yield name, "word errors", unit_of(clip), errors, words
    for clip, measure, value in judged(model, extractor, clips, frame, processor.tokenizer):
        yield name, measure, unit_of(clip), value, 1


def unit_of(clip: Clip) -> str:
    """Return what intervals draw: a text, or the person where all say the same texts."""
    return clip.source if clip.source.startswith("actor") else clip.text


def summary(rows: list[Row], seed: int = 0) -> Iterator[tuple[str, str, float, float, float, float, int, int]]:
    """Yield (clips, measure, value, low, high, counted, total, units): 95 % from drawing units with replacement."""
    rng = np.random.default_rng(seed)
    for clips, measure in dict.fromkeys((r[0], r[1]) for r in rows):
        mine = [r for r in rows if (r[0], r[1]) == (clips, measure)]
        units, index = np.unique([r[2] for r in mine], return_inverse=True)
        value, total = (np.bincount(index, [float(r[k]) for r in mine]) for k in (3, 4))
        draws = rng.integers(len(units), size=(4000, len(units)))
        low, high = np.quantile(value[draws].sum(1) / total[draws].sum(1), (0.025, 0.975))
        yield clips, measure, value.sum() / total.sum(), low, high, value.sum(), int(total.sum()), len(units)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=given_path, default=PARTS / "assembled", help="what data/assemble.py wrote")
    parser.add_argument("--parts", type=given_path, default=PARTS, help="folder of reader.pt, and for measures.csv")
    parser.add_argument("--fresh", type=int, default=150, help="clips to render of held-out texts (needs the voices)")
    parser.add_argument("--seed", type=int, default=90001, help="of the fresh clips; not one that training used")
    parser.add_argument("--demo", type=int, default=500, help="clips of the demo")
    parser.add_argument("--ravdess", type=given_path, help="folder of RAVDESS' speech")
    args = parser.parse_args()
    if not (args.parts / "reader.pt").exists():
        parser.error(f"--parts {args.parts}: no reader.pt there; train.py writes it beside the parts that it trains")
    from data.making.small_model.train import demo_clips, held_out_clips

    model = Qwen2AudioForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).eval().requires_grad_(False)
    processor = Qwen2AudioProcessor.from_pretrained(args.model)
    aligner = Aligner(model.model.language_model.embed_tokens.weight.data, processor.tokenizer)
    aligner.load_state_dict(torch.load(args.parts / "reader.pt"))
    sets = {"demo": demo_clips(args.demo, 0)}
    if args.fresh:
        sets["fresh, held-out texts"] = held_out_clips(args.fresh, args.seed)
    if args.ravdess:
        sets["RAVDESS"] = human_clips(args.ravdess)
    rows = [row for name, clips in sets.items() for row in rows_of(name, clips, model, processor, aligner)]
    with open(args.parts / "measures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("clips", "measure", "value", "low", "high", "counted", "of", "units"))
        for clips, measure, value, low, high, counted, total, units in summary(rows):
            writer.writerow((clips, measure, f"{value:.4f}", f"{low:.4f}", f"{high:.4f}", f"{counted:g}", total, units))
            print(f"{clips:24} {measure:38} {value:.3f} [{low:.3f}, {high:.3f}]  {counted:g}/{total} ({units} units)")


if __name__ == "__main__":
    main()
