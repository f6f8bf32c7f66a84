"""The data of a closer look: clips and pairs with their label logits over the layers, as JSON for the page."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from common.clips.samples import Sample
from report.inputs import Study

MOST = 1500  # clips, and pairs of a kind, that a page can hold


def closer_look(study: Study, name: str) -> dict[str, Any]:
    """Return the clips and pairs of a study for the page, which calls it `name`.

    Numbers are packed: `logits` are 16-bit integers [unit, layer, label] times `scale`, `answers` a byte each [unit, layer].
    """
    data: dict[str, Any] = {
        "name": name,
        "set": str(study.first.identity["data"]),
        "labels": study.first.identity["labels"],
        "clips": None,
        "pairs": None,
    }
    if study.lens is not None:
        units, firsts, layers = _units(study.lens.rows, "sample_id")
        data["clips"] = _packed(units, firsts, layers, data["labels"], answer="winner") | {
            "ids": firsts.sample_id.tolist(),
            "all": int(study.lens.rows.sample_id.nunique()),
            "words": _codes(firsts.semantic_label, data["labels"]),
            "voice": _codes(firsts.prosody_label, data["labels"]),
            "outcome": units.outcome.to_numpy().reshape(len(firsts), -1)[:, -1].tolist(),
            "margin": [round(float(m), 3) for m in units.margin.to_numpy().reshape(len(firsts), -1)[:, -1]],
        }
    if study.patching is not None:
        rows = study.patching.rows[study.patching.rows.control == "none"]
        units, firsts, layers = _units(rows, "pair_id", group="kind")
        flips = units.flip_to_target.to_numpy().reshape(len(firsts), -1)
        delta = units.delta_logit.to_numpy().reshape(len(firsts), -1)
        inner = slice(1, -1) if flips.shape[1] > 2 else slice(None)
        data["pairs"] = _packed(units, firsts, layers, data["labels"], answer="pred_patch") | {
            "ids": firsts.pair_id.tolist(),
            "all": {str(kind): int(n) for kind, n in rows.groupby("kind").pair_id.nunique().items()},
            "kind": firsts.kind.tolist(),
            "recipient": firsts.recipient_id.tolist(),
            "donor": firsts.donor_id.tolist(),
            "target": _codes(firsts.target, data["labels"]),
            "donor_answer": _codes(firsts.pred_donor, data["labels"]),
            "flips": [round(float(f), 3) for f in flips[:, inner].mean(axis=1)],
            "delta": [round(float(d), 3) for d in delta[:, inner].mean(axis=1)],
        }
    return data


def clips_shown(look: dict[str, Any]) -> list[str]:
    """Return the clips that a closer look shows, each once."""
    pairs = look["pairs"] or {"recipient": [], "donor": []}
    return list(dict.fromkeys([*(look["clips"] or {"ids": []})["ids"], *pairs["recipient"], *pairs["donor"]]))


def about(samples: dict[str, Sample]) -> dict[str, list[str]]:
    """Return the text, labels, speaker and language of each clip."""
    return {n: [s.text, s.semantic_label, s.prosody_label, s.speaker, s.language] for n, s in samples.items()}


def _units(rows: pd.DataFrame, unit: str, group: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame, list[int]]:
    """Return the rows of at most MOST units (of each `group`), sorted, one row of each unit, and the layers."""
    firsts = rows.drop_duplicates(unit)
    kept = firsts.groupby(group, sort=False).head(MOST) if group else firsts.head(MOST)
    place = {name: i for i, name in enumerate(kept[unit])}
    rows = rows[rows[unit].isin(place)]
    rows = rows.assign(_place=rows[unit].map(place)).sort_values(["_place", "layer"], kind="stable")
    layers = sorted(int(layer) for layer in rows.layer.unique())
    return rows, rows.iloc[:: len(layers)], layers


def _packed(
    units: pd.DataFrame, firsts: pd.DataFrame, layers: Sequence[int], labels: Sequence[str], *, answer: str
) -> dict[str, Any]:
    logits = units[[f"logit_{label}" for label in labels]].to_numpy(dtype=float)
    scale = max(float(np.abs(logits).max()), 1e-9) / 32000
    whole = np.round(logits / scale).astype("<i2")
    answers = np.array(_codes(units[answer], labels), dtype=np.uint8)
    return {
        "layers": list(layers),
        "scale": scale,
        "logits": base64.b64encode(whole.tobytes()).decode("ascii"),
        "answers": base64.b64encode(answers.tobytes()).decode("ascii"),
    }


def _codes(column: pd.Series, labels: Sequence[str]) -> list[int]:
    return [int(code) for code in pd.Index(labels).get_indexer(column)]
