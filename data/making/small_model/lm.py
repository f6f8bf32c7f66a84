"""Train the language model, with LoRA, to answer questions about audio.

First on texts alone, whose tokens stand where audio would: apart, between blanks, with words misheard. Then on clips, with the
upper encoder and the projector. `speaker` is asked only of clips where words and voice agree.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from common.clips.manifest import LABELS
from data.making.questions import QUESTION_NUMBER, Frame, Packed, answer_states, pack
from data.making.small_model.align import Aligner, trained_parameters
from data.making.small_model.audio import Clip, Pool, features, hear, hide
from data.making.small_model.loop import Losses, train_stage
from data.making.small_model.texts import labelled, plain, vocabulary

RANK, ALPHA = 16, 32


class LoRA(nn.Module):
    """A frozen linear map plus a trained one of rank RANK (Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(RANK, base.in_features) / math.sqrt(base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + (x @ self.a.to(x.dtype).T) @ (ALPHA / RANK * self.b).to(x.dtype).T


def add_lora(lm: Any) -> list[nn.Parameter]:
    """Put a LoRA on every linear map of the blocks; return its parameters."""
    for block in lm.layers:
        for part, names in ((block.self_attn, "q_proj k_proj v_proj o_proj"), (block.mlp, "gate_proj up_proj down_proj")):
            for name in names.split():
                setattr(part, name, LoRA(getattr(part, name)))
    return [p for m in lm.modules() if isinstance(m, LoRA) for p in (m.a, m.b)]


def answer_logits(model: Any, packed: Packed, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits [answer, vocab], targets and question numbers [answer] of everything asked about `audio`."""
    states, target, question = answer_states(model, packed, audio)
    return (states @ model.model.language_model.embed_tokens.weight.T).float(), target, question


def answers(clip: Clip, rng: np.random.Generator) -> dict[str, str]:
    """Return what there is to learn from `clip`, by question: `speaker` only where words and voice agree."""
    told = {}
    if clip.voice:
        told["voice"] = clip.voice
    if clip.label:
        told["words"] = clip.label
    if clip.voice and clip.voice == clip.label:
        told["speaker"] = clip.voice
    if not told or rng.random() < 0.3:
        told["transcript"] = plain(clip.text)
    return told


def imagined(texts: list[str], aligner: Aligner, table: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, list[int]]:
    """Return spans [text, token, hidden] as the encoder might say `texts`, and their lengths.

    Each token's embedding once or twice, two to six blanks between two of them; one word in twelve is another word.
    """
    words, rows = vocabulary(), []
    blank = aligner.size * aligner.directions()[0] + aligner.mean
    for text in texts:
        heard = [w if rng.random() > 1 / 12 else words[rng.integers(len(words))] for w in plain(text).split()]
        row = [blank] * int(rng.integers(1, 5))
        for token in aligner.tokenizer.encode("".join(f" {w}" for w in heard)):
            row += [table[token]] * int(rng.integers(1, 3)) + [blank] * int(rng.integers(2, 7))
        rows.append(torch.stack(row))
    lengths = [len(r) for r in rows]
    spans = torch.stack([torch.cat([r, blank.expand(max(lengths) - len(r), -1)]) for r in rows])
    noise = torch.from_numpy(rng.standard_normal(spans.shape, dtype=np.float32))
    return (spans + 0.7 * aligner.size / spans.shape[-1] ** 0.5 * noise).detach(), lengths


@torch.no_grad()
def ask(model: Any, states: torch.Tensor, lengths: list[int], names: list[str], frame: Frame, tokenizer: Any) -> dict[str, Any]:
    """Return, by question, the label with the largest logit and the mass of the five for each row of `states`."""
    first = [tokenizer.encode(label)[0] for label in LABELS]
    packed = pack([dict.fromkeys(names, "neutral")] * len(lengths), lengths, frame, tokenizer)
    logits, target, question = answer_logits(model, packed, states)
    found = {}
    for name in names:
        mine = logits[(question == QUESTION_NUMBER[name]) & (target == first[0])]
        found[name] = [LABELS[i] for i in mine[:, first].argmax(-1).tolist()], mine.softmax(-1)[:, first].sum(-1).tolist()
    return found


@torch.no_grad()
def judged(model: Any, extractor: Any, clips: list[Clip], frame: Frame, tokenizer: Any) -> Iterator[tuple[Clip, str, float]]:
    """Yield (clip, measure, value): 1 where an answer is the label asked for, the labels' share of the probability.

    `speaker` is judged only where words and voice agree.
    """
    for i in range(0, len(clips), 8):
        part = clips[i : i + 8]
        states = hear(model.model.audio_tower, model.model.multi_modal_projector, *features(part, extractor), lower=99)
        found = ask(model, states, [c.tokens for c in part], ["words", "voice", "speaker"], frame, tokenizer)
        for k, clip in enumerate(part):
            truth = {"words": clip.label, "voice": clip.voice, "speaker": clip.label if clip.label == clip.voice else None}
            for name, (labels, masses) in found.items():
                yield clip, f"mass of the labels, {name}", masses[k]
                if truth[name]:
                    yield clip, f"{name}, congruent" if name == "speaker" else name, float(labels[k] == truth[name])


def evaluate(model: Any, extractor: Any, clips: list[Clip], frame: Frame, tokenizer: Any) -> dict[str, list[float]]:
    """Return [sum, number] of what `judged` measures."""
    sums: dict[str, list[float]] = {}
    for _, measure, value in judged(model, extractor, clips, frame, tokenizer):
        total, number = sums.get(measure, (0.0, 0))
        sums[measure] = [round(total + value, 3), number + 1]
    return sums


def read(
    model: Any,
    extractor: Any,
    aligner: Aligner,
    pool: Pool,
    frame: Frame,
    *,
    text_steps: int,
    lower: int,
    batch_size: int,
    seed: int,
    tests: dict[str, list[Clip]],
    evaluate_every: int = 100,
    **stage: Any,
) -> None:
    """Train LoRA, projector and encoder, the first `text_steps` and one in two later ones on texts alone; `stage` as in align."""
    lm, tokenizer = model.model.language_model, aligner.tokenizer
    table, lora = lm.embed_tokens.weight.data.float(), add_lora(lm)
    upper, projector = trained_parameters(model, lower)
    aligner.requires_grad_(False)
    texts = labelled(6000, seed + 77, more=True)

    def losses(step: int) -> Losses:
        found: Losses = {}
        rng = np.random.default_rng([seed, 2, step])
        if step <= text_steps or step % 2 == 0:
            part = [texts[i] for i in rng.integers(len(texts), size=batch_size)]
            states, lengths = imagined([t for t, _ in part], aligner, table, rng)
            asked, kind = [{"words": label} for _, label in part], "text: "
        else:
            clips = pool.draw_labelled(rng, batch_size)
            mel, mask = features(clips, extractor)
            states = hear(model.model.audio_tower, model.model.multi_modal_projector, hide(mel, rng), mask, lower)
            lengths, asked, kind = [c.tokens for c in clips], [answers(c, rng) for c in clips], ""
            found["ctc"] = aligner.ctc(aligner(states), clips)
        logits, target, question = answer_logits(model, pack(asked, lengths, frame, tokenizer), states)
        each = cross_entropy(logits, target, reduction="none")
        return found | {kind + q: each[question == n].mean() for q, n in QUESTION_NUMBER.items() if (question == n).any()}

    train_stage(
        "read",
        losses,
        {"model": model},
        [{"params": lora, "top": 6e-4}, {"params": projector, "top": 5e-4}, {"params": upper, "top": 1e-4}],
        weights={"transcript": 0.3, "ctc": 0.2},
        warm_up=20,
        fall=2,
        evaluate=lambda: {name: evaluate(model, extractor, part, frame, tokenizer) for name, part in tests.items()},
        evaluate_every=evaluate_every,
        **stage,
    )
