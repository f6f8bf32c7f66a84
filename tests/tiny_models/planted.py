"""Models whose rule is known: what a clip is answered with, from its labels, text and speaker. A patch is answered as its donor.

The audio span is the answer's source up to layer CARRIED, and not behind it. Logits are 1 for the answer and 0 for the others.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from common.clips.manifest import LABELS

LAYERS, CARRIED = 11, 5  # l = 0 to 10; the donor is answered for at l = 0 to 5
INNER = CARRIED / (LAYERS - 2)  # share of the inner layers, 1 to 9, at which it is
Rule = Callable[[pd.DataFrame], np.ndarray]  # codes of the answers to clips with columns words, voice (codes), text, number


def clips(
    *, labels: int = 5, texts: int | tuple[int, ...] = 5, speakers: int = 1, voices: int | tuple[int, ...] = 1
) -> pd.DataFrame:
    """Return conflict clips: of each words' label so many `texts`, each by each speaker so many times in each of the `voices`."""
    texts, voices = (n if isinstance(n, tuple) else (n,) * labels for n in (texts, voices))
    found = [
        (w, v, f"{w}.{t}", t, f"s{s}")
        for w in range(labels)
        for t in range(texts[w])
        for s in range(speakers)
        for v in range(labels)
        for _ in range(voices[v])
        if v != w
    ]
    table = pd.DataFrame(found, columns=["words", "voice", "text_id", "number", "speaker"])
    return table.assign(sample_id=[f"c{i}" for i in range(len(table))])


def all_pairs(table: pd.DataFrame, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return recipients and donors, as places: all pairs of a kind of one speaker, of prosody pairs of one text too."""
    same, other = ("voice", "words") if kind == "semantic" else ("words", "voice")
    columns = {c: table[c].to_numpy() for c in ("words", "voice", "speaker", "text_id")}
    alike = columns["speaker"][:, None] == columns["speaker"]
    alike &= (columns[same][:, None] == columns[same]) & (columns[other][:, None] != columns[other])
    if kind == "prosody":
        alike &= columns["text_id"][:, None] == columns["text_id"]
    recipient, donor = np.nonzero(alike)
    return recipient, donor


def patches(
    table: pd.DataFrame, rule: Rule, kind: str, *, labels: int = 5, control: str = "none", stand_ins: np.ndarray | None = None
) -> pd.DataFrame:
    """Return rows as in patches.csv of all pairs of a kind; `stand_ins` are the places of donors in the true one's place."""
    names, answers = np.array(LABELS[:labels]), rule(table)
    recipient, true = all_pairs(table, kind)
    donor = true if stand_ins is None else stand_ins
    ids = table.sample_id.to_numpy()
    same = [f"{kind}:{r}<-{d}" for r, d in zip(ids[recipient], ids[true])]
    name = same if control == "none" else [f"{n}|{control}:{d}" for n, d in zip(same, ids[donor])]
    of = "words" if kind == "semantic" else "voice"
    target = table[of].to_numpy()[true]
    first = {"pair_id": name, "true_pair_id": same, "kind": kind, "control": control, "target": names[target]}
    for role, at in (("recipient", recipient), ("donor", donor)):
        first |= {f"{role}_{c}": table[c].to_numpy()[at] for c in ("text_id", "speaker")}
        first |= {f"{role}_{k}_label": names[table[c].to_numpy()[at]] for k, c in (("semantic", "words"), ("prosody", "voice"))}
    base, lent = answers[recipient], answers[donor]
    parts = []
    for layer in range(LAYERS):
        said = lent if layer <= CARRIED else base
        row = pd.DataFrame(first).assign(layer=layer, pred_base=names[base], pred_patch=names[said], kv_shared=0)
        for code, label in enumerate(names):
            row[f"logit_{label}"], row[f"base_{label}"] = (said == code).astype(float), (base == code).astype(float)
        row["flip_to_target"], row["flip_from_base"] = (said == target).astype(int), (said != base).astype(int)
        parts.append(row.assign(delta_logit=(said == target) * 1.0 - (base == target)))
    return pd.concat(parts, ignore_index=True)


def same_labels_donors(table: pd.DataFrame, kind: str) -> np.ndarray:
    """Return for each pair another clip with both labels of the recipient, of its speaker."""
    recipient, _ = all_pairs(table, kind)
    of = table.groupby(["words", "voice", "speaker"]).indices
    keys = list(zip(table.words, table.voice, table.speaker))
    return np.array([next(i for i in of[keys[r]] if i != r) for r in recipient])


def share_of_random_donors(table: pd.DataFrame, rule: Rule, kind: str) -> float:
    """Return how often a random donor, any other clip, brings the target: over all pairs and all such donors."""
    answers, (recipient, donor) = rule(table), all_pairs(table, kind)
    target = table["words" if kind == "semantic" else "voice"].to_numpy()[donor]
    said = np.bincount(answers, minlength=5)
    return float(((said[target] - (answers[recipient] == target)) / (len(table) - 1)).mean())
