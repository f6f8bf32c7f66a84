"""Load a clip as mono float32 at the model's rate, or refuse it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from common.clips.lengths import closed_ogg, missing_of_mp3, missing_of_riff, with_its_length
from common.errors import InputError

MIN_SECONDS = 0.1  # a shorter clip carries no emotion, and may give no audio token
MAX_SECONDS = 3600.0  # longer than any model hears; a file of hours is not read to the end to find that out
SILENCE_PEAK = 1e-4  # of full scale: -80 dBFS; below it a clip has no voice to hear
LOUDEST_PEAK = 16.0  # of full scale: more is not a loud clip, but floating-point samples in the scale of integers
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_CANCELLED = 0.02  # of the power that an average of unlike channels has: less is left where one is the other upside down
_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
_FRAME = 0.02  # seconds; silence is told in frames of this length
_TRIM_BELOW = 0.01  # of the loudest frame: -40 dB
_TRIM_MARGIN = 0.1  # seconds left at each end: a voice fades out below any threshold
_BLOCK = 1 << 20  # frames read at a time: a header may claim any number of them


class BadClip(InputError):
    """A clip that cannot be used; `reason` is the same for all clips with the same fault, `details` are this one's."""

    def __init__(self, path: Path, reason: str, details: str = "") -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}{details}")


@dataclass(frozen=True)
class Clip:
    """A clip as its file has it: samples [sample] in float32, channels averaged, at the file's own `rate` in Hz."""

    wave: np.ndarray
    rate: int
    channels: int
    format: str

    @property
    def seconds(self) -> float:
        return len(self.wave) / self.rate

    @property
    def level(self) -> float:
        """Root mean square in dB of full scale."""
        return float(10 * np.log10(np.mean(self.wave.astype(np.float64) ** 2) + 1e-20))


def load_audio(path: Path, rate: int, *, trim: bool = False, level: float | None = None) -> np.ndarray:
    """Return the samples of `path` [sample] in float32 at `rate` Hz, channels averaged, resampled once (soxr, high quality).

    `trim` takes away silence at both ends, `level` brings the clip to so many dB of full scale. Raises BadClip, an InputError,
    as `read_clip` does.
    """
    clip = read_clip(path, trim=trim)
    wave = clip.wave if clip.rate == rate else soxr.resample(clip.wave, clip.rate, rate, quality="HQ")
    return wave if level is None else at_level(wave, level)


def read_clip(path: Path, *, trim: bool = False) -> Clip:
    """Read a clip at its own rate.

    Raises BadClip for a file that is not there, cannot be decoded, is truncated, empty, too short, too long or silent, or holds
    channels that cancel each other, or values that are not finite or not in the scale of audio.
    """
    if not path.is_file():  # a folder; a pipe would be waited for
        raise BadClip(path, "not readable as audio", " (no such file)")
    try:
        with soundfile.SoundFile(with_its_length(path)) as file:
            if file.format not in _FORMATS:  # the end of others may be missing without their decoder telling
                raise TypeError(f"its format is {file.format}")
            rate, channels, kind = file.samplerate, file.channels, f"{file.format} {file.subtype}"
            most = int(MAX_SECONDS * rate)
            blocks, read, power = [], 0, 0.0
            while read <= most and len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1))
                power += float(np.square(block, dtype=np.float64).mean(axis=1).sum())
                read += len(block)
            claimed = file.frames
    except (OSError, RuntimeError, TypeError) as error:  # LibsndfileError is a RuntimeError; a .raw file, a TypeError
        allowed = ", ".join(s[1:] for s in SUFFIXES)
        raise BadClip(path, "not readable as audio", f" ({error}); readable: {allowed}") from None
    if read > most:
        raise BadClip(path, "too long", f", over {MAX_SECONDS:.0f} s")
    if missing := _missing(path, kind, claimed, read):
        raise BadClip(path, "truncated", f": {missing}")
    if not read:
        raise BadClip(path, "empty", ", it has no samples")
    wave = np.concatenate(blocks)
    if not np.isfinite(wave).all():
        raise BadClip(path, "has samples that are not finite numbers")
    if np.square(wave, dtype=np.float64).sum() * channels < _CANCELLED * power:
        raise BadClip(path, "has channels that cancel each other", ": one is the other upside down; keep one of them")
    if (peak := float(np.abs(wave).max())) < SILENCE_PEAK:
        raise BadClip(path, "silent", f", its peak is {peak:.1g} of full scale; at least {SILENCE_PEAK:g} is needed")
    if peak > LOUDEST_PEAK:
        raise BadClip(path, "not in the scale of audio", f": its peak is {peak:.4g}, full scale is 1")
    if trim:
        wave = trimmed(wave, rate)
    if (seconds := len(wave) / rate) < MIN_SECONDS:
        raise BadClip(path, "too short", f", {seconds:.3f} s; at least {MIN_SECONDS} s are needed")
    return Clip(wave, rate, channels, kind)


def at_level(wave: np.ndarray, level: float) -> np.ndarray:
    """Return `wave` [sample] at a root mean square of `level` dB of full scale, by gain alone; its peaks may pass full scale."""
    own = np.sqrt(np.mean(wave.astype(np.float64) ** 2))
    return (wave * (10 ** (level / 20) / own)).astype(np.float32)


def trimmed(wave: np.ndarray, rate: int) -> np.ndarray:
    """Return `wave` [sample] without the silence at its ends: frames 40 dB below the loudest, less 0.1 s beside the rest."""
    frame = max(1, round(_FRAME * rate))
    power = np.add.reduceat(wave.astype(np.float64) ** 2, np.arange(0, len(wave), frame))
    loud = np.flatnonzero(power > power.max() * _TRIM_BELOW**2)
    margin = round(_TRIM_MARGIN * rate)
    return wave[max(0, loud[0] * frame - margin) : (loud[-1] + 1) * frame + margin]


def _missing(path: Path, kind: str, claimed: int, read: int) -> str:
    """Say what shows that the end of a file is missing, where its decoder would go on without it; "" if nothing does."""
    if kind.startswith("OGG"):
        return "" if closed_ogg(path) else "its last page is missing"
    if kind.startswith(("WAV", "RF64")):
        return missing_of_riff(path)
    if kind.startswith("MP3"):
        return missing_of_mp3(path, claimed, read)
    return f"its header claims {claimed} samples, {read} are there" if claimed > read else ""
