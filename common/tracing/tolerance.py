"""Tolerances: when two logits count as equal."""

import torch

from common.errors import CheckFailed
from common.model.lm import AudioLM

# Largest difference of two logits that counts as equal, relative to the largest logit.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def tolerance(lm: AudioLM, *, scale: float) -> float:
    """Return the largest difference of two logits that counts as equal where the largest logit is `scale`."""
    return TOLERANCE[lm.dtype] * scale


def largest_difference(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors of logits."""
    return float((x.float() - y.float()).abs().max())


def equal(name: str, difference: float, limit: float) -> float:
    """Return `difference`; raise CheckFailed where it is beyond `limit`, or nan."""
    if not difference <= limit:
        raise CheckFailed(f"self-check: {name} is {difference:.3g}, above {limit:.3g}")
    return difference


def check_finite(logits: torch.Tensor, name: str) -> None:
    """Raise CheckFailed where a logit of the clip or pair `name` is not a number: its largest would be no answer."""
    if not logits.isfinite().all():
        raise CheckFailed(
            f"{name}: the model's logits are not all finite numbers (float16 overflows; try --dtype bfloat16 or float32)"
        )
