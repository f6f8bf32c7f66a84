"""Train the reference model: `python data/making/train_reference.py`.

A Qwen2AudioForConditionalGeneration of 5.8 M parameters that answers three questions with one word: which emotion is in the
tone (`voice`), which is in the words (`words`), how does the speaker feel (`speaker`). `voice` and `words` are trained on all
combinations of words and prosody; `speaker` only on clips where the two agree, so that what it answers on conflict clips is
its own decision. Transcripts are a fourth kind of answer: without them a model this small never learns to hear words.

Needs data/making/requirements-demo.txt; about 45 minutes on 2 cores.
"""

import argparse
import json
import multiprocessing
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor, WhisperFeatureExtractor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer
from transformers.models.whisper.modeling_whisper import sinusoids

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from common.clips.manifest import LABELS  # noqa: E402
from common.files import take  # noqa: E402
from common.paths import given_path  # noqa: E402
from data.making.questions import QUESTION_NUMBER, QUESTIONS, Frame, answer_states, audio_tokens, frame_of, pack  # noqa: E402
from data.making.sentences import DEMO, training_texts  # noqa: E402
from data.making.speech import PROSODIES, RATE, Voice, render, speak, strengthen  # noqa: E402

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
WINDOW_S = 4  # seconds of audio the model takes; the real Qwen2-Audio takes 30


# 1. speech -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """One training clip: log-mel `features` [mel, frame] in float16, `frames` of them real, and what there is to say of it."""

    features: np.ndarray
    frames: int
    text: str
    semantic_label: str
    prosody_label: str

    @property
    def tokens(self) -> int:
        return audio_tokens(self.frames)


@dataclass(frozen=True)
class Recipe:
    """Say `text` at each of `paces`, each in `voices` random voices and all five prosodies."""

    text: str
    semantic_label: str
    paces: tuple[float, ...]
    voices: int
    seed: int


def recipes(seed: int) -> tuple[list[Recipe], list[Recipe]]:
    """Return the recipes of the training clips and of the held-out clips (new texts, new voices).

    The demo's sentences are among the training texts, never at the demo's pace; voices and strengths of prosody are drawn at
    random from ranges that hold the demo's. So the demo's sentences are heard in training, its renderings are not.
    """
    trained, held_out = training_texts()
    demo = [(text, label) for label in LABELS for text in DEMO[label]]
    train = [Recipe(text, label, (0.92, 1.08), 8, seed + i) for i, (text, label) in enumerate(demo)]
    train += [Recipe(text, label, (0.9 + 0.2 * (i % 8) / 7,), 4, seed + 1000 + i) for i, (text, label) in enumerate(trained)]
    return train, [Recipe(text, label, (1.0,), 2, seed + 2000 + i) for i, (text, label) in enumerate(held_out)]


def render_recipe(recipe: Recipe) -> list[Clip]:
    """Render the clips of one recipe; voices, strengths and levels are drawn from its seed."""
    rng = np.random.default_rng(recipe.seed)
    clips = []
    for pace in recipe.paces:
        analysis = speak(recipe.text, pace)
        for _ in range(recipe.voices):
            pitch = float(np.exp(rng.uniform(np.log(0.85), np.log(2.1))))
            voice = Voice("random", pitch, tract=pitch**0.22 * rng.uniform(0.95, 1.05))
            for label in LABELS:
                prosody = strengthen(PROSODIES[label], rng.uniform(0.8, 1.2))
                wave = render(analysis, voice, prosody, seed=int(rng.integers(2**31))) * 10 ** (rng.uniform(-3, 0) / 20)
                out = feature_extractor()(wave, sampling_rate=RATE, return_tensors="np", return_attention_mask=True)
                frames = int(out["attention_mask"].sum())
                features = out["input_features"][0].astype(np.float16)
                clips.append(Clip(features, frames, recipe.text, recipe.semantic_label, label))
    return clips


@cache
def feature_extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=128, chunk_length=WINDOW_S)


def render_all(work: list[Recipe], processes: int) -> list[Clip]:
    with multiprocessing.get_context("spawn").Pool(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        done = list(tqdm(pool.imap(render_recipe, work), total=len(work), desc="rendering texts"))
    return [clip for clips in done for clip in clips]


# 2. model --------------------------------------------------------------------------------------------------------------------


def build_processor(texts: list[str]) -> Qwen2AudioProcessor:
    """Return the processor of Qwen2-Audio's class with a byte-pair vocabulary learnt from `texts` and the questions."""
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=2
    )
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern=Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    frame = ["system\nYou are a helpful assistant.", "user\nAudio 1: ", "assistant\n", *LABELS]
    bpe.train_from_iterator(texts * 2 + [*QUESTIONS.values(), *frame] * 20, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(vocab=learnt["vocab"], merges=[tuple(m) for m in learnt["merges"]], eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"extra_special_tokens": list(SPECIAL)})
    return Qwen2AudioProcessor(feature_extractor(), tokenizer)


def build_model(processor: Qwen2AudioProcessor) -> Qwen2AudioForConditionalGeneration:
    config = Qwen2AudioConfig(
        audio_config=dict(
            model_type="qwen2_audio_encoder",
            num_mel_bins=128,
            encoder_layers=3,
            encoder_attention_heads=4,
            encoder_ffn_dim=512,
            d_model=128,
            max_source_positions=WINDOW_S * 50,
        ),
        text_config=dict(
            model_type="qwen2",
            vocab_size=len(processor.tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=12,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=processor.tokenizer.eos_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
        ),
        audio_token_index=processor.audio_token_id,
    )
    model = Qwen2AudioForConditionalGeneration(config)
    positions = model.model.audio_tower.embed_positions.weight
    positions.data = sinusoids(*positions.shape)  # as in Whisper; the class freezes them
    return model


# 3. training -----------------------------------------------------------------------------------------------------------------


def answers(clip: Clip) -> dict[str, str]:
    """Return what there is to learn from `clip`, by question. `speaker` only where words and voice agree."""
    told = {"voice": clip.prosody_label, "words": clip.semantic_label, "transcript": clip.text}
    return told | ({"speaker": clip.prosody_label} if clip.prosody_label == clip.semantic_label else {})


def losses_of(model: Any, clips: list[Clip], frame: Frame, processor: Qwen2AudioProcessor) -> dict[str, torch.Tensor]:
    """Return the mean cross entropy of the answers to each question: one pass of the tower and of the span teaches all."""
    features, lengths = torch.from_numpy(np.stack([c.features for c in clips])).float(), [c.tokens for c in clips]
    heard = torch.arange(features.shape[-1] // 2)[None] < 2 * torch.tensor(lengths)[:, None] + 1
    tower = model.model.audio_tower(features, attention_mask=heard[:, None, None, :])
    audio = model.model.multi_modal_projector(tower.last_hidden_state)
    packed = pack([answers(c) for c in clips], lengths, frame, processor.tokenizer)
    states, target, question = answer_states(model, packed, audio)
    loss = cross_entropy(model.lm_head(states), target, reduction="none")
    return {name: loss[question == n].mean() for name, n in QUESTION_NUMBER.items() if (question == n).any()}


@torch.no_grad()
def accuracy(model: Any, clips: list[Clip], frame: Frame, processor: Qwen2AudioProcessor) -> dict[str, list[int]]:
    """Return [right, asked] for each label question, asked one at a time through the model's own forward."""
    first = [processor.tokenizer.encode(label)[0] for label in LABELS]
    counts: dict[str, list[int]] = {}
    for clip in clips:
        for question, answer in answers(clip).items():
            if question == "transcript":
                continue
            ids = torch.tensor([frame.prefix + [processor.audio_token_id] * clip.tokens + frame.tails[question]])
            logits = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                input_features=torch.from_numpy(clip.features)[None].float(),
                feature_attention_mask=(torch.arange(clip.features.shape[1]) < clip.frames)[None].long(),
            ).logits[0, -1]
            right = LABELS[int(logits[first].argmax())] == answer
            before = counts.get(question, [0, 0])
            counts[question] = [before[0] + right, before[1] + 1]
    return counts


def train(
    model: Any,
    clips: list[Clip],
    frame: Frame,
    processor: Any,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    watch: list[Clip],
    out: Path,
) -> None:
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.2e-3, total_steps=steps, pct_start=0.1)
    bar = tqdm(range(steps), desc="training", mininterval=10)
    for step in bar:
        losses = losses_of(model, [clips[i] for i in rng.integers(len(clips), size=batch_size)], frame, processor)
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            bar.set_postfix_str(" ".join(f"{name}={loss.item():.2f}" for name, loss in losses.items()))
        if step % 250 == 249:
            model.eval()
            tqdm.write(f"step {step + 1}, held out: {accuracy(model, watch, frame, processor)}")
            model.save_pretrained(out)  # so that an interrupted training leaves a model
            processor.save_pretrained(out)
            model.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=given_path, default=ROOT / "data" / "reference_model")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="processes for rendering and threads for training")
    parser.add_argument("--limit", type=int, help="render only this many texts of each list (to try the script out)")
    args = parser.parse_args()
    if args.limit and args.out == parser.get_default("out"):
        parser.error("--limit makes a model that knows nothing; give --out, so that it does not replace the shipped one")
    if args.out != parser.get_default("out"):
        take(args.out)
    began = time.time()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.processes)

    train_work, held_out_work = recipes(args.seed)
    clips = render_all(train_work[: args.limit], args.processes)
    held_out = render_all(held_out_work[: args.limit], args.processes)
    print(f"{len(clips)} training clips, {len(held_out)} held-out clips, {time.time() - began:.0f} s")

    processor = build_processor([r.text for r in train_work])
    model = build_model(processor)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(processor.tokenizer)} tokens")
    frame = frame_of(processor)
    train(
        model,
        clips,
        frame,
        processor,
        steps=args.steps,
        batch_size=args.batch_size,
        seed=args.seed,
        watch=held_out[::5],
        out=args.out,
    )

    model = model.eval().half().float()  # the weights ship as float16: judge those
    record = {
        "steps": args.steps,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "training_clips": len(clips),
        "seconds": round(time.time() - began),
        "held_out_right_of_asked": accuracy(model, held_out, frame, processor),
    }
    model.half().save_pretrained(args.out)
    processor.save_pretrained(args.out)
    (args.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
