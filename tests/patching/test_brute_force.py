"""The tables again from the rows, by plain loops over pairs and clips; texts left out, and the means computed anew."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from activation_patching.span.effects import transfer
from activation_patching.span.tables import tables_of
from common.clips.manifest import LABELS
from common.stats.units import pair_units
from logit_lens.tables import lens_tables

Row = dict[str, object]
LAYERS, TEXTS = 6, 12


def patch_rows(kind: str, *, pairs: int = 240, seed: int = 0) -> list[Row]:
    """Return rows of pairs whose answers go with the donor's label early and with the recipient's late, with much noise."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(pairs):
        target, shared, own = rng.permutation(LABELS)[:3]
        text = f"t{number % TEXTS}"
        base = rng.normal(size=5) + 1.5 * (np.array(LABELS) == own)
        donor = rng.normal(size=5) + 2 * (np.array(LABELS) == target)
        labels = {"semantic": (own, shared, target, shared), "prosody": (shared, own, shared, target)}[kind]
        for layer in range(LAYERS):
            share = 1 - layer / (LAYERS - 1)
            logits = share * donor + (1 - share) * base
            said, usual = LABELS[int(logits.argmax())], LABELS[int(base.argmax())]
            row: Row = {"pair_id": f"p{number}", "true_pair_id": f"p{number}", "kind": kind, "control": "none", "target": target}
            row |= {f"logit_{x}": z for x, z in zip(LABELS, logits)} | {f"base_{x}": z for x, z in zip(LABELS, base)}
            row |= {"layer": layer, "pred_base": usual, "pred_patch": said, "kv_shared": 0}
            row |= {"flip_to_target": int(said == target), "flip_from_base": int(said != usual)}
            row |= {"delta_logit": row[f"logit_{target}"] - row[f"base_{target}"]}  # type: ignore[operator]
            row |= {f"{role}_text_id": text for role in ("recipient", "donor")}
            names = ("recipient_semantic", "recipient_prosody", "donor_semantic", "donor_prosody")
            rows.append(row | {f"{name}_label": x for name, x in zip(names, labels)})
    return rows


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def effect(rows: list[Row], kind: str, value: Callable[[Row, str], float]) -> tuple[float, float]:
    """Return to target and to third of the rows of one layer, by cells of the label y and the recipient's labels."""
    shared, own = ("prosody", "semantic") if kind == "semantic" else ("semantic", "prosody")
    hits, usual = [], []
    for row in rows:
        y, s, a = row["target"], row[f"recipient_{shared}_label"], row[f"recipient_{own}_label"]
        thirds = [
            r for r in rows if y not in (r["target"], r[f"recipient_{own}_label"], s) and r[f"recipient_{shared}_label"] == s
        ]
        alike = [r for r in thirds if r[f"recipient_{own}_label"] == a]
        hits.append(value(row, str(y)))
        usual.append(mean([value(r, str(y)) for r in (alike if len(alike) >= 5 else thirds)]))
    return mean(hits), mean(usual)


def said(row: Row, label: str) -> float:
    return float(row["pred_patch"] == label)


def rise(row: Row, label: str) -> float:
    return float(row[f"logit_{label}"]) - float(row[f"base_{label}"])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ("semantic", "prosody"))
def test_effects_and_the_half_effect_layer(kind: str) -> None:
    rows = patch_rows(kind)
    by_layer = [[r for r in rows if r["layer"] == layer] for layer in range(LAYERS)]
    tables = tables_of(pd.DataFrame(rows))
    table, (summary,) = tables["effects"], tables["summary"].itertuples()
    answers, logits = ([effect(some, kind, value) for some in by_layer] for value in (said, rise))
    for (target, third), (raised, raised_third), row in zip(answers, logits, table.itertuples()):
        assert (row.to_target, row.to_third, row.effect) == pytest.approx((target, third, target - third))
        assert (row.logit_target, row.logit_third) == pytest.approx((raised, raised_third))
        assert row.effect_logit == pytest.approx(raised - raised_third)
    changed = [mean([float(r["pred_patch"] != r["pred_base"]) for r in some]) for some in by_layer]
    assert table.from_base.tolist() == pytest.approx(changed)
    inner = slice(1, LAYERS - 1)
    assert summary.effect == pytest.approx(mean([target - third for target, third in answers[inner]]))
    assert summary.effect_logit == pytest.approx(mean([target - third for target, third in logits[inner]]))
    assert summary.from_base == pytest.approx(mean(changed[inner])) and summary.kept == 1
    curve = [target - third for target, third in logits]
    (below,) = (i for i in range(LAYERS - 1) if curve[i] >= curve[0] / 2 > curve[i + 1])
    crossing = below + (curve[below] - curve[0] / 2) / (curve[below] - curve[below + 1])
    assert summary.half_effect_layer == pytest.approx(crossing, abs=0.01)
    assert summary.half_effect_layer_lo <= crossing <= summary.half_effect_layer_hi


def left_out(values: dict[str, list[float]]) -> tuple[float, float]:
    """Return the standard error of a mean from leaving out each text, and its degrees of freedom; texts of one size."""
    whole = mean([v for of in values.values() for v in of])
    moved = [mean([v for other, of in values.items() if other != text for v in of]) - whole for text in values]
    texts, size = len(values), len(next(iter(values.values())))
    between = size * sum((mean(of) - whole) ** 2 for of in values.values()) / (texts - 1)
    within = sum((v - mean(of)) ** 2 for of in values.values() for v in of) / (texts * (size - 1))
    of_text = (between - within) / size  # the variance of the texts' effects; within is that of the units' own
    assert of_text > 0.12 * within  # below that the degrees of freedom are counted otherwise
    share = of_text / texts / (of_text / texts + within / (texts * size))
    df = 1 / (share / (texts - 1) + (1 - share) / (texts * size - 1))
    return (sum(m**2 for m in moved) * (texts - 1) / texts) ** 0.5, df


def ends(value: float, se: float, df: float) -> tuple[float, float]:
    reach = float(stats.t.isf(0.025, df))
    return value - reach * se, value + reach * se


def test_the_interval_of_an_effect_is_that_of_leaving_out_each_text() -> None:
    """One layer, one text a pair, and no labels known of the donors' words: these would be taken out first."""
    rows = pd.DataFrame([r for r in patch_rows("prosody") if r["layer"] == 2]).drop(columns="donor_semantic_label")
    for text, stronger in zip(rows.recipient_text_id.unique(), np.random.default_rng(1).normal(size=TEXTS)):
        for label in LABELS:
            rows.loc[(rows.recipient_text_id == text) & (rows.target == label), f"logit_{label}"] += stronger
    units = pair_units(rows)
    found = transfer(units)
    values = (found.logit_target - found.logit_third)[:, 0]
    by_text = {t: values[(units.unit_rows.recipient_text_id == t).to_numpy()].tolist() for t in rows.recipient_text_id.unique()}
    row = tables_of(rows)["effects"].iloc[0]
    assert (row.effect_logit_lo, row.effect_logit_hi) == pytest.approx(ends(row.effect_logit, *left_out(by_text)))


def lens_rows(seed: int = 0) -> list[Row]:
    rng, rows = np.random.default_rng(seed), []
    for text in range(TEXTS):
        of_text = 0.7 * rng.normal(size=5)
        for clip in range(8):
            voice = LABELS[1 + clip % 4]
            evidence = of_text + rng.normal(size=5) + 1.2 * (np.array(LABELS) == voice)
            evidence[0] += 1
            winner = LABELS[int(evidence.argmax())]
            outcome = {"neutral": "semantic", voice: "prosody"}.get(winner, "other")
            row: Row = {"sample_id": f"{text}.{clip}", "text_id": f"t{text}", "layer": 0, "winner": winner}
            row |= {"semantic_label": "neutral", "prosody_label": voice, "outcome": outcome, "mass": 0.9}
            row |= {f"logit_{x}": z for x, z in zip(LABELS, evidence)}
            rows.append(row | {"margin": row[f"logit_{voice}"] - row["logit_neutral"]})  # type: ignore[operator]
    return rows


def test_rates_and_intervals_of_the_lens() -> None:
    rows = lens_rows()
    table = lens_tables(pd.DataFrame(rows))["layers"].iloc[0]
    rates = {o: mean([float(r["outcome"] == o) for r in rows]) for o in ("semantic", "prosody", "other")}
    assert [table[f"win_{o}"] for o in rates] == pytest.approx([*rates.values()])
    assert table.voice_lead == pytest.approx(rates["prosody"] - rates["semantic"])
    by_text: dict[str, list[float]] = {}
    for row in rows:
        by_text.setdefault(str(row["text_id"]), []).append(float(row["margin"]))  # type: ignore[arg-type]
    margin = mean([v for of in by_text.values() for v in of])
    assert table.margin == pytest.approx(margin)
    assert (table.margin_lo, table.margin_hi) == pytest.approx(ends(margin, *left_out(by_text)))


def test_the_answers_of_a_label_table() -> None:
    rows = lens_rows()
    tables = lens_tables(pd.DataFrame(rows))
    for row in tables["labels"].itertuples():
        cell = [r for r in rows if r["prosody_label"] == row.prosody_label]
        assert row.n == len(cell) and row.semantic_label == "neutral"
        assert row.answers_sad == sum(r["winner"] == "sad" for r in cell)
        assert row.win_prosody == pytest.approx(mean([float(r["outcome"] == "prosody") for r in cell]))
    assert len(tables["labels"]) == 4
