"""Read the answer that every layer would give."""

from typing import Any

import pandas as pd
import torch

from common.readout import answer
from common.samples import LABELS, Sample


def lens_rows(sample: Sample, label_logits: torch.Tensor) -> list[dict[str, Any]]:
    """Return one row per layer of a clip from its lens logits [layer, label].

    `winner` is the label with the largest of the five logits, `outcome` says whose label that is (semantic, prosody or
    other), `margin` is logit[prosody_label] - logit[semantic_label]: above 0 the answer follows the voice.
    """
    semantic, prosody = LABELS.index(sample.semantic_label), LABELS.index(sample.prosody_label)
    rows = []
    for layer, (winner, logits) in enumerate(zip(map(answer, label_logits), label_logits.tolist())):
        outcome = {sample.semantic_label: "semantic", sample.prosody_label: "prosody"}.get(winner, "other")
        rows.append(
            {
                "sample_id": sample.sample_id,
                "semantic_label": sample.semantic_label,
                "prosody_label": sample.prosody_label,
                "layer": layer,
                **{f"logit_{label}": logit for label, logit in zip(LABELS, logits)},
                "winner": winner,
                "outcome": outcome,
                "margin": logits[prosody] - logits[semantic],
                "text_id": sample.text_id,
                "speaker": sample.speaker,
            }
        )
    return rows


def summary(layers: pd.DataFrame) -> str:
    """Say in a few lines what came out, from the per-layer table."""
    last, best = layers.iloc[-1], layers.loc[layers.win_prosody.idxmax()]
    return (
        f"answer (l = {last.layer:.0f}, n = {last.n:.0f}): words {last.win_semantic:.3f}, voice {last.win_prosody:.3f}, "
        f"neither {last.win_other:.3f}; margin {last.margin:+.2f} [{last.margin_lo:+.2f}, {last.margin_hi:+.2f}]\n"
        f"voice wins most at l = {best.layer:.0f}: {best.win_prosody:.3f} [{best.win_prosody_lo:.3f}, {best.win_prosody_hi:.3f}]"
    )
