"""Read the answer that every layer would give."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from common.landmarks import decision_layer, interval, where
from common.metrics import congruent_layers, label_table, lens_layers
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
        "congruent over the number kept": len(congruent) - len(beside),
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


def lens_tables(rows: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables that the figures and the report are made of, by the names of their files; `labels` at the last layer."""
    return {
        "layers": lens_layers(rows, seed=seed),
        "congruent": congruent_layers(rows, seed=seed),
        "labels": label_table(rows, layer=rows.layer.max()),
        "decision_layer": decision_layer(rows, seed=seed),
    }


def summary(layers: pd.DataFrame, decision: pd.DataFrame) -> str:
    """Say in a few lines what came out, from the per-layer table and that of the decision layer."""
    last, best, decided = layers.iloc[-1], layers.loc[layers.win_prosody.idxmax()], decision.iloc[0]
    side = {"prosody": "voice", "semantic": "words"}.get(decided.side, "")
    return (
        f"answer (l = {last.layer:.0f}, n = {last.n:.0f}): words {last.win_semantic:.3f}, voice {last.win_prosody:.3f} "
        f"({last.win_prosody_null:.3f} if it ignored the voice), neither {last.win_other:.3f}; "
        f"margin {interval(last, 'margin', '+.2f')}\n"
        f"voice wins most at l = {best.layer:.0f}: {interval(best, 'win_prosody', '.3f')}\n"
        f"{where(decided, 'decision_layer', f'decided for the {side}' if side else 'decided')}"
    )


def headline(out: Path) -> pd.DataFrame:
    """Return the main results of a finished run: `what`, its `unit`, `value`, `lo`, `hi`, and the `kind` it is about, `n`."""
    layers, decision = pd.read_csv(out / "layers.csv"), pd.read_csv(out / "decision_layer.csv")
    last, found = layers.iloc[-1], decision.iloc[0]
    rows = []
    for column, unit, kind in (
        ("win_semantic", "share of clips", "semantic"),
        ("win_prosody", "share of clips", "prosody"),
        ("margin", "logits", "other"),
    ):
        rows.append((f"{column} at l = L", unit, last[column], last[f"{column}_lo"], last[f"{column}_hi"], kind))
    rows.append(("decision layer", "layer l", found.decision_layer, found.decision_layer_lo, found.decision_layer_hi, "other"))
    return pd.DataFrame(rows, columns=["what", "unit", "value", "lo", "hi", "kind"]).assign(n=last.n)
