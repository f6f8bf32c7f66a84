"""Train the encoder to output word embeddings of the language model, with CTC.

The classes are the tokens of the vocabulary and a blank; a class's weight is its frozen embedding, so that what has been
heard already stands where the language model looks for it.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, ctc_loss, normalize

from common.clips.manifest import LABELS
from common.stats.word_errors import word_errors
from data.making.small_model.audio import Clip, Pool, features, hear, hide
from data.making.small_model.loop import Losses, train_stage
from data.making.small_model.texts import plain, vocabulary

TOGETHER = 6  # batches drawn at a time
SHARES = {"joined": 0.25, "joe": 0.1, "flite": 0.3, "told": 0.35}


class Aligner(nn.Module):
    """Scores of the classes for states, and two heads that training alone needs: the blank and the voice."""

    def __init__(self, table: torch.Tensor, tokenizer: Any) -> None:
        super().__init__()
        self.ids = sorted({i for word in vocabulary() for i in tokenizer.encode(f" {word}")})
        self.index = {token: k + 1 for k, token in enumerate(self.ids)}
        self.mean = table.mean(0)
        rows = table[self.ids] - self.mean
        self.size = rows.norm(dim=1).mean().item()
        self.classes = normalize(rows, dim=1)
        self.blank = nn.Parameter(normalize(torch.randn(table.shape[1]), dim=0))
        self.sharpness = nn.Parameter(torch.tensor(math.log(14.0 / self.size)))
        self.bias = nn.Parameter(torch.zeros(1))
        self.voice = nn.Linear(table.shape[1], len(LABELS))
        self.tokenizer = tokenizer

    def targets(self, text: str) -> torch.Tensor:
        return torch.tensor([self.index[i] for i in self.tokenizer.encode(plain(text))])

    def directions(self) -> torch.Tensor:
        return torch.cat([normalize(self.blank, dim=0)[None], self.classes])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return log probabilities [..., class] of states [..., hidden]; class 0 is the blank."""
        scores = self.sharpness.exp() * ((states - self.mean) @ self.directions().T)
        return torch.cat([scores[..., :1] + self.bias, scores[..., 1:]], -1).log_softmax(-1)

    def ctc(self, scores: torch.Tensor, clips: list[Clip]) -> torch.Tensor:
        """Return the CTC loss of the clips' texts from their scores [clip, token, class]."""
        targets = [self.targets(c.text) for c in clips]
        tokens, sizes = torch.tensor([c.tokens for c in clips]), torch.tensor([len(t) for t in targets])
        return ctc_loss(scores.transpose(0, 1), torch.cat(targets), tokens, sizes, zero_infinity=True)

    def heard(self, states: torch.Tensor) -> str:
        """Return the text of the best class at every state [token, hidden]: repeats and blanks go."""
        best = torch.unique_consecutive(self(states).argmax(-1))
        return self.tokenizer.decode([self.ids[int(k) - 1] for k in best if k > 0])


@torch.no_grad()
def word_error_rate(model: Any, extractor: Any, aligner: Aligner, clips: list[Clip]) -> dict[str, Any]:
    """Return counts over `clips`: errors and words of the greedy reading, right and asked of the voice head."""
    errors = words = right = asked = 0
    for i in range(0, len(clips), 16):
        part = clips[i : i + 16]
        states = hear(model.model.audio_tower, model.model.multi_modal_projector, *features(part, extractor), lower=99)
        guess = aligner.voice(pooled(states, part, aligner)).argmax(-1)
        for row, clip, voice in zip(states, part, guess):
            e, n = word_errors(aligner.heard(row[: clip.tokens]), clip.text)
            errors, words = errors + e, words + n
            if clip.voice:
                right, asked = right + (LABELS[int(voice)] == clip.voice), asked + 1
    return {"wer": round(errors / words, 3), "errors": errors, "words": words, "voice": [right, asked]}


def pooled(states: torch.Tensor, clips: list[Clip], aligner: Aligner) -> torch.Tensor:
    """Return the mean of each clip's states, less the embeddings' mean [clip, hidden]."""
    real = (torch.arange(states.shape[1])[None] < torch.tensor([c.tokens for c in clips])[:, None])[..., None]
    return ((states - aligner.mean) * real).sum(1) / real.sum(1)


def trained_parameters(model: Any, lower: int) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return what is trained of the encoder (layers from `lower` on and the last norm) and of the projector."""
    tower = model.model.audio_tower
    upper = [
        p
        for name, p in tower.named_parameters()
        if name.startswith("layer_norm") or (name.startswith("layers.") and int(name.split(".")[1]) >= lower)
    ]
    return upper, list(model.model.multi_modal_projector.parameters())


def batches(pool: Pool, rng: np.random.Generator, size: int) -> list[list[Clip]]:
    """Return TOGETHER batches in random order, each of clips of about the same length: padding costs as much as speech."""
    clips = sorted((pool.draw(rng, SHARES) for _ in range(size * TOGETHER)), key=lambda c: c.frames)
    return [clips[i * size : (i + 1) * size] for i in rng.permutation(TOGETHER)]


def align(
    model: Any,
    extractor: Any,
    aligner: Aligner,
    pool: Pool,
    *,
    lower: int,
    batch_size: int,
    seed: int,
    tests: dict[str, list[Clip]],
    evaluate_every: int = 250,
    **stage: Any,
) -> None:
    """Train the encoder from layer `lower` on, the projector and the aligner; `stage` is what train_stage takes besides."""
    upper, projector = trained_parameters(model, lower)
    own = list(aligner.parameters())
    waiting: dict[int, list[list[Clip]]] = {}

    def losses(step: int) -> Losses:
        group, turn = divmod(step - 1, TOGETHER)
        if group not in waiting:
            waiting.clear()
            waiting[group] = batches(pool, np.random.default_rng([seed, 0, group]), batch_size)
        clips, rng = waiting[group][turn], np.random.default_rng([seed, 1, step])
        mel, mask = features(clips, extractor)
        states = hear(model.model.audio_tower, model.model.multi_modal_projector, hide(mel, rng), mask, lower)
        scores = aligner(states)
        # the best class's embedding is where the state should stand, not only its direction
        goal = (aligner.size * aligner.directions().detach())[scores.detach().argmax(-1)] + aligner.mean
        pull = ((states - goal) ** 2).sum(-1).mean() / aligner.size**2
        found = {"ctc": aligner.ctc(scores, clips), "pull": pull}
        spoken = [i for i, c in enumerate(clips) if c.voice]
        if spoken:
            truth = torch.tensor([LABELS.index(clips[i].voice or "") for i in spoken])
            found["voice"] = cross_entropy(aligner.voice(pooled(states, clips, aligner)[spoken]), truth)
        return found

    train_stage(
        "align",
        losses,
        {"model": model, "aligner": aligner},
        [{"params": upper, "top": 5e-4}, {"params": [*projector, *own], "top": 2e-3}],
        weights={"pull": 0.15, "voice": 0.4},
        warm_up=60,
        fall=3,
        evaluate=lambda: {name: word_error_rate(model, extractor, aligner, part) for name, part in tests.items()},
        evaluate_every=evaluate_every,
        **stage,
    )
