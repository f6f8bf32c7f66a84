"""How fast? The shapes of two real models: seconds a clip and a pair, memory, and how long the seed study would take."""

import gc
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from activation_patching.span.rows import MAX_ROWS
from common.model.device import choose_device, choose_dtype
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.patching.splice import splice
from common.tracing.trace import Trace, lens, record
from tests.bench.measure import peak_memory, reset_memory, timed
from tests.bench.subject import LARGE, OMNI, SMALL, Shape, build_model, make_clips

SHAPES = {"Qwen2-Audio-7B": LARGE, "Qwen2.5-Omni-3B": OMNI}
TOKENS = (11, 22, 33, 44, 55)  # stand for the first tokens of the labels

_held: dict[str, AudioLM] = {}  # one at a time: two would not fit 24 GB
LENGTHS = (3, 30)  # seconds of a clip
STUDY = "seed study"  # 36 blocks, 197 clips, all its pairs
STUDY_CLIPS, STUDY_SECONDS = 197, 3
# Clips spread evenly over the 20 pairs of different labels: 3 of the 20 hold donors of a clip for each of the two kinds.
STUDY_PAIRS = 2 * STUDY_CLIPS * round(STUDY_CLIPS * 3 / 20)


def cases(*, small: bool) -> list[str]:
    lengths = LENGTHS[:1] if small else LENGTHS
    return [*(f"{name}, {seconds} s" for name in SHAPES for seconds in lengths), STUDY]


def measure(case: str, *, small: bool) -> dict[str, Any]:
    if case == STUDY:
        return study(model_of("Qwen2.5-Omni-3B", small=small), donors=1 if small else 8, each=2 if small else 12)
    name, _, length = case.removesuffix(" s").rpartition(", ")
    lm = model_of(name, small=small)
    return times(lm, seconds=1, rounds=1, usual=2) if small else times(lm, seconds=int(length), rounds=5, usual=pairs_at_once(lm))


def typical(call: Callable[[], Any], rounds: int) -> float:
    """Return the median seconds of a call after a first one that is not timed."""
    call()
    return statistics.median(timed(call)[0] for _ in range(rounds))


def times(lm: AudioLM, *, seconds: int, rounds: int, usual: int) -> dict[str, Any]:
    """Time one clip and its pairs; `usual` of them share a pass in the scripts."""
    clip, *others = make_clips(lm, 4, seconds=seconds)
    weights = reset_memory(lm.device)
    clip_times = {
        "features on the CPU, s a clip": typical(lambda: features(seconds), rounds),
        "bare forward, s": typical(lambda: bare(lm, clip), rounds),
        "recorded, s a clip": typical(lambda: record(lm, clip, TOKENS), rounds),
        "lens, s a clip": typical(lambda: lens(lm, clip, TOKENS), rounds),
    }
    donor = record(lm, clip, TOKENS)[0]
    recipients = [record(lm, other, TOKENS)[0].recipient() for other in others]
    stored = donor.to("cpu")
    moves = {
        "recording, MB": donor.nbytes / 1e6,
        "to main memory, s": typical(lambda: donor.to("cpu"), rounds),
        "and back, s": typical(lambda: stored.to(lm.device), rounds),
    }
    by_number = {n: pass_cost(lm, donor, recipients, n, rounds=rounds) for n in (1, usual, 4 * usual)}
    pair, peak = by_number[usual] or (None, None)
    return {
        **clip_times,
        "pairs at once": usual,
        "patched at all layers, s a pair": pair,
        "peak memory, GB": peak,
        "of it weights, GB": weights,
        **moves,
        "s a pair, by pairs at once": {n: cost and cost[0] for n, cost in by_number.items()},
        "peak GB, by pairs at once": {n: cost and cost[1] for n, cost in by_number.items()},
    }


extractor = cache(lambda: WhisperFeatureExtractor(feature_size=128))


def features(seconds: int) -> Any:
    """Compute the features that every clip needs first, as the two models' processors do: on the CPU."""
    return extractor()(np.zeros(16_000 * seconds, dtype=np.float32), sampling_rate=16_000, return_tensors="pt")


@torch.inference_mode()
def bare(lm: AudioLM, clip: EncodedClip) -> torch.Tensor:
    return lm.model(**clip.inputs, use_cache=False).logits


def pass_cost(lm: AudioLM, donor: Trace, recipients: list[Trace], batch_size: int, *, rounds: int) -> tuple[float, float] | None:
    """Return seconds a pair and the peak of GB in use, of passes of so many pairs; None where the memory does not do."""
    chosen = [recipients[i % len(recipients)] for i in range(batch_size)]
    reset_memory(lm.device)
    try:
        return typical(lambda: splice(lm, donor, chosen, TOKENS), rounds) / batch_size, peak_memory(lm.device)
    except torch.OutOfMemoryError:
        pass
    torch.cuda.empty_cache()  # outside the except: the error holds on to the tensors of the pass
    return None


def study(lm: AudioLM, *, donors: int, each: int) -> dict[str, Any]:
    """Time a share of the seed study's work, as the scripts do it, and scale it to all of it."""
    clips = make_clips(lm, each + 1, seconds=STUDY_SECONDS)
    reading, _ = timed(lambda: [lens(lm, clip, TOKENS)[1].cpu() for clip in clips])
    recording, traces = timed(lambda: [record(lm, clip, TOKENS)[0].to("cpu") for clip in clips])
    batch_size = pairs_at_once(lm)

    def patch() -> None:
        for n in range(donors):
            trace = traces[n % len(traces)].to(lm.device)
            others = [t.recipient() for t in traces[1:]]
            for i in range(0, each, batch_size):
                splice(lm, trace, others[i : i + batch_size], TOKENS).cpu()

    patching, _ = timed(patch)
    scale = STUDY_CLIPS / len(clips)
    parts = {
        "features, twice a clip": 2 * STUDY_CLIPS * timed(lambda: features(STUDY_SECONDS))[0],
        "lens": reading * scale,
        "recording": recording * scale,
        "patching": patching * STUDY_PAIRS / (donors * each),
    }
    return {
        "clips": STUDY_CLIPS,
        "pairs": STUDY_PAIRS,
        "blocks": len(lm.blocks),
        "measured on": f"{len(clips)} clips and {donors * each} pairs, clips of {STUDY_SECONDS} s",
        **{f"{name}, s": seconds for name, seconds in parts.items()},
        "all of it, minutes": sum(parts.values()) / 60,
    }


def model_of(name: str, *, small: bool) -> AudioLM:
    """Return the model of a name of SHAPES, in the dtype that the scripts take on this device; `small`: tiny, of its class."""
    if name not in _held:
        _held.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        device = choose_device("auto")
        _held[name] = build_model(shape_of(name, small=small), device=device, dtype=choose_dtype("auto", device))
    return _held[name]


def shape_of(name: str, *, small: bool) -> Shape:
    return replace(SMALL, omni=SHAPES[name].omni) if small else SHAPES[name]


def pairs_at_once(lm: AudioLM) -> int:
    """Return how many recipients share a pass in the scripts."""
    return max(1, MAX_ROWS // len(lm.layers))
