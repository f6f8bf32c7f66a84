"""Fit a tuned lens: an affine map from each layer's state to the last.

The logit lens reads a state as if no block came after it, and may see nothing early. Belrose et al. 2023 (arXiv 2303.08112)
train a map for each layer; here it is fitted in closed form (Din et al. 2023, arXiv 2303.09435): ridge towards the identity and
a shift, from the last position of h_l to that of h_L. A clip is read with maps that were fitted on the other half of the texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from common.clips.manifest import Sample
from common.compute.session import Session
from common.errors import InputError
from common.processes import is_leader
from common.tracing.trace import states_at

STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # of the ridge, in mean squares of the centred states; chosen on texts left out in fitting


@dataclass(frozen=True)
class Translator:
    """h + mean change + change that h's distance from the mean predicts: h + shift + (h - mean) @ states.T @ weights."""

    mean: torch.Tensor  # [d_model]
    shift: torch.Tensor  # [d_model]
    states: torch.Tensor  # [clip, d_model], centred
    weights: torch.Tensor  # [clip, d_model]

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """Return what the map makes of states [..., d_model]."""
        x = h.to(self.mean)
        return (x + self.shift + (x - self.mean) @ self.states.T @ self.weights).to(h)


def fit(states: torch.Tensor, last: torch.Tensor, *, strength: float) -> Translator:
    """Fit the map from states [clip, d_model] of a layer to those of the last one, in float32."""
    mean, change = states.mean(dim=0), last - states
    centred, shift = states - mean, change.mean(dim=0)
    kernel = centred @ centred.T  # [clip, clip]
    ridge = strength * kernel.diagonal().mean().clamp(min=1e-12) * torch.eye(len(states))
    return Translator(mean, shift, centred, torch.linalg.solve(kernel + ridge, change - shift))


def fit_on_other_texts(states: torch.Tensor, texts: Sequence[str]) -> list[list[Translator]]:
    """Return for each half of the texts, every second of them in order, the maps of all layers but the last from the other half.

    `states` [clip, layer, d_model]. Raises InputError where there are fewer than four texts.
    """
    names = sorted(set(texts))
    if len(names) < 4:
        raise InputError(f"--lens tuned: needs four texts at least, to fit on some and read others; there are {len(names)}")
    half, quarter = (np.array([names.index(t) // step % 2 for t in texts]) for step in (1, 2))
    last = states[:, -1]
    return [
        [_fit_best(of_layer[half != read], last[half != read], quarter[half != read]) for of_layer in states[:, :-1].unbind(1)]
        for read in (0, 1)
    ]


def _fit_best(x: torch.Tensor, y: torch.Tensor, group: np.ndarray) -> Translator:
    """Fit with the strength of ridge that predicts best what one `group` of the texts has from the other."""

    def error(strength: float) -> float:
        maps = [fit(x[group != g], y[group != g], strength=strength) for g in (0, 1)]
        return sum(float((maps[g](x[group == g]) - y[group == g]).square().sum()) for g in (0, 1))

    return fit(x, y, strength=min(STRENGTHS, key=error))


def tuned_lens(session: Session, samples: Sequence[Sample]) -> Callable[[Sample], list[Translator]]:
    """Record the last position of all `samples` and return what gives the maps to read one of them with."""
    states = []
    for sample in tqdm(samples, desc="states for the tuned lens", unit="clip", leave=False, disable=not is_leader()):
        clip = session.encode(sample)
        last = states_at(session.lm, clip, slice(clip.ids.shape[1] - 1, None))
        if last.dim() != 4:
            raise InputError("--lens tuned: this decoder carries several residual streams; only --lens logit reads them")
        states.append(last[list(session.layers), 0, -1].float().cpu())  # [layer, d_model]
    texts = [s.text_id for s in samples]
    names = sorted(set(texts))
    maps = fit_on_other_texts(torch.stack(states), texts)
    return lambda sample: maps[names.index(sample.text_id) % 2]
