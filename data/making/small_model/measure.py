"""Measure the assembled small model: `python data/making/small_model/measure.py` on the demo, on fresh clips and on human ones.

Hearing: word error rate of the greedy reading of the states that stand for the audio. Understanding: the three questions.
Transcript: the language model's own, against the same question with another clip's audio and with none. Float32; the
intervals resample texts (people, where all say the same texts). Writes data/small_model/measures.csv.
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

from common.clips.manifest import LABELS  # noqa: E402
from common.paths import given_path  # noqa: E402
from data.making.questions import Frame, frame_of  # noqa: E402
from data.making.small_model.align import Aligner, word_errors  # noqa: E402
from data.making.small_model.audio import Clip, features, hear  # noqa: E402
from data.making.small_model.lm import IGNORE, answer_logits, ask, pack  # noqa: E402
from data.making.small_model.texts import plain  # noqa: E402

PARTS = ROOT / "data" / "small_model"
QUESTIONS = ["words", "voice", "speaker"]
RAVDESS = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry", "08": "surprised"}
RAVDESS_TEXTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
Row = tuple[str, str, str, float, int, str]  # clips, measure, unit, value of the unit's clips summed, clips or words, note


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


def rows_of(name: str, clips: list[Clip], model: Any, processor: Any, aligner: Aligner, frame: Frame) -> Iterator[Row]:
    """Yield what each clip adds to each measure of the set `name`."""
    tower, projector, tokenizer = model.model.audio_tower, model.model.multi_modal_projector, processor.tokenizer
    with torch.no_grad():
        for i in tqdm(range(0, len(clips), 8), desc=name):
            part = clips[i : i + 8]
            states = hear(tower, projector, *features(part, processor.feature_extractor), lower=0)
            found = ask(model, states, [c.tokens for c in part], QUESTIONS, frame, tokenizer)
            for k, clip in enumerate(part):
                unit = clip.source if clip.source.startswith("actor") else clip.text
                errors, words = word_errors(aligner.heard(states[k, : clip.tokens]), clip.text)
                yield name, "word errors", unit, errors, words, ""
                said = {q: labels[k] for q, (labels, _) in found.items()}
                for q, (_, masses) in found.items():
                    yield name, f"mass of the labels, {q}", unit, masses[k], 1, ""
                if clip.label:
                    yield name, "words", unit, said["words"] == clip.label, 1, clip.label
                yield name, "voice", unit, said["voice"] == clip.voice, 1, clip.voice or ""
                if clip.label and clip.label == clip.voice:
                    yield name, "speaker, congruent", unit, said["speaker"] == clip.label, 1, ""
                elif clip.label:
                    yield name, "speaker with the words, conflict", unit, said["speaker"] == clip.label, 1, ""
                    yield name, "speaker with the voice, conflict", unit, said["speaker"] == clip.voice, 1, ""


def transcript_rows(name: str, clips: list[Clip], model: Any, processor: Any, frame: Frame) -> Iterator[Row]:
    """Yield how many tokens of each text the model finds right, one by one: with its audio, with another's, with none."""
    tower, projector, tokenizer = model.model.audio_tower, model.model.multi_modal_projector, processor.tokenizer
    with torch.no_grad():
        for i in tqdm(range(0, len(clips), 8), desc=f"{name}, transcripts"):
            part = clips[i : i + 8]
            others = [next(o for o in [*clips[j:], *clips] if o.text != clips[j].text) for j in range(i, i + len(part))]
            for way, heard in (("its audio", part), ("another clip's audio", others), ("no audio", None)):
                lengths = [c.tokens for c in heard] if heard else [0] * len(part)
                states = torch.zeros(len(part), 0, model.config.text_config.hidden_size)
                if heard:
                    states = hear(tower, projector, *features(heard, processor.feature_extractor), lower=0)
                packed = pack([{"transcript": plain(c.text)} for c in part], lengths, frame, tokenizer)
                logits, target, _ = answer_logits(model, packed, states)
                right = logits.argmax(-1) == target
                for clip, mine in zip(part, right.split((packed.target != IGNORE).sum(1).tolist())):
                    unit = clip.source if clip.source.startswith("actor") else clip.text
                    yield name, f"transcript tokens, {way}", unit, int(mine[:-1].sum()), len(mine) - 1, ""


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


def difference_from_class(model: Any, processor: Any, clip: Clip, frame: Frame) -> float:
    """Return the largest difference of the five label logits between the packed way here and the class's own forward."""
    prompt = processor.tokenizer.decode(frame.prefix) + processor.audio_token + processor.tokenizer.decode(frame.tails["words"])
    batch = processor(text=prompt, audio=[clip.wave], sampling_rate=16_000, return_tensors="pt")
    first = [processor.tokenizer.encode(label)[0] for label in LABELS]
    with torch.no_grad():
        own = model(**batch).logits[0, -1, first]
        states = hear(
            model.model.audio_tower, model.model.multi_modal_projector, *features([clip], processor.feature_extractor), lower=0
        )
        logits, target, _ = answer_logits(model, pack([{"words": "neutral"}], [clip.tokens], frame, processor.tokenizer), states)
    return float((logits[target == first[0]][0, first] - own).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=given_path, default=PARTS / "assembled", help="what data/assemble.py wrote")
    parser.add_argument("--parts", type=given_path, default=PARTS, help="folder of reader.pt, and for measures.csv")
    parser.add_argument("--fresh", type=int, default=150, help="clips to render of held-out texts (needs the voices)")
    parser.add_argument("--seed", type=int, default=90001, help="of the fresh clips; not one that training used")
    parser.add_argument("--demo", type=int, default=500, help="clips of the demo")
    parser.add_argument("--transcripts", type=int, default=100, help="clips of each set for the transcripts")
    parser.add_argument("--ravdess", type=given_path, help="folder of RAVDESS' speech")
    args = parser.parse_args()
    if not (args.parts / "reader.pt").exists():
        parser.error(f"--parts {args.parts}: no reader.pt there; train.py writes it beside the parts that it trains")
    from data.making.small_model.train import demo_clips, held_out_clips

    model = Qwen2AudioForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).eval().requires_grad_(False)
    processor = Qwen2AudioProcessor.from_pretrained(args.model)
    aligner = Aligner(model.model.language_model.embed_tokens.weight.data, processor.tokenizer)
    aligner.load_state_dict(torch.load(args.parts / "reader.pt"))
    frame = frame_of(processor)
    sets = {"demo": demo_clips(args.demo, 0)}
    if args.fresh:
        sets["fresh, held-out texts"] = held_out_clips(args.fresh, args.seed)
    if args.ravdess:
        sets["RAVDESS"] = human_clips(args.ravdess)
    print(f"packed against the class's own forward: {difference_from_class(model, processor, sets['demo'][0], frame):.1e}")
    rows = [row for name, clips in sets.items() for row in rows_of(name, clips, model, processor, aligner, frame)]
    for name, clips in sets.items():
        rows += transcript_rows(name, clips[:: -(-len(clips) // args.transcripts)], model, processor, frame)
    with open(args.parts / "measures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("clips", "measure", "value", "low", "high", "counted", "of", "units"))
        for clips, measure, value, low, high, counted, total, units in summary(rows):
            writer.writerow((clips, measure, f"{value:.4f}", f"{low:.4f}", f"{high:.4f}", f"{counted:g}", total, units))
            print(f"{clips:24} {measure:38} {value:.3f} [{low:.3f}, {high:.3f}]  {counted:g}/{total} ({units} units)")


if __name__ == "__main__":
    main()
