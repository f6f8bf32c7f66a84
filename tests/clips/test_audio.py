import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.clips.audio import BadClip, load_audio, read_clip
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
        (20_000 * tone(1, 16_000), "not in the scale of audio: its peak is 1e\\+04"),
    ],
)
def test_audio_that_cannot_be_used(wave: np.ndarray, message: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", wave, 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match=f"x.wav: .*{message}"):
        load_audio(tmp_path / "x.wav", 16_000)


@pytest.mark.parametrize("other", [-1.0, -0.9])
def test_channels_that_cancel_each_other_are_refused(other: float, tmp_path: Path) -> None:
    """What is left of them is no voice, although it need not be silence."""
    voice = tone(1, 16_000)
    soundfile.write(tmp_path / "x.wav", np.stack([voice, other * voice], axis=1), 16_000)
    with pytest.raises(BadClip, match="has channels that cancel each other"):
        read_clip(tmp_path / "x.wav")


@pytest.mark.parametrize("channels", [2, 6, 24])
def test_unlike_channels_are_averaged(channels: int, tmp_path: Path) -> None:
    noises = np.random.default_rng(0).uniform(-0.5, 0.5, (16_000, channels))
    alone = noises * (np.arange(channels) == 0)
    for name, wave in (("noises", noises), ("alone", alone), ("silent", 0 * noises)):
        soundfile.write(tmp_path / f"{name}.wav", wave, 16_000, subtype="FLOAT")
    for name in ("noises", "alone"):
        assert read_clip(tmp_path / f"{name}.wav").channels == channels
    with pytest.raises(BadClip, match="silent"):
        read_clip(tmp_path / "silent.wav")


def test_a_file_that_is_not_audio(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("hello")
    with pytest.raises(InputError, match="x.wav: not readable as audio"):
        load_audio(tmp_path / "x.wav", 16_000)
    with pytest.raises(InputError, match="gone.wav: not readable as audio"):
        load_audio(tmp_path / "gone.wav", 16_000)


KINDS = [
    *(("wav", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM")),
    *(("flac", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")),
    *(("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")),
]


def write(path: Path, wave: np.ndarray, rate: int, subtype: str) -> Path:
    soundfile.write(path, wave, rate, format=path.suffix[1:].upper(), subtype=subtype)
    return path


@pytest.mark.parametrize(("suffix", "subtype"), KINDS)
def test_every_kind_of_file_is_heard_and_missed_when_its_end_is_cut(suffix: str, subtype: str, tmp_path: Path) -> None:
    wave = tone(2, 48_000)
    path = write(tmp_path / f"x.{suffix}", np.stack([wave, wave], axis=1), 48_000, subtype)
    loaded = load_audio(path, 16_000)
    assert abs(len(loaded) - 32_000) <= 1500 and abs(np.abs(loaded[2000:-2000]).max() - 0.5) < 0.05
    spectrum = np.abs(np.fft.rfft(loaded[:16_000]))
    assert spectrum.argmax() == 440
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(BadClip, match=r"x\.\w+: (truncated|not readable as audio)"):
            load_audio(path, 16_000)


def changed(path: Path, places: dict[int, bytes]) -> Path:
    data = bytearray(path.read_bytes())
    for at, content in places.items():
        data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


OPEN = {  # what writers that cannot go back leave where a length should be: ffmpeg, sox and others to a pipe
    **{f"wav {n:x}": ("wav", {4: n.to_bytes(4, "little"), 40: n.to_bytes(4, "little")}) for n in (0, 0x7FFFF000, 0x7FFFFFFF)},
    "wav ffffffff": ("wav", {4: b"\xff" * 4, 40: b"\xff" * 4}),
    "wav, less its header": ("wav", {4: b"\xff" * 4, 40: (0xFFFFFFFF - 36).to_bytes(4, "little")}),
    "rf64 0": ("rf64", {20: bytes(24)}),
    "rf64 ffff": ("rf64", {20: b"\xff" * 24}),
    "flac": ("flac", {12: bytes(6), 22: bytes(20)}),  # the sizes of frames, the samples (their upper bits: below), the MD5
}


@pytest.mark.parametrize("case", OPEN)
def test_a_length_that_is_left_open_is_what_is_there(case: str, tmp_path: Path) -> None:
    suffix, places = OPEN[case]
    path = write(tmp_path / f"x.{suffix}", tone(1.5, 16_000), 16_000, "PCM_16")
    whole = read_clip(path).wave
    if suffix == "flac":
        places = places | {21: bytes([path.read_bytes()[21] & 0xF0])}
    np.testing.assert_array_equal(read_clip(changed(path, places)).wave, whole)
    assert len(whole) == 24_000
    if suffix == "flac":  # what lacks the end of its last frame lacks samples, whatever its header says
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(BadClip, match="not readable as audio"):
            read_clip(path)


def test_a_length_that_is_claimed_must_be_there(tmp_path: Path) -> None:
    for suffix, where, size in (("wav", 40, 4), ("rf64", 28, 8)):
        path = write(tmp_path / f"x.{suffix}", tone(1, 16_000), 16_000, "PCM_16")
        with pytest.raises(BadClip, match="truncated: its header claims 32002 bytes of samples, 32000 are there"):
            read_clip(changed(path, {where: (32_002).to_bytes(size, "little")}))
    path = write(tmp_path / "x.flac", tone(1, 16_000), 16_000, "PCM_16")
    with pytest.raises(BadClip):
        read_clip(changed(path, {21: bytes([path.read_bytes()[21] | 15]), 22: b"\xff" * 4}))


def test_an_mp3_of_one_bit_rate_needs_no_length_in_its_header(tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    soundfile.write(path, tone(2, 24_000), 24_000, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    whole, picture = path.read_bytes(), b"ID3\x04\0\0" + bytes([0, 12, 53, 64]) + bytes(203_456)
    size = next(n for n in range(100, 2000) if whole[n : n + 2] == whole[:2])  # the first frame tells the length
    path.write_bytes(picture + whole)
    assert len(read_clip(path).wave) == 48_000
    for content in (whole[size:], picture + whole[size:]):
        path.write_bytes(content)
        assert 48_000 <= len(read_clip(path).wave) < 51_000
        path.write_bytes(content[:-20])
        with pytest.raises(BadClip, match="truncated: its last frame is cut"):
            read_clip(path)


def test_an_mp3_that_may_be_longer_than_is_read_is_refused(tmp_path: Path) -> None:
    """Its decoder stops at the length that it guesses from the size of the file."""
    path = write(tmp_path / "x.mp3", tone(2, 16_000), 16_000, "MPEG_LAYER_III")
    data = path.read_bytes()
    start = max(data.find(b"Xing"), data.find(b"Info"))
    path.write_bytes(data[:start] + b"\0" * 120 + data[start + 120 :])
    with pytest.raises(BadClip, match="truncated: it has no length in its header"):
        read_clip(path)


def test_what_is_no_file_of_its_own_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    for name in ("pipe.wav", "folder.wav", "loop.wav"):
        with pytest.raises(BadClip, match="no such file"):
            load_audio(tmp_path / name, 16_000)


def test_other_containers_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x.aiff", tone(1, 16_000), 16_000, "PCM_16")
    with pytest.raises(BadClip, match=r"its format is AIFF\); readable: wav, flac, ogg, opus, mp3"):
        load_audio(path, 16_000)


def test_trim_takes_silence_from_both_ends_only(tmp_path: Path) -> None:
    rate, hiss = 16_000, np.random.default_rng(0).uniform(-1e-3, 1e-3, 5 * 16_000)
    wave = hiss.copy()
    wave[1 * rate : 2 * rate] += tone(1, rate)
    wave[3 * rate : int(3.5 * rate)] += tone(0.5, rate)  # a pause of a second before it
    path = write(tmp_path / "x.wav", wave, rate, "PCM_16")
    trimmed = load_audio(path, rate, trim=True)
    assert abs(len(trimmed) / rate - (2.5 + 0.2)) < 0.03  # from .9 to 3.6 s
    np.testing.assert_array_equal(trimmed, load_audio(path, rate)[(start := int(0.9 * rate)) : start + len(trimmed)])
    clean = write(tmp_path / "y.wav", tone(1, rate), rate, "PCM_16")
    assert len(load_audio(clean, rate, trim=True)) == rate
    click = np.zeros(rate)
    click[5000] = 0.9
    assert len(load_audio(write(tmp_path / "z.wav", click, rate, "PCM_16"), rate, trim=True)) >= 0.2 * rate
