"""Read the answer that every layer would give."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch

from common.clips.samples import Sample
from common.model.readout import divergence
from common.patching.tracing import record
from common.running.session import Session


def layers_of(session: Session, groups: Iterable[list[Sample]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one clip at a time."""
    for sample in chain.from_iterable(groups):
        _, lens_logits = record(session.lm, session.encode(sample))
        yield lens_rows(session, sample, lens_logits)


def lens_rows(session: Session, sample: Sample, logits: torch.Tensor) -> list[dict[str, Any]]:
    """Return one row per layer of a clip from its lens logits [layer, vocab].

    `winner` is the label with the largest of the label logits, `outcome` says whose label that is (semantic, prosody or
    other; both, where words and voice agree), `margin` is logit[prosody_label] - logit[semantic_label]: above 0 the answer
    follows the voice. `margin_spread` is the margin in standard deviations of the label logits. `mass`, `best_rank` and `kl`
    (nats, to the final distribution) tell whether they mean anything yet: an argmax of a few labels is defined even where nobody
    would say one of them.
    """
    label_logits = session.label_logits(logits, sample.sample_id)  # [layer, label]
    readout = session.readout
    health = {"mass": readout.mass(logits), "best_rank": readout.best_rank(logits), "kl": divergence(logits)}  # [layer] each
    values = {name: of_layers.tolist() for name, of_layers in health.items()}
    semantic, prosody = readout.labels.index(sample.semantic_label), readout.labels.index(sample.prosody_label)
    outcomes = {sample.semantic_label: "semantic", sample.prosody_label: "prosody" if sample.conflict else "both"}
    rows = []
    for layer, of_labels in enumerate(label_logits):
        winner, margin = readout.answer(of_labels), float(of_labels[prosody] - of_labels[semantic])
        rows.append(
            {
                "sample_id": sample.sample_id,
                "semantic_label": sample.semantic_label,
                "prosody_label": sample.prosody_label,
                "layer": layer,
                **{f"logit_{label}": logit for label, logit in zip(readout.labels, of_labels.tolist())},
                "winner": winner,
                "outcome": outcomes.get(winner, "other"),
                "margin": margin,
                "margin_spread": margin / (float(of_labels.std(correction=0)) or 1.0),
                **{name: of_layers[layer] for name, of_layers in values.items()},
                "text_id": sample.text_id,
                "speaker": sample.speaker,
            }
        )
    return rows
