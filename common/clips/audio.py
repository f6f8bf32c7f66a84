"""Any audio file to mono float32 at the model's rate, or a clear error."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from common.errors import InputError

MIN_SECONDS = 0.1  # a shorter clip carries no emotion, and may give no audio token
SILENCE_PEAK = 1e-4  # of full scale: -80 dBFS; below it a clip has no voice to hear


def load_audio(path: Path, rate: int) -> np.ndarray:
    """Return the samples of `path` [sample] in float32 at `rate` Hz, channels averaged, resampled once (soxr, high quality).

    Raises InputError for a file that cannot be decoded, is empty, too short or silent, or holds values that are not finite.
    """
    try:
        wave, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError, TypeError) as error:  # LibsndfileError is a RuntimeError; a .raw file, a TypeError
        raise InputError(f"{path}: not readable as audio ({error})") from None
    if not len(wave):
        raise InputError(f"{path}: empty, it has no samples")
    if (seconds := len(wave) / file_rate) < MIN_SECONDS:
        raise InputError(f"{path}: too short, {seconds:.3f} s; at least {MIN_SECONDS} s are needed")
    mono = wave.mean(axis=1)
    if not np.isfinite(mono).all():
        raise InputError(f"{path}: has samples that are not finite numbers")
    if (peak := float(np.abs(mono).max())) < SILENCE_PEAK:
        raise InputError(f"{path}: silent, its peak is {peak:.1g} of full scale; at least {SILENCE_PEAK:g} is needed")
    return mono if file_rate == rate else soxr.resample(mono, file_rate, rate, quality="HQ")
