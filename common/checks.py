"""A run checks itself on its own data before the work: identities that hold exactly if the code is right."""

import torch

from common.models import AudioLM, EncodedClip
from common.tracing import record, rerun, run, splice, states_at

# Largest difference of two logits that counts as equal, relative to the largest logit (at least 1).
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class CheckFailed(Exception):
    """An identity does not hold on this model: no figure of this run could be trusted."""


def self_check(lm: AudioLM, a: EncodedClip, b: EncodedClip) -> dict[str, float | int | str]:
    """Return the largest difference of each identity on two clips of the run's own data. Raises CheckFailed beyond TOLERANCE.

    "A - B" is no identity but the measure for them: a check says little where its difference is not far below it.

    The patch oracle overwrites the span of A's run where the spans have equal length; else it reads the same hybrid from the
    other side and overwrites the tail of B's run.
    """
    layers = len(lm.blocks)
    own_a, own_b = run(lm, a), run(lm, b)
    trace_a, lens_a = record(lm, a)
    trace_b, _ = record(lm, b)
    patched = splice(lm, trace_b, [trace_a])[0]  # [layer, vocab]
    onto_itself = splice(lm, trace_a, [trace_a])[0]
    equal_length = _length(a) == _length(b)
    if equal_length:
        donated = states_at(lm, b, b.span)
        oracle = {layer: rerun(lm, a, layer, a.span, donated[layer]) for layer in (layers // 3, 2 * layers // 3)}
    else:
        oracle = {layer: rerun(lm, b, layer, b.tail, trace_a.tail[layer]) for layer in (layers // 3, 2 * layers // 3)}
    figures: dict[str, float | int | str] = {
        "lens row L - model": _difference(lens_a[-1], own_a),
        "A patched with A - A": _difference(onto_itself, own_a.expand_as(onto_itself)),
        "splice row 0 - donor": _difference(patched[0], own_b),
        "splice row L - recipient": _difference(patched[-1], own_a),
        "splice - rerun": max(_difference(patched[layer], logits) for layer, logits in oracle.items()),
    }
    for name, figure in figures.items():
        check_equal(name, float(figure), lm, scale=float(own_a.abs().max()))
    for clip in (a, b):
        if (states := audio_states(lm, clip)) != _length(clip):
            raise CheckFailed(f"self-check: the audio span has {_length(clip)} tokens but {states} audio states")
    figures["A - B, for comparison"] = _difference(own_a, own_b)
    return figures | {"audio tokens": _length(a), "oracle": "span of A" if equal_length else "tail of B"}


def check_equal(name: str, difference: float, lm: AudioLM, *, scale: float) -> None:
    """Raise CheckFailed where `difference` of two logits is beyond the tolerance of the model's dtype."""
    limit = TOLERANCE[lm.dtype] * max(1.0, scale)
    if not difference <= limit:  # catches nan
        raise CheckFailed(f"self-check: {name} is {difference:.3g}, above {limit:.3g} for {lm.dtype}")


def check_finite(logits: torch.Tensor, name: str) -> None:
    """Raise CheckFailed where a logit of the clip or pair `name` is not a number: its largest would be no answer."""
    if not logits.isfinite().all():
        raise CheckFailed(
            f"{name}: the model's logits are not all finite numbers (float16 overflows; try --dtype bfloat16 or float32)"
        )


def audio_states(lm: AudioLM, clip: EncodedClip) -> int:
    """Count the span's positions at h_0 that hold something other than the placeholder's own embedding."""
    placeholder = lm.model.get_input_embeddings()(torch.tensor(lm.audio_token_id, device=lm.device))
    entered = states_at(lm, clip, clip.span)[0]
    return int((entered != placeholder.to(entered)).any(dim=-1).sum())


def _length(clip: EncodedClip) -> int:
    return clip.span.stop - clip.span.start


def _difference(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x.float() - y.float()).abs().max())
