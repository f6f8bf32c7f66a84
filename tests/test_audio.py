from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.clips.audio import load_audio
from common.errors import InputError


def tone(seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def test_any_rate_and_channels_become_mono_at_the_models_rate(tmp_path: Path) -> None:
    wave = tone(1, 44_100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, 0 * wave], axis=1), 44_100, subtype="FLOAT")
    loaded = load_audio(tmp_path / "stereo.wav", 16_000)
    assert loaded.dtype == np.float32 and loaded.shape == (16_000,)
    np.testing.assert_allclose(loaded[500:-500], tone(1, 16_000)[500:-500] / 2, atol=1e-3)


def test_the_models_own_rate_is_left_alone(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", tone(0.5, 16_000).astype(np.float32), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "x.wav", 16_000), tone(0.5, 16_000).astype(np.float32))


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros(0), "empty"),
        (np.zeros(16_000), "silent"),
        (np.full(16_000, np.nan), "not finite"),
        (tone(0.05, 16_000), "too short, 0.050 s"),
    ],
)
def test_audio_that_cannot_be_used(wave: np.ndarray, message: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", wave, 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match=f"x.wav: .*{message}"):
        load_audio(tmp_path / "x.wav", 16_000)


def test_a_file_that_is_not_audio(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("hello")
    with pytest.raises(InputError, match="x.wav: not readable as audio"):
        load_audio(tmp_path / "x.wav", 16_000)
    with pytest.raises(InputError, match="gone.wav: not readable as audio"):
        load_audio(tmp_path / "gone.wav", 16_000)
