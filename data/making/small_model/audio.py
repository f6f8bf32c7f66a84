"""Draw and augment training clips, and compute their features.

`joe`'s renderings are also cut at the ends of words and joined to texts that nobody has rendered. Every clip is jittered:
resampled (pitch, formants and pace together), tilted, at a random level, with a little noise.
"""

from dataclasses import dataclass

import numpy as np
import soxr
import torch
from torch import nn
from transformers import WhisperFeatureExtractor

from data.making.questions import audio_tokens
from data.making.small_model.base import WINDOW_S
from data.making.small_model.speech import RATE, Told, Utterance
from data.making.small_model.texts import near_demo, words_of

FADE = 160  # samples over which two pieces of speech cross
LONGEST_S = 4.2  # of a training clip: attention and memory grow with the longest of a batch


@dataclass(frozen=True)
class Clip:
    """A clip to train or test on: float32 `wave` [sample] at 16 kHz and what there is to say of it."""

    wave: np.ndarray
    text: str
    label: str | None = None
    voice: str | None = None  # the label of the prosody; None where nobody put one in
    source: str = ""

    @property
    def frames(self) -> int:
        """The number of mel frames, as WhisperFeatureExtractor's mask counts them."""
        return -(-len(self.wave) // 160)

    @property
    def tokens(self) -> int:
        return audio_tokens(self.frames)


def join(utterances: list[Utterance], rng: np.random.Generator, words: int) -> tuple[np.ndarray, str]:
    """Cut pieces of one to four words out of `utterances` and join them until there are `words`: (wave, text)."""
    wave, text = np.zeros(0, np.float32), []
    while len(text) < words:
        u = utterances[rng.integers(len(utterances))]
        ends = (0, *(u.ends or ()))
        first = int(rng.integers(len(ends) - 1))
        last = min(first + int(rng.integers(1, 5)), len(ends) - 1)
        piece = u.wave[max(0, ends[first] - FADE // 2) : ends[last] + FADE // 2].astype(np.float32)
        text += words_of(u.text)[first:last]
        if len(wave) > FADE < len(piece):
            ramp = np.linspace(0, 1, FADE, dtype=np.float32)
            seam = wave[-FADE:] * (1 - ramp) + piece[:FADE] * ramp
            wave = np.concatenate([wave[:-FADE], seam, piece[FADE:]])
        else:
            wave = np.concatenate([wave, piece])
    return wave, " ".join(text)


def jitter(wave: np.ndarray, rng: np.random.Generator, low: float = 0.85, high: float = 1.25) -> np.ndarray:
    """Return `wave` resampled by a random factor, tilted, with noise, at a random level from -50 to -20 dBFS."""
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    wave = soxr.resample(wave.astype(np.float32), RATE * factor, RATE, quality="QQ")
    slant = np.float32(rng.uniform(-0.3, 0.6))
    wave = np.append(wave[:1], wave[1:] - slant * wave[:-1])
    wave = wave / np.sqrt(np.mean(wave**2) + 1e-9)
    wave = wave + np.float32(10 ** rng.uniform(-3, -1.3)) * rng.standard_normal(len(wave), dtype=np.float32)
    return wave * np.float32(10 ** (rng.uniform(-50, -20) / 20))


class Pool:
    """Everything rendered so far, to draw training clips from; `add` takes more while the training goes on."""

    def __init__(self) -> None:
        self.whole: dict[str, list[Utterance]] = {"joe": [], "flite": []}
        self.cut: list[Utterance] = []
        self.told: list[Told] = []

    def add(self, rendered: list[Utterance] | list[Told]) -> None:
        for r in rendered:
            if isinstance(r, Told):
                self.told.append(r)
                continue
            self.whole["joe" if r.voice == "joe" else "flite"].append(r)
            if r.ends:
                self.cut.append(r)

    def draw(self, rng: np.random.Generator, shares: dict[str, float]) -> Clip:
        """Return a clip of a kind drawn by `shares`: joined, joe, flite (jittered), or told (as WORLD made it)."""
        while True:
            kinds = [k for k in shares if {"joined": self.cut, "told": self.told}.get(k, self.whole.get(k))]
            weights = np.array([shares[k] for k in kinds])
            kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
            if kind == "told":
                t = self.told[rng.integers(len(self.told))]
                clip = Clip(t.wave.astype(np.float32) / 32768, t.text, t.label, t.prosody_label, kind)
            elif kind == "joined":
                wave, text = join(self.cut, rng, int(rng.integers(5, 10)))
                clip = Clip(jitter(wave, rng), text, source=kind)
            else:
                u = self.whole[kind][rng.integers(len(self.whole[kind]))]
                clip = Clip(jitter(u.wave, rng), u.text, u.label, source=kind)
            if len(clip.wave) < LONGEST_S * RATE and not near_demo(clip.text):
                return clip

    def draw_labelled(self, rng: np.random.Generator, count: int) -> list[Clip]:
        """Return `count` clips, two in three told, the others whole renderings whose words have a label."""
        found: list[Clip] = []
        while len(found) < count:
            clip = self.draw(rng, {"told": 2, "joe": 1, "flite": 2})
            if clip.label or (clip.voice and rng.random() < 0.3):
                found.append(clip)
        return found


def features(clips: list[Clip], extractor: WhisperFeatureExtractor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-mel features [clip, mel, frame], as long as the longest needs, and which positions are real [clip, 1, 1, pos].

    The class itself pads every clip to its whole window and masks what is not real: the states are the same.
    """
    longest = max(c.frames for c in clips)
    longest = min(longest + 4 + -longest % 4, WINDOW_S * 100)
    waves = np.zeros((len(clips), longest * 160), np.float32)
    for row, clip in zip(waves, clips):
        row[: len(clip.wave)] = clip.wave[: row.size]
    out = torch.from_numpy(np.asarray(extractor._torch_extract_fbank_features(waves, "cpu")))
    real = torch.tensor([(c.frames - 1) // 2 + 1 for c in clips])
    return out, (torch.arange(longest // 2)[None] < real[:, None])[:, None, None]


def hide(mel: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return `mel` [clip, mel, frame] with two bands of mels and two stretches of frames set to the clip's mean (SpecAugment)."""
    mel = mel.clone()
    for row in mel:
        mean = row.mean()
        for _ in range(2):
            size, at = int(rng.integers(0, 11)), int(rng.integers(0, 70))
            row[at : at + size] = mean
            size, at = int(rng.integers(0, 13)), int(rng.integers(0, max(row.shape[1] - 13, 1)))
            row[:, at : at + size] = mean
    return mel


def hear(tower: nn.Module, projector: nn.Module, mel: torch.Tensor, mask: torch.Tensor, lower: int) -> torch.Tensor:
    """Return the states that stand for the audio [clip, token, hidden]; only layers from `lower` on get a gradient.

    Training computes in bfloat16, evaluation (without gradients) in the weights' own precision.
    """
    training = torch.is_grad_enabled()
    with torch.autocast("cpu", torch.bfloat16, enabled=training):
        with torch.no_grad():
            h = nn.functional.gelu(tower.conv1(mel))
            h = nn.functional.gelu(tower.conv2(h)).permute(0, 2, 1)
            h = h + tower.embed_positions.weight[: h.shape[1]]
        for i, layer in enumerate(tower.layers):
            with torch.set_grad_enabled(training and i >= lower):
                h = layer(h, mask)
        h = tower.layer_norm(tower.avg_pooler(h.permute(0, 2, 1)).permute(0, 2, 1))
        return projector(h).float()
