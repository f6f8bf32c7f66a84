"""Teach the language model to read the states: LoRA through all its blocks, every question behind one copy of the audio.

First on texts alone, whose tokens stand where audio would: apart, between blanks, with words misheard. Then on clips, with the
upper encoder and the projector. `speaker` is asked only of clips where words and voice agree.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, ctc_loss

from common.clips.manifest import LABELS
from data.making.questions import IGNORE, QUESTIONS, Frame
from data.making.small_model.align import Aligner, save, trained_parameters
from data.making.small_model.audio import Clip, Pool, features, hear, hide
from data.making.small_model.texts import labelled, plain, vocabulary

RANK, ALPHA = 16, 32
QUESTION_NUMBER = {name: i + 1 for i, name in enumerate(QUESTIONS)}
WEIGHTS = {"transcript": 0.3, "ctc": 0.2}  # of the losses that are not 1


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


@dataclass(frozen=True)
class Packed:
    """Sequences `prefix | span | tail | tail ...`: a tail sees the prefix, the span and itself, where it would stand alone."""

    ids: torch.Tensor  # [row, pos]; 0 on the span
    target: torch.Tensor  # [row, pos]; IGNORE where nothing is asked
    question: torch.Tensor  # [row, pos]; 0 prefix and span, QUESTION_NUMBER on a tail, -1 padding
    position: torch.Tensor  # [row, pos]
    mask: torch.Tensor  # [row, 1, pos, pos]
    start: int
    span: int


def pack(asked: list[dict[str, str]], lengths: list[int], frame: Frame, tokenizer: Any) -> Packed:
    """Pack the questions {question: answer} of each row behind its span of so many tokens."""
    span, start, rows = max(lengths), len(frame.prefix), []
    for answers, length in zip(asked, lengths):
        ids = frame.prefix + [0] * span
        question = [0] * (start + length) + [-1] * (span - length)
        position, target = list(range(start + span)), [IGNORE] * len(ids)
        for name, answer in answers.items():
            said = [*tokenizer.encode(answer), tokenizer.convert_tokens_to_ids("<|im_end|>")]
            tail = frame.tails[name]
            ids += tail + said[:-1]
            target += [IGNORE] * (len(tail) - 1) + said
            question += [QUESTION_NUMBER[name]] * (len(tail) + len(said) - 1)
            position += range(start + length, start + length + len(tail) + len(said) - 1)
        rows.append((ids, target, question, position))
    size = max(len(r[0]) for r in rows)

    def column(k: int, fill: int) -> torch.Tensor:
        return torch.tensor([r[k] + [fill] * (size - len(r[k])) for r in rows])

    question = column(2, -1)
    seen = (question[:, None, :] == 0) | (question[:, None, :] == question[:, :, None])
    earlier = torch.ones(size, size, dtype=torch.bool).tril()
    mask = (earlier & seen & (question[:, None, :] >= 0)) | torch.eye(size, dtype=torch.bool)
    return Packed(column(0, 0), column(1, IGNORE), question, column(3, 0), mask[:, None], start, span)


def answer_logits(model: Any, packed: Packed, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits [answer, vocab], targets and question numbers [answer] of everything asked, with `states` as the spans."""
    lm = model.model.language_model
    embeds = lm.embed_tokens(packed.ids)
    cut = packed.start + packed.span
    embeds = torch.cat([embeds[:, : packed.start], states[:, : packed.span].to(embeds.dtype), embeds[:, cut:]], 1)
    out = lm(inputs_embeds=embeds, attention_mask=packed.mask, position_ids=packed.position, use_cache=False).last_hidden_state
    asked = packed.target != IGNORE
    logits = (out[asked] @ lm.embed_tokens.weight.T).float()
    return logits, packed.target[asked], packed.question[asked]


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
def evaluate(model: Any, extractor: Any, clips: list[Clip], frame: Frame, tokenizer: Any) -> dict[str, Any]:
    """Return [right, asked] of `words` and `voice`, what `speaker` goes with on conflict clips, the mean mass of the labels."""
    counts: dict[str, list[int]] = {"words": [0, 0], "voice": [0, 0], "speaker, congruent": [0, 0]}
    takes, mass = {"words": 0, "voice": 0, "neither": 0}, []
    for i in range(0, len(clips), 8):
        part = clips[i : i + 8]
        states = hear(model.model.audio_tower, model.model.multi_modal_projector, *features(part, extractor), lower=99)
        found = ask(model, states, [c.tokens for c in part], ["words", "voice", "speaker"], frame, tokenizer)
        for k, clip in enumerate(part):
            said = {name: labels[k] for name, (labels, _) in found.items()}
            mass += [masses[k] for _, masses in found.values()]
            for name, truth in (("words", clip.label), ("voice", clip.voice)):
                if truth:
                    counts[name][0] += said[name] == truth
                    counts[name][1] += 1
            if clip.label and clip.label == clip.voice:
                counts["speaker, congruent"][0] += said["speaker"] == clip.label
                counts["speaker, congruent"][1] += 1
            elif clip.label:
                takes["words" if said["speaker"] == clip.label else "voice" if said["speaker"] == clip.voice else "neither"] += 1
    return {**counts, "speaker, conflict": takes, "mass": round(float(np.mean(mass)), 3)}


def read(
    model: Any,
    extractor: Any,
    aligner: Aligner,
    pool: Pool,
    frame: Frame,
    *,
    steps: int,
    text_steps: int,
    lower: int,
    batch_size: int,
    seed: int,
    tests: dict[str, list[Clip]],
    checkpoint: Path,
    log: Any,
    evaluate_every: int = 100,
) -> None:
    """Train for `steps`, the first `text_steps` and one in two later ones on texts alone.

    Goes on from `checkpoint` where there is one, with the draws that an unbroken run would have.
    """
    lm, tokenizer = model.model.language_model, aligner.tokenizer
    table, lora = lm.embed_tokens.weight.data.float(), add_lora(lm)
    upper, projector = trained_parameters(model, lower)
    parameters = [*lora, *projector, *upper]
    for p in parameters:
        p.requires_grad_(True)
    aligner.requires_grad_(False)
    groups = [{"params": lora, "top": 6e-4}, {"params": projector, "top": 5e-4}, {"params": upper, "top": 1e-4}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    start, began = 0, time.time()
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        start, began = saved["step"], began - saved["seconds"]
    texts = labelled(6000, seed + 77, more=True)
    smooth = dict[str, float]()
    for step in range(start + 1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * min(1, step / 20) * min(1, (1 - step / steps) * 2 + 0.02)
        losses: dict[str, torch.Tensor] = {}
        rng = np.random.default_rng([seed, 2, step])
        if step <= text_steps or step % 2 == 0:
            part = [texts[i] for i in rng.integers(len(texts), size=batch_size)]
            states, lengths = imagined([t for t, _ in part], aligner, table, rng)
            asked = [{"words": label} for _, label in part]
        else:
            clips = pool.draw_labelled(rng, batch_size)
            mel, mask = features(clips, extractor)
            states = hear(model.model.audio_tower, model.model.multi_modal_projector, hide(mel, rng), mask, lower)
            lengths, asked = [c.tokens for c in clips], [answers(c, rng) for c in clips]
            targets = [aligner.targets(c.text) for c in clips]
            sizes = torch.tensor([len(t) for t in targets])
            scores = aligner(states).transpose(0, 1)
            losses["ctc"] = ctc_loss(scores, torch.cat(targets), torch.tensor(lengths), sizes, zero_infinity=True)
        logits, target, question = answer_logits(model, pack(asked, lengths, frame, tokenizer), states)
        each = cross_entropy(logits, target, reduction="none")
        kind = "" if "ctc" in losses else "text: "
        for name, number in QUESTION_NUMBER.items():
            if (question == number).any():
                losses[kind + name] = each[question == number].mean()
        optimizer.zero_grad()
        torch.stack([WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for name, loss in losses.items():
            smooth[name] = loss.item() if name not in smooth else 0.9 * smooth[name] + 0.1 * loss.item()
        if step % 10 == 0:
            entry = {"stage": "read", "step": step, "seconds": round(time.time() - began)}
            log(entry | {k: round(v, 2) for k, v in smooth.items()})
        if step % evaluate_every == 0 or step == steps:
            found = {name: evaluate(model, extractor, part, frame, tokenizer) for name, part in tests.items()}
            log({"stage": "read", "step": step, "tests": found})
            save(checkpoint, model, optimizer, step, seconds=time.time() - began)
