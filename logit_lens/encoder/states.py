"""Record a clip's log-mel spectrum and its states in the audio encoder, in the forward in which the decoder's are recorded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from common.clips.manifest import Sample
from common.compute.session import Session
from common.model.encoding import EncodedClip, load_clip
from common.tracing.encoder import encoder_blocks, encoder_means, share_heard
from logit_lens.fitted.state_file import STAGES, States

BINS = 80


@dataclass(frozen=True)
class StageStates:
    """A file of [clip, 1, stage, width]: means of the log-mel spectrum and of e_0..e_N, with zeros up to the largest width."""

    file: States
    blocks: Sequence[nn.Module]

    @contextmanager
    def recorded(self, session: Session, sample: Sample, clip: EncodedClip) -> Iterator[None]:
        """Write the stages of the clip's run within."""
        wave = load_clip(session.lm, sample.audio)
        with encoder_means(self.blocks, share_heard(session.lm, clip, len(wave))) as means:
            yield
        _, stages, width = self.file.shape
        states = np.zeros((1, stages, width), dtype=np.float32)
        for stage, mean in enumerate([log_mel(wave, session.lm.rate), *(mean.cpu().numpy() for mean in means)]):
            states[0, stage, : len(mean)] = mean
        self.file.write(sample.sample_id, states)


def open_stages(session: Session, clips: tuple[str, ...], out: Path) -> tuple[StageStates, StageStates]:
    """Return the files in `out` for the stages of `clips`, of the model as trained and with random weights."""
    blocks = encoder_blocks(session.lm, session.first)
    with encoder_means(blocks, 1.0) as means:
        session.lm.model(**session.first.inputs, use_cache=False)
    shape = (1, 1 + len(means), max([BINS, *map(len, means)]))
    trained = StageStates(States(out / STAGES[0], clips, shape), blocks)
    return trained, replace(trained, file=replace(trained.file, path=out / STAGES[1]))


def log_mel(wave: np.ndarray, rate: int) -> np.ndarray:
    """Return the mean log-mel spectrum [BINS] of a wave: windows of 25 ms every 10 ms, up to 8 kHz."""
    frame, hop = rate // 40, rate // 100
    highest = min(8000.0, rate / 2)
    filters = mel_filter_bank(frame // 2 + 1, BINS, 0.0, highest, rate, norm="slaney", mel_scale="slaney")
    options: Any = {"power": 2.0, "mel_filters": filters, "log_mel": "log10"}
    return spectrogram(wave, window_function(frame, "hann"), frame_length=frame, hop_length=hop, **options).mean(axis=1)
