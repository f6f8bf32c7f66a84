"""A run checks itself on its own data before the work: identities that hold exactly if the code is right."""

from collections.abc import Callable, Sequence

import torch

from common.errors import CheckFailed, UnknownBlock
from common.model.encoding import EncodedClip
from common.model.load import AudioLM
from common.patching import ENGINES
from common.patching.oracle import patched_positions, rerun
from common.patching.splice import splice
from common.patching.staircase import aligned, sweep
from common.patching.tracing import own_logits, record, states_at

# Largest difference of two logits that counts as equal, relative to the largest logit.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def self_check(
    lm: AudioLM, a: EncodedClip, b: EncodedClip, engines: Sequence[str] = ENGINES
) -> tuple[str, dict[str, float | int | str]]:
    """Return the first of `engines` that gives what a rerun gives, and the largest difference of each identity on two clips.

    Raises CheckFailed where an identity is off by more than TOLERANCE. "A - B" is no identity but the measure for them: a
    check says little where its difference is not far below it.

    The oracle overwrites the span of A's run where the spans have equal length; else splice is held against the same hybrid
    read from the other side, the tail of B's run overwritten, and the others patch as many positions as both spans have.
    """
    own_a, own_b = own_logits(lm, a), own_logits(lm, b)
    scale = float(own_a.abs().max())
    trace_a, lens_a = record(lm, a)
    trace_b, _ = record(lm, b)
    figures: dict[str, float | int | str] = {"lens row L - model": largest_difference(lens_a[-1], own_a)}
    layers = range(len(lm.blocks) + 1)
    donated, onto_itself = (aligned(states_at(lm, clip, clip.span), a.span_length, "crop") for clip in (b, a))

    def by(engine: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [layer, vocab] of A patched with B and of A patched with A."""
        if engine == "splice":
            return splice(lm, trace_b, [trace_a])[0], splice(lm, trace_a, [trace_a])[0]
        return sweep(lm, engine, a, donated, layers), sweep(lm, engine, a, onto_itself, layers)

    def by_rerun(engine: str, layer: int) -> torch.Tensor:
        if engine == "splice" and a.span_length != b.span_length:
            return rerun(lm, b, layer, b.tail, trace_a.tail[layer])
        return rerun(lm, a, layer, patched_positions(a, donated), donated[layer])

    for engine in engines:
        if (patched := _attempt(by, engine)) is not None:
            oracle = [(layer, by_rerun(engine, layer)) for layer in (len(layers) // 3, 2 * len(layers) // 3)]
            figures[f"{engine} - rerun"] = max(largest_difference(patched[0][layer], logits) for layer, logits in oracle)
            if close(float(figures[f"{engine} - rerun"]), lm, scale=scale):
                break
        else:
            figures[f"{engine} - rerun"] = "does not run"
    else:
        raise CheckFailed(f"self-check: no way of patching gives what a rerun gives: {figures}")
    figures["A patched with A - A"] = largest_difference(patched[1], own_a.expand_as(patched[1]))
    figures["row L - recipient"] = largest_difference(patched[0][-1], own_a)
    if engine == "splice":
        figures["row 0 - donor"] = largest_difference(patched[0][0], own_b)
    for name in ("lens row L - model", "A patched with A - A", "row L - recipient", "row 0 - donor"):
        if name in figures:
            check_equal(name, float(figures[name]), lm, scale=scale)
    for clip in (a, b):
        if (states := audio_states(lm, clip)) != clip.span_length:
            raise CheckFailed(f"self-check: the audio span has {clip.span_length} tokens but {states} audio states")
        figures["positions that the audio moves"] = _moved_by_audio(lm, clip)
    if lm.adapters:
        figures["LoRA on - off"] = _effect_of_adapters(lm, a, own_a)
    figures["A - B, for comparison"] = largest_difference(own_a, own_b)
    oracle_side = "tail of B" if engine == "splice" and a.span_length != b.span_length else "span of A"
    return engine, figures | {
        "tolerance": tolerance(lm, scale=scale),
        "largest logit": scale,
        "blocks with keys of their own": len(trace_a.keys),
        "audio tokens": a.span_length,
        "oracle": oracle_side,
    }


def _attempt(by: Callable[[str], tuple[torch.Tensor, torch.Tensor]], engine: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return what an engine gives, or None where the decoder is not built for it (other shapes, missing keys)."""
    try:
        return by(engine)
    except (torch.OutOfMemoryError, UnknownBlock):
        raise
    except (RuntimeError, IndexError, KeyError, ValueError, AttributeError, TypeError):
        return None


def tolerance(lm: AudioLM, *, scale: float) -> float:
    """Return the largest difference of two logits that counts as equal where the largest logit is `scale`."""
    return TOLERANCE[lm.dtype] * scale


def close(difference: float, lm: AudioLM, *, scale: float) -> bool:
    return difference <= tolerance(lm, scale=scale)  # False for nan


def check_equal(name: str, difference: float, lm: AudioLM, *, scale: float) -> None:
    """Raise CheckFailed where `difference` of two logits is beyond the tolerance of the model's dtype."""
    if not close(difference, lm, scale=scale):
        raise CheckFailed(f"self-check: {name} is {difference:.3g}, above {tolerance(lm, scale=scale):.3g} for {lm.dtype}")


def check_finite(logits: torch.Tensor, name: str) -> None:
    """Raise CheckFailed where a logit of the clip or pair `name` is not a number: its largest would be no answer."""
    if not logits.isfinite().all():
        raise CheckFailed(
            f"{name}: the model's logits are not all finite numbers (float16 overflows; try --dtype bfloat16 or float32)"
        )


def audio_states(lm: AudioLM, clip: EncodedClip) -> int:
    """Count the span's positions at h_0 that hold something other than the placeholder's own embedding."""
    placeholder = lm.model.get_input_embeddings()(torch.tensor(lm.audio_token_id, device=lm.device))
    entered = states_at(lm, clip, clip.span)[0]  # [(stream,) 1, pos, d_model]
    return int((entered != placeholder.to(entered)).any(dim=-1).flatten(0, -2).any(dim=0).sum())


def _moved_by_audio(lm: AudioLM, clip: EncodedClip) -> int:
    """Count the positions of h_0 that change when the audio features are zeroed; raise CheckFailed unless all are in the span."""
    deaf = {name: torch.zeros_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in clip.inputs.items()}
    heard, unheard = (states_at(lm, EncodedClip(inputs, clip.span), slice(None))[0] for inputs in (clip.inputs, deaf))
    moved = (heard != unheard).any(dim=-1).flatten(0, -2).any(dim=0).nonzero().flatten().tolist()  # [pos]
    if not moved or moved[0] < clip.span.start or moved[-1] >= clip.span.stop:
        raise CheckFailed(f"self-check: the audio moves {len(moved)} positions of the input, and they are not those of the span")
    return len(moved)


def _effect_of_adapters(lm: AudioLM, clip: EncodedClip, own: torch.Tensor) -> float:
    lm.model.disable_adapters()
    without = own_logits(lm, clip)
    lm.model.enable_adapters()
    if not (effect := largest_difference(own, without)):
        raise CheckFailed(f"self-check: the LoRA adapter {', '.join(lm.adapters)} that the model hears through changes nothing")
    return effect


def largest_difference(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors of logits."""
    return float((x.float() - y.float()).abs().max())
