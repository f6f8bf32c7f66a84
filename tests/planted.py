"""Rows of both experiments from a rule that is known: how much of an answer is words, voice and habit, and until which layer."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from activation_patching.paired import paired_layers, transfer
from activation_patching.release import release_layer
from logit_lens.decision import decision_layer

from logit_lens.tables import lens_layers

LABELS = ("neutral", "happy", "sad", "angry", "surprised")
LAYERS = 9  # 0..8


@dataclass(frozen=True)
class Rule:
    """An answer's logits are `words` and `voice` for these labels, `habit` for angry, and what text and clip add by chance.

    The answer arises in the lens from layer 3 to 6; the audio span is the answer's source up to layer 2, and not from layer 5 on.
    """

    words: float
    voice: float
    habit: float = 1.0
    chance: float = 0.7


RULES = {
    "ignores the audio": Rule(words=0, voice=0, chance=0),
    "hears neither cue": Rule(words=0, voice=0, chance=2),  # answers by the text and the clip, but by neither label
    "ignores the voice": Rule(words=4, voice=0),
    "ignores the words": Rule(words=0, voice=4),
    "mixes both": Rule(words=3, voice=2),
}


def clips(rng: np.random.Generator, rule: Rule, *, texts: int = 30, speakers: int = 2) -> pd.DataFrame:
    """Return one row per clip: texts x speakers x voices, with its evidence for each label in `evidence`."""
    t, s, v = np.indices((texts, speakers, len(LABELS))).reshape(3, -1)
    evidence = rule.words * np.eye(5)[t % 5] + rule.voice * np.eye(5)[v]
    evidence += rule.chance * (rng.normal(size=(texts, 5))[t] + rng.normal(size=(len(t), 5)))
    table = pd.DataFrame({"sample_id": [f"c{i}" for i in range(len(t))], "text_id": t.astype(str), "speaker": s.astype(str)})
    table["semantic_label"], table["prosody_label"] = np.take(LABELS, t % 5), np.take(LABELS, v)
    return table.assign(evidence=list(evidence))


def habit(rule: Rule) -> np.ndarray:
    return rule.habit * (np.array(LABELS) == "angry")


def lens(table: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """Return rows as in lens.csv."""
    parts = []
    for layer in range(LAYERS):
        logits = habit(rule) + np.clip((layer - 2.5) / 3, 0, 1) * np.stack(table.evidence)
        parts.append(_read(table.drop(columns="evidence").assign(layer=layer), logits, "winner"))
    rows = pd.concat(parts, ignore_index=True)
    won = [rows.winner == rows.semantic_label, rows.winner == rows.prosody_label]
    return rows.assign(outcome=np.select(won, ["semantic", "prosody"], "other"))


def _read(rows: pd.DataFrame, logits: np.ndarray, name: str) -> pd.DataFrame:
    """Return rows with their logits, the answer in column `name`, and the margin where they name both labels."""
    rows = rows.assign(**{f"logit_{label}": logits[:, i] for i, label in enumerate(LABELS)})
    rows[name] = np.take(LABELS, logits.argmax(axis=1))
    if "prosody_label" in rows:
        at = [np.array([LABELS.index(x) for x in rows[f"{kind}_label"]]) for kind in ("prosody", "semantic")]
        rows["margin"] = logits[np.arange(len(rows)), at[0]] - logits[np.arange(len(rows)), at[1]]
    return rows


def patches(rng: np.random.Generator, table: pd.DataFrame, rule: Rule, *, n: int = 150) -> pd.DataFrame:
    """Return rows as in patches.csv: `n` pairs of each kind, with donors of the same labels, random donors and silence."""
    conflict = table[table.semantic_label != table.prosody_label].reset_index(drop=True)
    evidence, words, voice = np.stack(conflict.evidence), conflict.semantic_label.to_numpy(), conflict.prosody_label.to_numpy()
    parts = []
    for kind, same, other in (("semantic", voice, words), ("prosody", words, voice)):
        allowed = (same[:, None] == same) & (other[:, None] != other)
        if kind == "prosody":
            allowed &= conflict.text_id.to_numpy()[:, None] == conflict.text_id.to_numpy()
        pairs = np.argwhere(allowed)
        recipient, donor = pairs[np.sort(rng.choice(len(pairs), n, replace=False))].T
        alike = (words[:, None] == words) & (voice[:, None] == voice) & ~np.eye(len(words), dtype=bool)
        stand_ins = {
            "none": donor,
            "same_labels_donor": np.array([rng.choice(np.flatnonzero(alike[r])) for r in recipient]),
            "random_donor": rng.integers(len(words), size=n),
            "silence": donor,
        }
        for control, stand_in in stand_ins.items():
            lent = evidence[stand_in] * (control != "silence")
            parts.append(
                _patched(conflict, kind, control, (recipient, donor, stand_in), (evidence[recipient], lent), other[donor], rule)
            )
    return pd.concat(parts, ignore_index=True)


def _patched(conflict, kind, control, places, evidence, target, rule) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    recipient, _, stand_in = places
    ids = conflict.sample_id.to_numpy()
    names = [f"{kind}:{ids[r]}<-{ids[d]}" + (f"|{control}:{ids[s]}" if control != "none" else "") for r, d, s in zip(*places)]
    first = {"pair_id": names, "kind": kind, "control": control, "recipient_id": ids[recipient], "donor_id": ids[stand_in]}
    for role, at in (("recipient", recipient), ("donor", stand_in)):
        first |= {f"{role}_{c}": conflict[c].to_numpy()[at] for c in ("text_id", "speaker", "semantic_label", "prosody_label")}
    own, lent = evidence
    base = habit(rule) + own
    at = np.array([LABELS.index(t) for t in target])
    rows = []
    for layer in range(LAYERS):
        left = np.clip((5 - layer) / 3, 0, 1)  # of the answer's source that is still in the span
        logits = habit(rule) + left * lent + (1 - left) * own
        row = _read(pd.DataFrame(first).assign(layer=layer, target=target), logits, "pred_patch")
        row["pred_base"], row["pred_donor"] = (np.take(LABELS, x.argmax(axis=1)) for x in (base, habit(rule) + lent))
        row["delta_logit"] = logits[np.arange(len(at)), at] - base[np.arange(len(at)), at]
        rows.append(row)
    table = pd.concat(rows, ignore_index=True)
    flips = {"flip_to_target": table.pred_patch == table.target, "flip_from_base": table.pred_patch != table.pred_base}
    return table.assign(**{name: values.astype(int) for name, values in flips.items()})


def false_claims(rule: Rule, *, draws: int, seed: int = 100) -> dict[str, int]:
    """Return in how many draws each claim that the rule makes false is made."""
    claims: dict[str, int] = {}
    for draw in range(draws):
        rng = np.random.default_rng(seed + draw)
        table = clips(rng, rule)
        rows, patched = lens(table, rule), patches(rng, table, rule)
        last = lens_layers(rows[rows.layer == LAYERS - 1], seed=0).iloc[0]
        decided = decision_layer(rows, seed=0).iloc[0]
        carried, layer_by_layer, until = (t(patched, seed=0) for t in (transfer, paired_layers, release_layer))
        for kind, weight, side in (("semantic", rule.words, "words"), ("prosody", rule.voice, "voice")):
            primary = carried[(carried.kind == kind) & carried.primary].iloc[0]
            shown = layer_by_layer[(layer_by_layer.kind == kind) & (layer_by_layer.control_donor == "same_labels_donor")]
            half = until[(until.kind == kind) & (until.control == "none")].iloc[0]
            if not weight:
                made = {
                    f"the answer goes with the {side}": last[f"win_{kind}_excess_lo"] > 0 or last[f"win_{kind}_excess_hi"] < 0,
                    f"decided for the {side}": decided.side == kind,
                    f"the span carries the {side}": primary.p_holm < 0.05,
                    f"it carries the {side} at some layer": (shown[shown.outcome == "flips"].p_holm < 0.05).any(),
                }
            else:
                made = {
                    f"{side}: below half from elsewhere": not half.crossing_lo <= 3.5 <= half.crossing_hi,
                    f"{side}: nothing left too early": half.nothing_left < 4,
                }
            for name, claim in made.items():
                claims[name] = claims.get(name, 0) + bool(claim)
    return claims
