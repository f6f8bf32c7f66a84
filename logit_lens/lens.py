"""Read the answer that every layer would give."""

from typing import Any

import pandas as pd
import torch

from common.readout import answer, divergence
from common.samples import LABELS, Sample, conflict_clips, draw
from common.session import Session


def choose_clips(clips: list[Sample], *, limit: int | None, seed: int) -> tuple[list[Sample], dict[str, Any]]:
    """Return the conflict clips, then as many congruent ones at most, and the counts of those kept and dropped, with reasons."""
    conflict, _ = conflict_clips(clips)
    congruent = [s for s in clips if not s.conflict]
    kept = draw(conflict, limit, seed=seed)
    beside = draw(congruent, len(kept), seed=seed)
    dropped = {
        "over --limit": len(conflict) - len(kept),
        "congruent, beyond the number of conflict clips": len(congruent) - len(beside),
    }
    return kept + beside, {"clips": len(kept), "congruent clips": len(beside), "dropped": dropped}


def lens_rows(session: Session, sample: Sample, logits: torch.Tensor) -> list[dict[str, Any]]:
    """Return one row per layer of a clip from its lens logits [layer, vocab].

    `winner` is the label with the largest of the five logits, `outcome` says whose label that is (semantic, prosody or
    other; both, where words and voice agree), `margin` is logit[prosody_label] - logit[semantic_label]: above 0 the answer
    follows the voice. `margin_spread` is the margin in standard deviations of the five logits. `mass`, `best_rank` and `kl`
    (nats, to the final distribution) tell whether the five mean anything yet: an argmax of five is defined even where nobody
    would say one of them.
    """
    label_logits = session.label_logits(logits, sample.sample_id)  # [layer, label]
    readout = session.readout
    health = {"mass": readout.mass(logits), "best_rank": readout.best_rank(logits), "kl": divergence(logits)}  # [layer] each
    values = {name: of_layers.tolist() for name, of_layers in health.items()}
    semantic, prosody = LABELS.index(sample.semantic_label), LABELS.index(sample.prosody_label)
    outcomes = {sample.semantic_label: "semantic", sample.prosody_label: "prosody" if sample.conflict else "both"}
    rows = []
    for layer, of_five in enumerate(label_logits):
        winner, margin = answer(of_five), float(of_five[prosody] - of_five[semantic])
        rows.append(
            {
                "sample_id": sample.sample_id,
                "semantic_label": sample.semantic_label,
                "prosody_label": sample.prosody_label,
                "layer": layer,
                **{f"logit_{label}": logit for label, logit in zip(LABELS, of_five.tolist())},
                "winner": winner,
                "outcome": outcomes.get(winner, "other"),
                "margin": margin,
                "margin_spread": margin / (float(of_five.std(correction=0)) or 1.0),
                **{name: of_layers[layer] for name, of_layers in values.items()},
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
