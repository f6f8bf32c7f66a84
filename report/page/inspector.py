"""Make the data of the page's inspector: clips and pairs over the layers."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from common.clips.manifest import Sample
from report.runs import Study

MOST = 1500  # clips, and pairs of a kind, that a page can hold
LOGITS = 600_000  # bytes of them that it can hold, of clips and of each kind of pair
OUTCOMES = ("semantic", "prosody", "other")


def closer_look(study: Study, name: str, *, of: int = 1) -> dict[str, Any]:
    """Return the clips and pairs of a study, one `of` so many in the page, which calls it `name`.

    Numbers are packed: `logits` are 16-bit integers [unit, layer, label] times `scale`, `answers` a byte each [unit, layer].
    """
    rows = study.first.rows
    most = min(MOST, LOGITS // (2 * of * rows.layer.nunique() * len(study.first.identity["labels"])))
    data: dict[str, Any] = {
        "name": name,
        "set": str(study.first.identity["data"]),
        "labels": study.first.identity["labels"],
        "clips": None,
        "pairs": None,
        "picks": [],
    }
    if study.lens is not None:
        picks = picked(study.lens.rows)
        units, unit_rows, layers = _units(study.lens.rows, "sample_id", most, keep=[pick["id"] for pick in picks])
        data["picks"] = picks
        readable = study.lens.tables["layers"].set_index("layer").readable
        data["clips"] = _packed(units, unit_rows, layers, data["labels"], answer="winner") | {
            "readable": [int(readable[layer]) for layer in layers],
            "ids": unit_rows.sample_id.tolist(),
            "all": int(study.lens.rows.sample_id.nunique()),
            "words": _codes(unit_rows.semantic_label, data["labels"]),
            "voice": _codes(unit_rows.prosody_label, data["labels"]),
            "outcome": units.outcome.to_numpy().reshape(len(unit_rows), -1)[:, -1].tolist(),
            "margin": [round(float(m), 3) for m in units.margin.to_numpy().reshape(len(unit_rows), -1)[:, -1]],
        }
    if study.patching is not None:
        rows = study.patching.rows[study.patching.rows.control == "none"]
        units, unit_rows, layers = _units(rows, "pair_id", most, group="kind")
        flips = units.flip_to_target.to_numpy().reshape(len(unit_rows), -1)
        delta = units.delta_logit.to_numpy().reshape(len(unit_rows), -1)
        inner = slice(1, -1) if flips.shape[1] > 2 else slice(None)
        data["pairs"] = _packed(units, unit_rows, layers, data["labels"], answer="pred_patch") | {
            "ids": unit_rows.pair_id.tolist(),
            "all": {str(kind): int(n) for kind, n in rows.groupby("kind").pair_id.nunique().items()},
            "kind": unit_rows.kind.tolist(),
            "recipient": unit_rows.recipient_id.tolist(),
            "donor": unit_rows.donor_id.tolist(),
            "target": _codes(unit_rows.target, data["labels"]),
            "donor_answer": _codes(unit_rows.pred_donor, data["labels"]),
            "flips": [round(float(f), 3) for f in flips[:, inner].mean(axis=1)],
            "delta": [round(float(d), 3) for d in delta[:, inner].mean(axis=1)],
        }
    return data


def picked(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the clip to hear first of each outcome at l = L, and `n`, how many of `all` conflict clips have that outcome.

    It is the one whose margin is the median of those with its outcome: no one has chosen it for what it shows.
    """
    last = rows[(rows.layer == rows.layer.max()) & (rows.semantic_label != rows.prosody_label)]
    found = []
    for outcome in OUTCOMES:
        of_outcome = last[last.outcome == outcome].sort_values(["margin", "sample_id"])
        if n := len(of_outcome):
            found.append({"outcome": outcome, "id": str(of_outcome.sample_id.iloc[(n - 1) // 2]), "n": n, "all": len(last)})
    return found


def clips_shown(look: dict[str, Any]) -> list[str]:
    """Return the clips that a closer look shows, each once; those to hear first come first."""
    pairs, picks = look["pairs"] or {"recipient": [], "donor": []}, [pick["id"] for pick in look["picks"]]
    return list(dict.fromkeys([*picks, *(look["clips"] or {"ids": []})["ids"], *pairs["recipient"], *pairs["donor"]]))


def about(samples: dict[str, Sample]) -> dict[str, list[str]]:
    """Return the text, labels, speaker and language of each clip."""
    return {n: [s.text, s.semantic_label, s.prosody_label, s.speaker, s.language] for n, s in samples.items()}


def _units(
    rows: pd.DataFrame, unit: str, most: int, *, group: str | None = None, keep: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame, list[int]]:
    """Return the rows of at most `most` units (of each `group`), sorted, one row of each unit, and the layers; `keep` are in."""
    unit_rows = rows.drop_duplicates(unit)
    kept = unit_rows.groupby(group, sort=False).head(most) if group else unit_rows.head(most)
    kept = unit_rows[unit_rows[unit].isin([*keep, *kept[unit]])]
    place = {name: i for i, name in enumerate(kept[unit])}
    rows = rows[rows[unit].isin(place)]
    rows = rows.assign(_place=rows[unit].map(place)).sort_values(["_place", "layer"], kind="stable")
    layers = sorted(int(layer) for layer in rows.layer.unique())
    return rows, rows.iloc[:: len(layers)], layers


def _packed(
    units: pd.DataFrame, unit_rows: pd.DataFrame, layers: Sequence[int], labels: Sequence[str], *, answer: str
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
